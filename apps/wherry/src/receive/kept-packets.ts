import type { PacketTarget } from '@wherry/migration';
import type { MultifdHead } from '@wherry/stream';
import type { MappedRamWriter } from '../ram/mapped-ram-writer.ts';

const PAGE_BYTES = 4096;
const PAGES_PER_PACKET = 128;
const OFFSETS = 320;
const HEAD_BYTES = OFFSETS + 8 * PAGES_PER_PACKET;

/** Writes the pages of one channel's packets to the file in which a guest is kept. */
export class KeptPackets implements PacketTarget {
  readonly #writer: MappedRamWriter;
  readonly #head = new Uint8Array(HEAD_BYTES);
  readonly #offsets = new DataView(this.#head.buffer, OFFSETS);
  readonly #content = new Uint8Array(PAGES_PER_PACKET * PAGE_BYTES);

  constructor(writer: MappedRamWriter) {
    this.#writer = writer;
  }

  get blockNames(): readonly string[] {
    return this.#writer.blockNames;
  }

  startHead(): Uint8Array {
    return this.#head;
  }

  block(name: string): { readonly lengthBytes: number } | undefined {
    const lengthBytes = this.#writer.usedBytes(name);
    return lengthBytes === undefined ? undefined : { lengthBytes };
  }

  checkOffsets(
    { lengthBytes }: { readonly lengthBytes: number },
    pages: number,
  ): bigint | undefined {
    for (let i = 0; i < pages; i++) {
      const offset = this.#offsets.getBigUint64(8 * i);
      if (offset % BigInt(PAGE_BYTES) !== 0n || offset + BigInt(PAGE_BYTES) > lengthBytes)
        return offset;
    }
    return undefined;
  }

  room(normalPages: number): Uint8Array {
    return this.#content.subarray(0, normalPages * PAGE_BYTES);
  }

  place({ block: name, normalPages, zeroPages }: MultifdHead): void {
    for (let i = 0; i < normalPages; i++) {
      const page = this.#content.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
      this.#writer.page({ name }, this.#offsetOf(i), page);
    }
    for (let i = normalPages; i < normalPages + zeroPages; i++) {
      this.#writer.zero({ name }, this.#offsetOf(i), PAGE_BYTES);
    }
  }

  #offsetOf(index: number): number {
    return Number(this.#offsets.getBigUint64(8 * index));
  }
}
