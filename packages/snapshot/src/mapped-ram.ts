import { type ByteReader, collect, need, type Parser, skip } from '@wherry/bytes';
import { type MappedRamPlace, mappedBitmapBytes } from '@wherry/stream';
import type { Locator } from './locator.ts';
import { ramListInvalid } from './ram-list-invalid.ts';
import type { MappedRuns, RamSink } from './ram-sink.ts';
import type { RamBlockModel } from './stream-model.ts';

/** A bitmap is kept only for its positions: these are 2 TiB of guest in 4 KiB pages. */
const MAX_KEPT_BITMAP_BYTES = 64 * 1024 * 1024;

/** Who wants the pages of a mapped-ram file, and what is known of the host that wrote it. */
export interface MappedRamNeeds {
  readonly sink: RamSink | undefined;
  readonly locator: Locator;
  /** Byte order of the writer where the container tells. */
  readonly byteOrder: 'little' | 'big' | undefined;
}

/** Reads a block's bitmap and its pages, or passes over what nobody wants. */
export function* readMappedPages(
  reader: ByteReader,
  block: RamBlockModel,
  mapped: MappedRamPlace,
  needs: MappedRamNeeds,
): Parser<void> {
  const { sink, locator } = needs;
  const { pageBytes, bitmapOffset, pagesOffset } = mapped;
  const path = ['ram', block.name];
  const headerEnd = reader.offset;
  yield* skip(reader, bitmapOffset - headerEnd);
  locator.pieces(headerEnd, path, [[bitmapOffset - headerEnd, 'Unused bytes before the bitmap']]);
  const bitmapBytes = mappedBitmapBytes(block.usedBytes, pageBytes);
  const isWanted =
    sink !== undefined || locator.covers(bitmapOffset, pagesOffset + block.usedBytes);
  if (isWanted && bitmapBytes > MAX_KEPT_BITMAP_BYTES) {
    throw ramListInvalid(
      `a bitmap of at most ${MAX_KEPT_BITMAP_BYTES} bytes`,
      `${bitmapBytes}`,
      bitmapOffset,
      block.name,
    );
  }
  let bitmap: PageBitmap | undefined;
  if (isWanted) {
    const bytes = yield* collect(reader, bitmapBytes);
    block.pages.mapped = countOnes(bytes);
    bitmap = new PageBitmap(bytes, Math.ceil(block.usedBytes / pageBytes), needs.byteOrder);
    locate(block, mapped, bitmap, bitmapBytes, locator);
  } else {
    for (let left = bitmapBytes; left > 0; ) {
      yield* need(reader, 1);
      const piece = reader.view(Math.min(left, reader.available));
      block.pages.mapped += countOnes(piece);
      left -= piece.length;
    }
  }
  yield* skip(reader, pagesOffset - reader.offset);
  const end = pagesOffset + block.usedBytes;
  if (sink?.mapped !== undefined && bitmap !== undefined) {
    sink.mapped(block, mapped, bitmap);
  } else if (sink !== undefined && bitmap !== undefined) {
    for (const [first, pages] of bitmap.runs()) {
      const runEnd = Math.min(end, pagesOffset + (first + pages) * pageBytes);
      yield* skip(reader, pagesOffset + first * pageBytes - reader.offset);
      while (reader.offset < runEnd) {
        yield* need(reader, 1);
        const { offset } = reader;
        const bytes = reader.view(Math.min(reader.available, runEnd - offset));
        sink.page(block, offset - pagesOffset, bytes, offset);
      }
    }
  }
  yield* skip(reader, end - reader.offset);
}

function locate(
  block: RamBlockModel,
  { pageBytes, bitmapOffset, pagesOffset }: MappedRamPlace,
  bitmap: PageBitmap,
  bitmapBytes: number,
  locator: Locator,
): void {
  const path = ['ram', block.name];
  if (locator.covers(bitmapOffset, bitmapOffset + bitmapBytes)) {
    const index = locator.at - bitmapOffset;
    const word = Math.floor(index / 8) * 64;
    locator.pieces(locator.at, path, [
      [1, `Byte ${index} of the bitmap: 8 of the pages ${word} to ${word + 63}`],
    ]);
  }
  locator.pieces(bitmapOffset + bitmapBytes, path, [
    [pagesOffset - bitmapOffset - bitmapBytes, 'Padding between the bitmap and the pages'],
  ]);
  if (!locator.covers(pagesOffset, pagesOffset + block.usedBytes)) return;
  const offset = locator.at - pagesOffset;
  const page = Math.floor(offset / pageBytes);
  const where = `offset 0x${offset.toString(16)} of the block`;
  const what = bitmap.has(page)
    ? `Byte ${offset % pageBytes} of a page, ${where}`
    : `A page that is zero and not in the file, ${where}`;
  locator.pieces(pagesOffset + page * pageBytes, path, [[pageBytes, what]]);
}

/** Which pages a mapped-ram file holds: 64-bit words in the writer's byte order. */
class PageBitmap implements MappedRuns {
  readonly #bytes: Uint8Array;
  readonly #pages: number;
  /** What turns a byte's index within its word round where the writer is big-endian. */
  readonly #flip: number;

  constructor(bytes: Uint8Array, pages: number, byteOrder: 'little' | 'big' | undefined) {
    this.#bytes = bytes;
    this.#pages = pages;
    this.#flip = 0;
    if (byteOrder === 'big' || (byteOrder === undefined && this.#hasStray())) this.#flip = 7;
  }

  has(page: number): boolean {
    return ((this.#bytes[(page >> 3) ^ this.#flip]! >> (page & 7)) & 1) === 1;
  }

  /** Gives each run of pages as its first one and how many. */
  *runs(): Generator<readonly [first: number, pages: number]> {
    for (let page = 0; page < this.#pages; ) {
      const run = this.runLength(page, this.#pages - page);
      if (run > 0) yield [page, run];
      page += Math.abs(run);
    }
  }

  runLength(first: number, max: number): number {
    const isHeld = this.has(first);
    let page = first + 1;
    const whole = isHeld ? 0xff : 0;
    while (page < first + max) {
      if ((page & 7) === 0 && this.#bytes[(page >> 3) ^ this.#flip] === whole) page += 8;
      else if (this.has(page) === isHeld) page++;
      else break;
    }
    const count = Math.min(page - first, max);
    return isHeld ? count : -count;
  }

  /** Bits behind the last page mean that the words are in the other order. */
  #hasStray(): boolean {
    for (let page = this.#pages; page < this.#bytes.length * 8; page++) {
      if (this.has(page)) return true;
    }
    return false;
  }
}

/** Counts the bits that are set. */
export function countOnes(bytes: Uint8Array): number {
  let ones = 0;
  for (const byte of bytes) {
    for (let rest = byte; rest !== 0; rest &= rest - 1) ones++;
  }
  return ones;
}
