import {
  type GuestRam,
  PageBitmap,
  type RamBlock,
  type RamChunk,
  TARGET_PAGE_BYTES,
} from '@wherry/page-engine';
import { type MappedRamPlace, placeMappedBlock, writeMappedHeader } from '@wherry/stream';
import type { OutputChannel } from './channels.ts';
import { ConnectionPageFile, type FilePiece, type PageFile } from './page-file.ts';
import type { SeekableFile } from './transport.ts';

/** Bytes that are written at once. */
const PIECE_BYTES = 1024 * 1024;

/** A block in the file. */
interface MappedBlock {
  readonly place: MappedRamPlace;
  /** The pages that the file holds; the others are zero. */
  readonly bitmap: PageBitmap;
}

/**
 * Writes RAM into a file in which each page has its place: a page that is sent again overwrites itself,
 * and zero pages are holes.
 *
 * @see mapped_ram_setup_ramblock, save_normal_page and ram_save_file_bmap in QEMU's migration/ram.c
 */
export class MappedRamSave {
  readonly #output: OutputChannel;
  readonly #stream: PageFile;
  readonly #pages: PageFile;
  readonly #blocks = new Map<RamBlock, MappedBlock>();
  readonly #bitmaps: ReadonlyMap<RamBlock, PageBitmap>;

  private constructor(
    output: OutputChannel,
    stream: PageFile,
    pages: PageFile,
    bitmaps: ReadonlyMap<RamBlock, PageBitmap>,
  ) {
    this.#output = output;
    this.#stream = stream;
    this.#pages = pages;
    this.#bitmaps = bitmaps;
  }

  /**
   * @param file the connection's
   * @param pages writes the pages; the connection itself by default
   * @param ignored blocks that stay out of the file
   */
  static async create(
    output: OutputChannel,
    file: SeekableFile,
    pages: PageFile | undefined,
    ram: GuestRam,
    ignored: ReadonlySet<RamBlock>,
  ): Promise<MappedRamSave> {
    const bitmaps = new Map<RamBlock, PageBitmap>();
    for (const block of ram.blocks) {
      if (!ignored.has(block)) bitmaps.set(block, await PageBitmap.create(block.pageCount));
    }
    const stream = new ConnectionPageFile(file);
    return new MappedRamSave(output, stream, pages ?? stream, bitmaps);
  }

  /** Writes a block's header; what is gathered next goes behind the block's pages. */
  placeBlock(block: RamBlock): void {
    const { frames, position } = this.#output;
    const bitmap = this.#bitmaps.get(block);
    if (bitmap === undefined) {
      writeMappedHeader(frames, { pageBytes: TARGET_PAGE_BYTES, bitmapOffset: 0, pagesOffset: 0 });
      return;
    }
    const place = placeMappedBlock(position, block.lengthBytes, TARGET_PAGE_BYTES);
    writeMappedHeader(frames, place);
    this.#output.jump(place.pagesOffset + block.lengthBytes);
    this.#blocks.set(block, { place, bitmap });
  }

  /** Writes the pages of a chunk; resolves when they are on their way. */
  sendChunk(chunk: RamChunk): Promise<void> {
    return this.#output.bringOut(chunk, () => {
      const pieces: FilePiece[] = [];
      for (const { block, firstPage, pages, isZero, bytes } of chunk.runs) {
        const { place, bitmap } = this.#blocks.get(block)!;
        if (isZero) {
          bitmap.clear(firstPage, firstPage + pages);
          continue;
        }
        bitmap.set(firstPage, firstPage + pages);
        const offset = place.pagesOffset + firstPage * TARGET_PAGE_BYTES;
        // Cut, so that several threads find some work each.
        for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
          pieces.push({ bytes: bytes.subarray(at, at + PIECE_BYTES), offset: offset + at });
        }
      }
      this.#output.count(chunk.lengthBytes);
      return this.#pages.write(pieces);
    });
  }

  /** Writes the bitmaps, when all pages are on their way. */
  async finish(): Promise<void> {
    await this.#output.flush();
    for (const { place, bitmap } of this.#blocks.values()) {
      const words = new Uint8Array(Math.ceil(bitmap.pages / 64) * 8); // little-endian, as on x86
      words.set(bitmap.bytes);
      this.#output.count(words.length);
      await this.#stream.write([{ bytes: words, offset: place.bitmapOffset }]);
    }
  }

  /** Lets go of what writes the pages, when nothing is under way. */
  close(): Promise<void> {
    return this.#pages.close();
  }
}
