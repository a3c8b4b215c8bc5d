import { PAGES_PER_PACKET, type PageList } from '@wherry/page-engine';
import type { MultifdSendPort, MultifdSent, SendList } from './multifd-port.ts';

/** Lists that a channel may have before it: one is sent while the next is made. */
const LISTS_PER_CHANNEL = 2;

/** What marks in the main stream that the destination is to wait for the channels. */
interface MarkedFrames {
  multifdFlush(): void;
}

/** What {@link MultifdSource} needs. */
export interface MultifdSourceOptions<List extends SendList> {
  readonly channels: readonly MultifdSendPort<List>[];
  /** Whether each section of RAM ends with a SYNC on each channel, rather than each round. */
  readonly flushAfterEachSection: boolean;
  /** Takes a list back. */
  readonly onListFree: (list: List) => void;
  /** Told what a channel has sent. */
  readonly onSent: (sent: MultifdSent) => void;
}

/**
 * A source's channels: spreads lists of pages over them, and marks where the destination has to have
 * all of what was sent before.
 *
 * @see multifd_send, multifd_ram_flush_and_sync in QEMU's migration/multifd.c and multifd-nocomp.c
 */
export class MultifdSource<List extends SendList = PageList> {
  readonly #options: MultifdSourceOptions<List>;
  readonly #lists: number[];
  readonly #sent = { bytes: 0, normalPages: 0, zeroPages: 0 };
  #underWay = new Set<Promise<void>>();
  #packetNum = 0;
  #next = 0;
  #failure: Error | undefined;
  /** Whether nothing was sent since the last SYNC. */
  #isSynced = false;

  constructor(options: MultifdSourceOptions<List>) {
    this.#options = options;
    this.#lists = options.channels.map(() => 0);
  }

  /** Lists that can be under way at a time. */
  static listsFor(channels: number): number {
    return channels * LISTS_PER_CHANNEL;
  }

  /** What went through all channels. */
  get sent(): MultifdSent {
    return this.#sent;
  }

  /** Resolves when a channel can take a list. @throws what broke a channel */
  async ready(): Promise<void> {
    this.#checkFailure();
    while (Math.min(...this.#lists) >= LISTS_PER_CHANNEL) {
      await Promise.race(this.#underWay);
      this.#checkFailure();
    }
  }

  /** Gives a list to the channel that has least to do, in turns; it is free again once it was sent. */
  send(list: List): void {
    const { channels, onListFree, onSent } = this.#options;
    const least = Math.min(...this.#lists);
    while (this.#lists[this.#next % channels.length] !== least) this.#next += 1;
    const id = this.#next++ % channels.length;
    this.#lists[id]! += 1;
    this.#isSynced = false;
    const sending = channels[id]!.send(list, this.#packetNum);
    this.#packetNum += Math.ceil(list.pages / PAGES_PER_PACKET);
    const done = sending
      .then(
        (sent) => {
          this.#count(sent);
          onSent(sent);
        },
        (error: Error) => {
          this.#failure ??= error;
        },
      )
      .then(() => {
        this.#lists[id]! -= 1;
        this.#underWay.delete(done);
        onListFree(list);
      });
    this.#underWay.add(done);
  }

  /** Whether a mark in the main stream goes with each SYNC, rather than the end of each section. */
  get marksRounds(): boolean {
    return !this.#options.flushAfterEachSection;
  }

  /** Has the destination wait for all that was sent: a page of the next round must not be overtaken. */
  async endRound(frames: MarkedFrames): Promise<void> {
    if (!this.marksRounds) return;
    await this.sync();
    frames.multifdFlush();
  }

  /** Ends a section of RAM, before its end mark. */
  async endSection(frames: MarkedFrames, isLast: boolean): Promise<void> {
    if (!this.marksRounds) await this.sync();
    else if (isLast && !this.#isSynced) await this.endRound(frames);
  }

  /** Sends a SYNC packet through each channel, behind all that was sent. */
  async sync(): Promise<void> {
    await Promise.all(this.#underWay);
    this.#checkFailure();
    const syncs = this.#options.channels.map((channel) => channel.sync(this.#packetNum++));
    for (const bytes of await Promise.all(syncs)) {
      this.#count({ bytes, normalPages: 0, zeroPages: 0 });
    }
    this.#isSynced = true;
  }

  /** Ends the channels, after what was sent. */
  async end(): Promise<void> {
    await Promise.all(this.#options.channels.map((channel) => channel.end()));
  }

  /** Drops the channels; resolves when no list is in use any more. */
  async destroy(reason: Error): Promise<void> {
    await Promise.all(this.#options.channels.map((channel) => channel.destroy(reason)));
    await Promise.all(this.#underWay);
  }

  #count({ bytes, normalPages, zeroPages }: MultifdSent): void {
    this.#sent.bytes += bytes;
    this.#sent.normalPages += normalPages;
    this.#sent.zeroPages += zeroPages;
  }

  #checkFailure(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
