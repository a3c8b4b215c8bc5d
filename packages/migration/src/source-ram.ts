import { RamSender } from '@wherry/page-engine';
import { AutoConverge } from './auto-converge.ts';
import { RateLimit } from './channels.ts';
import { ignoredBlocks } from './guest-port.ts';
import { flushesAfterEachSection } from './machine-defaults.ts';
import { MappedRamSave } from './mapped-ram-save.ts';
import { MultifdSource } from './multifd-source.ts';
import type { SourceConnection } from './source-connection.ts';
import type { SourceFrames } from './source-frames.ts';
import type { SourceOptions } from './source-options.ts';
import type { SenderCounts } from './source-statistics.ts';
import { checkSeekable } from './transport.ts';

/** Bytes of page records in one PART section, about what QEMU sends in its 50 ms at 1 Gbit/s. */
const PART_BYTES = 8 * 1024 * 1024;
/** How much background data may stand before an answer to a request. */
const REQUESTED_PART_BYTES = 64 * 1024;

/** Where the sections of RAM go; another connection has others. */
export interface RamOutput {
  readonly connection: SourceConnection;
  readonly frames: SourceFrames;
}

/**
 * Sends a guest's RAM in sections: which pages next, how fast, and whether through the stream, the
 * channels of multifd or to their places in a file.
 *
 * @see ram_save_setup, ram_save_iterate, ram_save_complete in QEMU's migration/ram.c
 */
export class SourceRam {
  readonly sender: RamSender;
  readonly #options: SourceOptions;
  readonly #onSent: () => void;
  readonly #rate: RateLimit;
  readonly #autoConverge: AutoConverge | undefined;
  readonly #multifd: MultifdSource | undefined;
  #mapped: MappedRamSave | undefined;
  #pace: 'precopy' | 'snapshot' | 'postcopy';
  #postcopyRequested = false;

  /** @param onSent called when a chunk of pages went out */
  constructor(options: SourceOptions, onSent: () => void) {
    this.#options = options;
    this.#onSent = onSent;
    const { capabilities, guest, clock, multifd: channels } = options;
    const { 'xbzrle-cache-size': cacheBytes, 'zero-page-detection': detection } =
      options.parameters();
    this.#pace = capabilities.has('background-snapshot') ? 'snapshot' : 'precopy';
    this.sender = new RamSender(guest.ram, {
      xbzrleCacheBytes: capabilities.has('xbzrle')
        ? Math.min(cacheBytes, guest.ram.plan.options.xbzrleCacheBytes)
        : 0,
      runs: capabilities.has('mapped-ram'),
      ignored: ignoredBlocks(guest, capabilities),
      zeroPages: channels === undefined ? detection !== 'none' : detection === 'legacy',
      pageLists: MultifdSource.listsFor(channels?.length ?? 0),
      preempt: capabilities.has('postcopy-preempt'),
    });
    this.#rate = new RateLimit(clock);
    if (capabilities.has('auto-converge') && guest.setThrottle !== undefined) {
      this.#autoConverge = new AutoConverge({
        clock,
        parameters: options.parameters,
        setThrottle: guest.setThrottle.bind(guest),
      });
    }
    if (channels !== undefined) {
      this.#multifd = new MultifdSource({
        channels,
        flushAfterEachSection: flushesAfterEachSection(guest.machineType),
        onListFree: (list) => this.sender.releaseList(list),
        onSent: ({ bytes }) => this.#rate.spend(bytes, options.parameters()['max-bandwidth']),
      });
    }
  }

  /** What was sent and is owed, but for the bytes of the stream. */
  get counts(): Omit<SenderCounts, 'streamBytes'> {
    const { sender } = this;
    const sent = this.#multifd?.sent;
    return {
      normalPages: sender.counters.normalPages + (sent?.normalPages ?? 0),
      zeroPages: sender.counters.zeroPages + (sent?.zeroPages ?? 0),
      multifdBytes: this.multifdBytes,
      owedBytes: sender.owedBytes,
      totalBytes: sender.totalBytes,
      xbzrle: sender.xbzrle,
    };
  }

  /** Bytes through the channels of multifd. */
  get multifdBytes(): number {
    return this.#multifd?.sent.bytes ?? 0;
  }

  /** How much of their time auto-converge has the vCPUs sleep; 0 for none. */
  get throttlePercentage(): number {
    return this.#autoConverge?.percentage ?? 0;
  }

  /** Whether the guest is to move at the next opportunity, its pages behind it. */
  get postcopyRequested(): boolean {
    return this.#postcopyRequested;
  }

  requestPostcopy(): void {
    this.#postcopyRequested = true;
    this.interrupt();
  }

  /** From now on only whole host pages go out, what the guest waits for first. */
  enterPostcopy(): void {
    this.#pace = 'postcopy';
    this.sender.enterPostcopy();
  }

  /** Has a wait for the rate end: something is urgent. */
  interrupt(): void {
    this.#rate.interrupt();
  }

  /** Whether a round is over, or has taken too long. */
  get isSyncDue(): boolean {
    return this.sender.roundComplete || this.#autoConverge?.isSyncDue === true;
  }

  /** Takes a synchronisation of the dirty log into account, by which `dirtyPages` came to be owed. */
  synced(dirtyPages: number, streamBytes: number): void {
    this.#autoConverge?.synced(dirtyPages, streamBytes);
  }

  /** Lets the guest run at its full speed again. */
  endThrottle(): void {
    this.#autoConverge?.stop();
  }

  /** Lists the RAM blocks, and makes their places in a mapped file. @throws MigrationError */
  async setUp({ connection, frames }: RamOutput): Promise<void> {
    const { guest, capabilities, transport, openPageFile } = this.#options;
    if (capabilities.has('mapped-ram')) {
      this.#mapped = await MappedRamSave.create(
        connection.output,
        checkSeekable(transport),
        await openPageFile?.(),
        guest.ram,
        ignoredBlocks(guest, capabilities),
      );
    }
    const mapped = this.#mapped;
    await this.#multifd?.sync();
    frames.setUp(guest.ram, capabilities.has('postcopy-ram'), {
      withGpas: capabilities.has('x-ignore-shared'),
      flush: this.#multifd?.marksRounds === true,
      ...(mapped === undefined ? {} : { placeMapped: (block) => mapped.placeBlock(block) }),
    });
  }

  /** Sends one PART: of what is owed about as much as its phase has go out at once. */
  sendPart(output: RamOutput): Promise<void> {
    return this.#sendSection(output, 'part');
  }

  /** Sends all that is still owed, and the END of RAM. */
  sendEnd(output: RamOutput): Promise<void> {
    return this.#sendSection(output, 'end');
  }

  /** Ends what a snapshot, which has no END, has written to a mapped file. */
  async finish(): Promise<void> {
    await this.#mapped?.finish();
  }

  /**
   * Sends one section of page records. In postcopy it goes on to the end of a host page, since older
   * destinations lose a host page that two sections share.
   */
  async #sendSection({ connection, frames }: RamOutput, kind: 'part' | 'end'): Promise<void> {
    const partBytes = this.#pace === 'precopy' ? PART_BYTES : REQUESTED_PART_BYTES;
    const sent = (): number => connection.bytes + this.multifdBytes;
    const until = kind === 'end' ? Number.POSITIVE_INFINITY : sent() + partBytes;
    frames.ramHead(kind);
    do {
      connection.checkAborted();
      const rate = kind === 'end' ? 0 : this.#bytesPerSecond;
      // A request ends the wait, and is served; the background goes on waiting behind it.
      if (rate !== 0 && !this.sender.hasRequests) await this.#rate.wait(connection.signal);
      await this.#multifd?.ready();
      const chunk = this.sender.next(Math.min(partBytes, this.#rate.burst(rate)));
      if (chunk === undefined) break;
      if (chunk.list !== undefined) this.#multifd?.send(chunk.list);
      const { lengthBytes } = chunk;
      await (this.#mapped ?? connection.output).sendChunk(chunk);
      this.#onSent();
      await this.#options.clock.yield(); // writes that succeed at once would keep requests and QMP waiting
      if (!chunk.requested) this.#rate.spend(lengthBytes, rate);
      if (chunk.endOfRound) await this.#multifd?.endRound(frames);
    } while (
      (sent() < until || this.sender.insideHostPage) &&
      !(kind === 'part' && this.#endsPart())
    );
    await this.#multifd?.endSection(frames, kind === 'end');
    if (kind === 'end') await this.finish();
    frames.ramEnd();
    await connection.output.flush();
  }

  /** What the parameters allow now; 0 for no limit. */
  get #bytesPerSecond(): number {
    if (this.#pace === 'snapshot') return 0;
    const isPostcopy = this.#pace === 'postcopy';
    return this.#options.parameters()[isPostcopy ? 'max-postcopy-bandwidth' : 'max-bandwidth'];
  }

  /** Whether a PART ends early. Postcopy waits for nothing: neither for its request nor for the end of a round. */
  #endsPart(): boolean {
    return this.#pace !== 'postcopy' && (this.#postcopyRequested || this.isSyncDue);
  }

  /** Ends the channels, after what was sent, and lets go of the file. */
  async end(): Promise<void> {
    await this.#multifd?.end();
    await this.#mapped?.close();
  }

  /** Drops the channels; resolves when nothing of theirs is in use any more. */
  async destroy(reason: Error): Promise<void> {
    await this.#multifd?.destroy(reason);
  }
}
