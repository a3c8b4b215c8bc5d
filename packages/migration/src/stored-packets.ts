import type { PacketCounts } from '@wherry/page-engine';
import type { PacketSource } from './multifd-port.ts';
import type { StoredGuestPort } from './stored-guest-port.ts';
import type { StoredList } from './stored-pages.ts';

/** Bytes of pages that a packet has room for. @see MULTIFD_PACKET_SIZE in QEMU's migration/multifd.h */
const CONTENT_BYTES = 512 * 1024;
const OFFSETS = 320;

/** Fills the packets of one multifd channel with the pages of a guest in a file. */
export class StoredPackets implements PacketSource<StoredList> {
  readonly pagesPerPacket: number;
  readonly head: Uint8Array<ArrayBuffer>;
  readonly #guest: StoredGuestPort;
  readonly #offsets: DataView;
  readonly #content = new Uint8Array(CONTENT_BYTES);
  #contentBytes = 0;
  #block = 0;

  constructor(guest: StoredGuestPort) {
    this.#guest = guest;
    this.pagesPerPacket = CONTENT_BYTES / guest.targetPageBytes;
    this.head = new Uint8Array(OFFSETS + 8 * this.pagesPerPacket);
    this.#offsets = new DataView(this.head.buffer, OFFSETS);
  }

  get blockName(): string {
    return this.#guest.blocks[this.#block]!.name;
  }

  startHead(): Uint8Array {
    return this.head;
  }

  fill({ block, pages, numbers }: StoredList, from: number): PacketCounts {
    const { ram, targetPageBytes } = this.#guest;
    const end = Math.min(pages, from + this.pagesPerPacket);
    this.#block = block;
    this.head.fill(0);
    let normalPages = 0;
    let zeroPages = 0;
    const offset = (slot: number, page: number): void =>
      this.#offsets.setBigUint64(8 * slot, BigInt(page) * BigInt(targetPageBytes));
    for (let i = from; i < end; ) {
      const page = numbers[i]!;
      let row = 1;
      while (i + row < end && numbers[i + row] === page + row) row++;
      const run = ram.runLength(block, page, row);
      if (run > 0) {
        const into = this.#content.subarray(normalPages * targetPageBytes);
        ram.read(block, page, run, into, targetPageBytes);
        for (let k = 0; k < run; k++) offset(normalPages++, page + k);
      } else {
        for (let k = 0; k < -run; k++) offset(end - from - ++zeroPages, page + k);
      }
      i += Math.abs(run);
    }
    this.#contentBytes = normalPages * targetPageBytes;
    return { normalPages, zeroPages };
  }

  content(): Uint8Array {
    return this.#content.subarray(0, this.#contentBytes);
  }
}
