import { PageBitmap, type RamBlock, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { type MappedRamPlace, mappedBitmapBytes } from '@wherry/stream';
import { MigrationError } from './migration-error.ts';
import type { SeekableFile } from './transport.ts';

/** Bytes that are read at once: so long a request of a vCPU may wait. */
const READ_BYTES = 1024 * 1024;

/** Loads the pages of a mapped-ram file, wherever in it they lie. @see read_ramblock_mapped_ram in QEMU's migration/ram.c */
export class MappedRamLoad {
  readonly #file: SeekableFile;
  /** By block: which of its pages are in the file. The others are zero, as new memory is. */
  readonly #blocks = new Map<RamBlock, { place: MappedRamPlace; bitmap: PageBitmap }>();
  /** Pages that were read. */
  pages = 0;

  constructor(file: SeekableFile) {
    this.#file = file;
  }

  /** Takes up a block of the RAM list: reads which of its pages the file holds. @throws MigrationError */
  async addBlock(block: RamBlock, place: MappedRamPlace): Promise<void> {
    const bytes = new Uint8Array(mappedBitmapBytes(block.lengthBytes, TARGET_PAGE_BYTES));
    const read = await this.#file.readAt(bytes, place.bitmapOffset);
    if (read < bytes.length) {
      throw this.#truncated(block, 'bitmap', place.bitmapOffset, bytes.length, read);
    }
    const bitmap = await PageBitmap.create(block.pageCount);
    bitmap.add(bytes.subarray(0, bitmap.bytes.length));
    this.#blocks.set(block, { place, bitmap });
  }

  /** Loads all pages of all blocks. @throws MigrationError `RAM_RECORD_INVALID` */
  async loadAll(): Promise<void> {
    for (const block of this.#blocks.keys()) await this.#load(block, 0, block.pageCount);
  }

  /** Loads those of a range of pages that the file holds. */
  async #load(block: RamBlock, fromPage: number, toPage: number): Promise<void> {
    const { place, bitmap } = this.#blocks.get(block)!;
    for (const [first, end] of bitmap.runs(fromPage, toPage)) {
      for (const { firstPage, bytes } of block.fillable(first, end)) {
        for (let at = 0; at < bytes.length; at += READ_BYTES) {
          const piece = bytes.subarray(at, at + READ_BYTES);
          const offset = place.pagesOffset + firstPage * TARGET_PAGE_BYTES + at;
          const read = await this.#file.readAt(piece, offset);
          if (read < piece.length) {
            const page = firstPage + Math.floor((at + read) / TARGET_PAGE_BYTES);
            throw this.#truncated(block, `page ${page}`, offset, piece.length, read);
          }
        }
      }
      this.pages += end - first;
    }
  }

  #truncated(
    block: RamBlock,
    what: string,
    offset: number,
    expected: number,
    found: number,
  ): MigrationError {
    return new MigrationError(
      'RAM_RECORD_INVALID',
      `(${block.name}) failed to read ${what} from file offset ${offset.toString(16)}`,
      {
        expected: `${expected} bytes`,
        found: `${found}, then the end of the file`,
        offset,
        path: ['ram', block.name],
        likely: 'The file was cut off, when it was copied or because its disk was full',
      },
    );
  }
}
