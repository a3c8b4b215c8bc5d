import { type ByteReader, counted, need, type Parser } from '@wherry/bytes';
import { StreamError, skip } from '@wherry/stream';
import type { RamBlockModel } from './stream-model.ts';

/** What the stream said before its RAM list about the optional words in it. */
export interface RamListHints {
  readonly targetPageBytes: number;
  /** The sum of all blocks' page sizes from POSTCOPY_ADVISE; absent without it. */
  readonly pageSizesSummary?: bigint;
  readonly ignoreShared: boolean;
  readonly mappedRam: boolean;
}

const MAX_RAM_BLOCKS = 4096;
const MIN_PAGE_BYTES = 1024;

/**
 * Reads the RAM list behind its MEM_SIZE word without knowing the machine that it describes.
 *
 * A reader that has the same machine knows from its own blocks which entries carry a page size. Here
 * only the bytes tell, and they do: what else may follow an entry never looks like a page size. The next
 * entry begins with the length of its name, which is not 0 as the first byte of a page size is; the
 * word behind the last entry has flag bits, which a page size has not.
 *
 * @throws StreamError `RAM_LIST_INVALID`
 */
export function* readUnknownRamList(
  reader: ByteReader,
  totalBytes: number,
  hints: RamListHints,
): Parser<RamBlockModel[]> {
  const blocks: RamBlockModel[] = [];
  let left = totalBytes;
  while (left > 0) {
    const { offset } = reader;
    if (blocks.length === MAX_RAM_BLOCKS) {
      throw invalid(`at most ${MAX_RAM_BLOCKS} blocks`, 'more', offset);
    }
    const name = yield* counted(reader);
    yield* need(reader, 8);
    const usedBytes = reader.size();
    if (name === '' || usedBytes === 0 || usedBytes > left) {
      const found = name === '' ? 'an empty name' : `${usedBytes} bytes`;
      throw invalid(`a name, and 1 to ${left} bytes of the total`, found, offset, name);
    }
    left -= usedBytes;
    const pageBytes = yield* readPageBytes(reader, name, hints.pageSizesSummary);
    let gpa: number | undefined;
    if (hints.ignoreShared) {
      yield* need(reader, 8);
      gpa = reader.size();
    }
    const pages = { page: 0, zero: 0, xbzrle: 0, compress: 0, mapped: 0 };
    blocks.push({
      name,
      usedBytes,
      ...(pageBytes === undefined ? {} : { pageBytes }),
      ...(gpa === undefined ? {} : { gpa }),
      ...(hints.mappedRam ? { mapped: yield* readMapped(reader, name, usedBytes, pages) } : {}),
      pages,
    });
  }
  return blocks;
}

function* readPageBytes(
  reader: ByteReader,
  block: string,
  summary: bigint | undefined,
): Parser<number | undefined> {
  if (summary === undefined) return undefined;
  yield* need(reader, 8);
  if (reader.peekU8() !== 0) return undefined;
  const word = (BigInt(reader.peekU32(0)) << 32n) | BigInt(reader.peekU32(4));
  if (word % BigInt(MIN_PAGE_BYTES) !== 0n) return undefined;
  const { offset } = reader;
  const pageBytes = reader.size();
  if ((word & (word - 1n)) !== 0n || (word & summary) === 0n) {
    throw invalid(
      `one of the page sizes in 0x${summary.toString(16)}`,
      `0x${word.toString(16)}`,
      offset,
      block,
    );
  }
  return pageBytes;
}

function* readMapped(
  reader: ByteReader,
  block: string,
  usedBytes: number,
  pages: { mapped: number },
): Parser<NonNullable<RamBlockModel['mapped']>> {
  yield* need(reader, 28);
  const { offset } = reader;
  const version = reader.u32();
  if (version > 1) throw invalid('a mapped-ram header of version 1', `${version}`, offset, block);
  const [pageBytes, bitmapOffset, pagesOffset] = [reader.size(), reader.size(), reader.size()];
  if (pageBytes < MIN_PAGE_BYTES || !Number.isInteger(Math.log2(pageBytes))) {
    throw invalid('a power of two as page size', `${pageBytes}`, offset + 4, block);
  }
  const bitmapBytes = Math.ceil(usedBytes / pageBytes / 64) * 8;
  if (bitmapOffset < reader.offset || pagesOffset < bitmapOffset + bitmapBytes) {
    throw invalid(
      `a bitmap of ${bitmapBytes} bytes from ${reader.offset} on, then the pages`,
      `a bitmap at ${bitmapOffset}, pages at ${pagesOffset}`,
      offset + 12,
      block,
      'The offsets are those of the file: give inspect the whole file, from its first byte',
    );
  }
  yield* skip(reader, bitmapOffset - reader.offset);
  for (let left = bitmapBytes; left > 0; ) {
    yield* need(reader, 1);
    const piece = reader.view(Math.min(left, reader.available));
    for (const byte of piece) pages.mapped += onesIn(byte);
    left -= piece.length;
  }
  yield* skip(reader, pagesOffset + usedBytes - reader.offset);
  return { pageBytes, bitmapOffset, pagesOffset };
}

function onesIn(byte: number): number {
  let ones = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) ones++;
  return ones;
}

function invalid(
  expected: string,
  found: string,
  offset: number,
  block = '',
  likely = 'The stream is damaged, or the sender has a capability that changes the list',
): StreamError {
  return new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks is not usable', {
    expected,
    found,
    offset,
    path: block === '' ? ['ram'] : ['ram', block],
    likely,
  });
}
