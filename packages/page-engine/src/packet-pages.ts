import type { Bank } from './bank.ts';
import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import {
  ENTRY_BYTES,
  PACKET_HEAD_BYTES,
  PACKET_OFFSETS,
  PACKET_PAGES,
  TARGET_PAGE_BYTES,
} from './layout.ts';
import type { PageList } from './page-list.ts';
import type { RamBlock } from './ram-block.ts';

/** Counts the target pages that a multifd packet has room for. */
export const PAGES_PER_PACKET: number = PACKET_PAGES;
/** Bytes of a packet's head: fields, then a be64 for each page that it has room for. */
const HEAD_BYTES = PACKET_OFFSETS + PACKET_PAGES * 8;

/** Counts the pages of a packet. */
export interface PacketCounts {
  /** Pages whose content goes with the packet. */
  readonly normalPages: number;
  /** Pages that are named only. */
  readonly zeroPages: number;
}

/**
 * Fills the packets of one multifd channel from guest memory, or places what they bring. Channels on
 * several threads work on one memory at once, each with its own number and its own GuestRam.
 *
 * A packet's head begins with fields that belong to the caller; its offsets, from byte 320, are kept
 * here: be64 offsets in one RAM block, first those of the pages that have content.
 * @see QEMU migration/multifd-nocomp.c, migration/multifd-zero-page.c
 */
export class PacketPages {
  readonly pagesPerPacket: number = PAGES_PER_PACKET;
  readonly #ram: GuestRam;
  readonly #channel: number;
  /** The bank in which the packet's offsets and content are. */
  #home: Bank;
  #block: RamBlock;
  #normalPages = 0;
  /** Where room was given for the content: in place, or behind the head. */
  #content = 0;

  /**
   * @param channel a number below the guest memory's multifdChannels
   * @throws PageEngineError BAD_OPTION
   */
  constructor(ram: GuestRam, channel: number) {
    const { multifdChannels } = ram.plan.options;
    if (!Number.isInteger(channel) || channel < 0 || channel >= multifdChannels) {
      throw new PageEngineError(
        'BAD_OPTION',
        `channel ${channel} of a guest memory for ${multifdChannels} channels`,
      );
    }
    this.#ram = ram;
    this.#channel = channel;
    this.#home = ram.banks[0]!;
    this.#block = ram.blocks[0]!;
  }

  /** Finds a RAM block by its name. */
  block(name: string): RamBlock | undefined {
    return this.#ram.block(name);
  }

  /** Name of the RAM block of the packet. */
  get blockName(): string {
    return this.#block.name;
  }

  /** Names of all RAM blocks. */
  get blockNames(): readonly string[] {
    return this.#ram.blocks.map(({ name }) => name);
  }

  /** Views the head of the packet, 1344 bytes: filled by {@link PacketPages.fill}, or read into before {@link PacketPages.checkOffsets}. */
  get head(): Uint8Array {
    const ptr = this.#headPtr(this.#home);
    return this.#home.bytes.subarray(ptr, ptr + HEAD_BYTES);
  }

  /** Views where the next head is to be read into. */
  startHead(): Uint8Array {
    this.#home = this.#ram.banks[0]!;
    return this.head;
  }

  /**
   * Names the pages of a list in a packet whose other bytes are zero.
   * @param from the first page of the list that is meant; at most PAGES_PER_PACKET follow
   * @param findZeroPages whether pages that hold zeroes are named as such
   */
  fill(list: PageList, from: number, findZeroPages: boolean): PacketCounts {
    const pages = Math.min(list.pages - from, PACKET_PAGES);
    this.#home = this.#ram.banks[list.bank]!;
    this.#block = this.#ram.blocks[list.block]!;
    const { engine, plan } = this.#home;
    this.head.fill(0);
    this.#normalPages = engine.listPacket(
      this.#entryPtr,
      plan.listPtrs[list.list]! + from * 4,
      pages,
      this.#headPtr(this.#home),
      findZeroPages ? 1 : 0,
    );
    return { normalPages: this.#normalPages, zeroPages: pages - this.#normalPages };
  }

  /**
   * Views the content of the pages that {@link PacketPages.fill} named: in place where they follow each
   * other, so that the guest may change it meanwhile.
   * @param copied whether it must stand still
   */
  content(copied: boolean): Uint8Array {
    const { engine } = this.#home;
    const head = this.#headPtr(this.#home);
    let ptr = copied ? 0 : engine.packetRun(this.#entryPtr, head, this.#normalPages) >>> 0;
    if (ptr === 0) {
      ptr = head + PACKET_HEAD_BYTES;
      engine.gatherPacket(this.#entryPtr, head, this.#normalPages, ptr);
    }
    return this.#home.bytes.subarray(ptr, ptr + this.#normalPages * TARGET_PAGE_BYTES);
  }

  /**
   * Looks at the first `pages` offsets of a head that was read; {@link PacketPages.room} follows.
   * @returns the first offset that is no page of the block
   */
  checkOffsets(block: RamBlock, pages: number): bigint | undefined {
    const { engine, view } = this.#home;
    const head = this.#headPtr(this.#home);
    const wrong = engine.checkPacket(head, pages, block.pageCount);
    this.#block = block;
    return wrong === pages ? undefined : view.getBigUint64(head + PACKET_OFFSETS + wrong * 8);
  }

  /** Views where the content of a packet with checked offsets is to be put; {@link PacketPages.place} follows. */
  room(normalPages: number): Uint8Array {
    const head = this.#headPtr(this.#home);
    if (normalPages > 0) {
      const page = Number(this.#home.view.getBigUint64(head + PACKET_OFFSETS)) / TARGET_PAGE_BYTES;
      const { bank } = this.#block.segments.findLast(({ firstPage }) => firstPage <= page)!;
      this.#moveTo(this.#ram.banks[bank]!);
    }
    const { engine, bytes } = this.#home;
    this.#content =
      engine.packetRun(this.#entryPtr, this.#headPtr(this.#home), normalPages) >>> 0 ||
      this.#headPtr(this.#home) + PACKET_HEAD_BYTES;
    return bytes.subarray(this.#content, this.#content + normalPages * TARGET_PAGE_BYTES);
  }

  /** Makes the pages of a packet present whose content was put into its room. */
  place({ normalPages, zeroPages }: PacketCounts): void {
    const home = this.#home;
    const contentPtr = this.#headPtr(home) + PACKET_HEAD_BYTES;
    const isInPlace = this.#content !== contentPtr;
    for (const { bank: index } of this.#block.segments) {
      const bank = this.#ram.banks[index]!;
      const head = this.#headPtr(bank);
      if (bank !== home) {
        const end = isInPlace ? HEAD_BYTES : PACKET_HEAD_BYTES + normalPages * TARGET_PAGE_BYTES;
        bank.bytes.set(home.bytes.subarray(this.#headPtr(home), this.#headPtr(home) + end), head);
      }
      const from = isInPlace ? 0 : head + PACKET_HEAD_BYTES;
      bank.engine.placePacket(this.#entryPtr, head, normalPages, zeroPages, from);
    }
  }

  get #entryPtr(): number {
    return this.#ram.plan.tablePtr + this.#block.index * ENTRY_BYTES;
  }

  #headPtr(bank: Bank): number {
    return bank.plan.packetPtrs[this.#channel]!;
  }

  /** Takes the head along into another bank. */
  #moveTo(bank: Bank): void {
    if (bank === this.#home) return;
    const { head } = this;
    this.#home = bank;
    this.head.set(head);
  }
}
