import { type ByteReader, type ByteWriter, need, type Parser } from '@wherry/bytes';
import { StreamError } from './stream-error.ts';

/** Where a mapped-ram file keeps a RAM block: absolute offsets in the file. */
export interface MappedRamPlace {
  /** Bytes of a target page: what a bit of the bitmap stands for. */
  readonly pageBytes: number;
  /** The bitmap: one bit a page that is in the file, in 64-bit words of the writer's byte order. */
  readonly bitmapOffset: number;
  /** The first page; each page lies at its own offset from here. */
  readonly pagesOffset: number;
}

const VERSION = 1;
const HEADER_BYTES = 28;
/** Direct I/O needs aligned offsets, whatever system the file comes to. */
const PAGES_ALIGNMENT = 2 ** 20;
const MIN_PAGE_BYTES = 1024;

/** Counts the bytes of a block's bitmap in a mapped-ram file: whole 64-bit words. */
export function mappedBitmapBytes(usedBytes: number, pageBytes: number): number {
  return Math.ceil(usedBytes / pageBytes / 64) * 8;
}

/**
 * Decides where a block goes whose header begins at `headerOffset`; its pages end at
 * `pagesOffset + usedBytes`, where the stream goes on.
 *
 * @see mapped_ram_setup_ramblock in QEMU's migration/ram.c
 */
export function placeMappedBlock(
  headerOffset: number,
  usedBytes: number,
  pageBytes: number,
): MappedRamPlace {
  const bitmapOffset = headerOffset + HEADER_BYTES;
  const bitmapEnd = bitmapOffset + mappedBitmapBytes(usedBytes, pageBytes);
  const pagesOffset = Math.ceil(bitmapEnd / PAGES_ALIGNMENT) * PAGES_ALIGNMENT;
  return { pageBytes, bitmapOffset, pagesOffset };
}

/** Writes a block's header; a block that stays out of the file (x-ignore-shared) has offsets of 0. */
export function writeMappedHeader(writer: ByteWriter, place: MappedRamPlace): void {
  const { pageBytes, bitmapOffset, pagesOffset } = place;
  writer.u32(VERSION).u64(BigInt(pageBytes)).u64(BigInt(bitmapOffset)).u64(BigInt(pagesOffset));
}

/**
 * Reads a block's header in the RAM list of a mapped-ram file. `reader` counts its offsets from the
 * file's first byte.
 *
 * @returns undefined for a block that stays out of the file
 * @throws StreamError `RAM_LIST_INVALID`
 * @see mapped_ram_read_header in QEMU's migration/ram.c
 */
export function* readMappedHeader(
  reader: ByteReader,
  block: string,
  usedBytes: number,
): Parser<MappedRamPlace | undefined> {
  yield* need(reader, HEADER_BYTES);
  const { offset } = reader;
  const fail = (expected: string, found: string, at: number, likely: string): StreamError =>
    new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks is not usable', {
      expected,
      found,
      offset: at,
      path: ['ram', block],
      likely,
    });
  const version = reader.u32();
  if (version > VERSION) {
    throw fail(
      `a mapped-ram header of version ${VERSION}`,
      `${version}`,
      offset,
      'A newer release wrote the file, or it is damaged before this point',
    );
  }
  const [pageBytes, bitmapOffset, pagesOffset] = [reader.size(), reader.size(), reader.size()];
  if (pageBytes < MIN_PAGE_BYTES || !Number.isInteger(Math.log2(pageBytes))) {
    throw fail(
      'a power of two as page size',
      `${pageBytes}`,
      offset + 4,
      'The file is damaged before this point',
    );
  }
  if (bitmapOffset === 0 && pagesOffset === 0) return undefined;
  const bitmapBytes = mappedBitmapBytes(usedBytes, pageBytes);
  const end = pagesOffset + usedBytes;
  if (
    bitmapOffset < reader.offset ||
    pagesOffset < bitmapOffset + bitmapBytes ||
    !Number.isSafeInteger(end)
  ) {
    throw fail(
      `a bitmap of ${bitmapBytes} bytes from ${reader.offset} on, then the pages`,
      `a bitmap at ${bitmapOffset}, pages at ${pagesOffset}`,
      offset + 12,
      'The offsets are those of the file: it has to be read whole, from its first byte',
    );
  }
  return { pageBytes, bitmapOffset, pagesOffset };
}
