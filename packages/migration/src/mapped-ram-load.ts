import { type GuestRam, PageBitmap, type RamBlock, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { type MappedRamPlace, mappedBitmapBytes } from '@wherry/stream';
import type { GuestPort } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';
import { ConnectionPageFile, type FilePiece, type PageFile } from './page-file.ts';
import type { SeekableFile } from './transport.ts';

/** Pages that are read at once: so long a request of a vCPU may wait. */
const READ_PAGES = 256;
/** What one call reads: enough for several threads. */
const BATCH_BYTES = 16 * 1024 * 1024;
const BATCH_PIECES = 1024;

/** Loads the pages of a mapped-ram file, wherever in it they lie. @see read_ramblock_mapped_ram in QEMU's migration/ram.c */
export class MappedRamLoad {
  /** The file; another one in which the same is to be found, when the guest has to go on with that. */
  file: SeekableFile;
  /** By block: which of its pages are in the file. The others are zero, as new memory is. */
  readonly #blocks = new Map<RamBlock, { place: MappedRamPlace; bitmap: PageBitmap }>();
  /** Pages that were read. */
  pages = 0;

  constructor(file: SeekableFile) {
    this.file = file;
  }

  /** Takes up a block of the RAM list: reads which of its pages the file holds. @throws MigrationError */
  async addBlock(block: RamBlock, place: MappedRamPlace): Promise<void> {
    const bytes = new Uint8Array(mappedBitmapBytes(block.lengthBytes, TARGET_PAGE_BYTES));
    const { bitmapOffset } = place;
    const read = await this.#try(block, bitmapOffset, () => this.file.readAt(bytes, bitmapOffset));
    if (read < bytes.length) {
      throw this.#truncated(block, 'bitmap', place.bitmapOffset, bytes.length, read);
    }
    const bitmap = await PageBitmap.create(block.pageCount);
    bitmap.add(bytes.subarray(0, bitmap.bytes.length));
    this.#blocks.set(block, { place, bitmap });
  }

  /** Loads all pages of all blocks, over the connection itself by default. @throws MigrationError `RAM_RECORD_INVALID` */
  async loadAll(pages: PageFile = new ConnectionPageFile(this.file)): Promise<void> {
    let batch: FilePiece[] = [];
    let batchBytes = 0;
    for (const [block, { bitmap }] of this.#blocks) {
      for (const [first, end] of bitmap.runs()) {
        for (const piece of this.#pieces(block, first, end)) {
          batch.push(piece);
          batchBytes += piece.bytes.length;
          if (batchBytes < BATCH_BYTES && batch.length < BATCH_PIECES) continue;
          await this.#read(block, pages, batch);
          batch = [];
          batchBytes = 0;
        }
      }
      if (batch.length > 0) await this.#read(block, pages, batch);
      batch = [];
      batchBytes = 0;
    }
  }

  /** Makes those pages present that are zero: the others are what {@link MappedRamLoad.loadMissing} loads. */
  placeZeroPages(ram: GuestRam): void {
    for (const block of ram.blocks) {
      let next = 0;
      for (const [first, end] of this.#blocks.get(block)?.bitmap.runs() ?? []) {
        block.markReceived(next, first);
        next = end;
      }
      block.markReceived(next, block.pageCount);
    }
  }

  /**
   * Loads the pages that are missing while the guest runs: those first that it waits for.
   *
   * @throws MigrationError `RAM_RECORD_INVALID`; what was loaded stays, so that it can be called again
   */
  async loadMissing({ ram, faults }: Pick<GuestPort, 'ram' | 'faults'>): Promise<void> {
    faults.repeat();
    for (const block of this.#blocks.keys()) {
      let next: number | undefined = 0;
      while (next !== undefined) {
        for (const { block: awaited, offsetBytes, lengthBytes } of faults.take()) {
          let page: number | undefined = offsetBytes / TARGET_PAGE_BYTES;
          const end = page + lengthBytes / TARGET_PAGE_BYTES;
          while (page !== undefined) page = await this.#loadNext(awaited, page, end, ram);
        }
        next = await this.#loadNext(block, next, block.pageCount, ram);
      }
    }
  }

  /** Places the first missing pages of a range; returns the page behind them, undefined if there are none. */
  async #loadNext(
    block: RamBlock,
    from: number,
    to: number,
    ram: GuestRam,
  ): Promise<number | undefined> {
    const missing = block.nextMissing(from, to);
    if (missing === undefined) return undefined;
    const end = Math.min(missing.to, missing.from + READ_PAGES);
    const pages = new ConnectionPageFile(this.file);
    await this.#read(block, pages, [...this.#pieces(block, missing.from, end)]);
    block.markReceived(missing.from, end);
    ram.faults.wakeAll();
    return end;
  }

  /** Says where pages of a block go to from where in the file. */
  *#pieces(block: RamBlock, from: number, to: number): Generator<FilePiece> {
    const { pagesOffset } = this.#blocks.get(block)!.place;
    for (const { firstPage, bytes } of block.fillable(from, to)) {
      for (let at = 0; at < bytes.length; at += READ_PAGES * TARGET_PAGE_BYTES) {
        const offset = pagesOffset + firstPage * TARGET_PAGE_BYTES + at;
        yield { bytes: bytes.subarray(at, at + READ_PAGES * TARGET_PAGE_BYTES), offset };
      }
    }
  }

  /** Reads pages of a block into their memory. */
  async #read(block: RamBlock, pages: PageFile, pieces: readonly FilePiece[]): Promise<void> {
    const short = await this.#try(block, pieces[0]!.offset, () => pages.read(pieces));
    if (short !== undefined) {
      const { offset, expectedBytes, foundBytes } = short;
      const { pagesOffset } = this.#blocks.get(block)!.place;
      const page = Math.floor((offset - pagesOffset + foundBytes) / TARGET_PAGE_BYTES);
      throw this.#truncated(block, `page ${page}`, offset, expectedBytes, foundBytes);
    }
    this.pages += pieces.reduce((sum, { bytes }) => sum + bytes.length, 0) / TARGET_PAGE_BYTES;
  }

  async #try<T>(block: RamBlock, offset: number, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (cause) {
      if (cause instanceof MigrationError) throw cause; // this side gave up
      throw new MigrationError(
        'RAM_RECORD_INVALID',
        `(${block.name}) failed to read from file offset ${offset.toString(16)}`,
        {
          found: cause instanceof Error ? cause.message : String(cause),
          offset,
          path: ['ram', block.name],
          likely: 'The disk under the file has failed, or its server cannot be reached',
          cause,
        },
      );
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
