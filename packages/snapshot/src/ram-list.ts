import { type ByteReader, counted, need, type Parser } from '@wherry/bytes';
import { readBlockPageSize, readMappedHeader } from '@wherry/stream';
import type { Locator } from './locator.ts';
import { type MappedRamNeeds, readMappedPages } from './mapped-ram.ts';
import { ramListInvalid } from './ram-list-invalid.ts';
import type { RamBlockModel } from './stream-model.ts';

/** What the stream said before its RAM list about the optional words in it. */
export interface RamListHints {
  /** The sum of all blocks' page sizes from POSTCOPY_ADVISE; absent without it. */
  readonly pageSizesSummary?: bigint;
  readonly ignoreShared: boolean;
  readonly mappedRam: boolean;
}

const MAX_RAM_BLOCKS = 4096;

/**
 * Reads the RAM list behind its MEM_SIZE word without knowing the machine that it describes.
 *
 * @param add gets each block before its pages in a mapped-ram file are read
 * @throws StreamError `RAM_LIST_INVALID`
 */
export function* readUnknownRamList(
  reader: ByteReader,
  totalBytes: number,
  hints: RamListHints,
  needs: MappedRamNeeds,
  add: (block: RamBlockModel) => void,
): Parser<void> {
  let count = 0;
  for (let left = totalBytes; left > 0; ) {
    const { offset } = reader;
    if (count++ === MAX_RAM_BLOCKS) {
      throw ramListInvalid(`at most ${MAX_RAM_BLOCKS} blocks`, 'more', offset);
    }
    const name = yield* counted(reader);
    yield* need(reader, 8);
    const nameBytes = reader.offset - offset;
    const usedBytes = reader.size();
    if (name === '' || usedBytes === 0 || usedBytes > left) {
      const found = name === '' ? 'an empty name' : `${usedBytes} bytes`;
      throw ramListInvalid(`a name, and 1 to ${left} bytes of the total`, found, offset, name);
    }
    left -= usedBytes;
    const pageBytes = yield* readPageBytes(reader, name, hints.pageSizesSummary);
    let gpa: number | undefined;
    if (hints.ignoreShared) {
      yield* need(reader, 8);
      gpa = reader.size();
    }
    const mapped = hints.mappedRam ? yield* readMappedHeader(reader, name, usedBytes) : undefined;
    const block: RamBlockModel = {
      name,
      usedBytes,
      ...(pageBytes === undefined ? {} : { pageBytes }),
      ...(gpa === undefined ? {} : { gpa }),
      ...(mapped === undefined ? {} : { mapped }),
      pages: { page: 0, zero: 0, xbzrle: 0, compress: 0, mapped: 0 },
    };
    locateEntry(block, offset, nameBytes, hints.mappedRam, needs.locator);
    add(block);
    if (mapped !== undefined) yield* readMappedPages(reader, block, mapped, needs);
  }
}

function locateEntry(
  { name, usedBytes, pageBytes, gpa, mapped }: RamBlockModel,
  offset: number,
  nameBytes: number,
  hasMappedHeader: boolean,
  locator: Locator,
): void {
  locator.pieces(
    offset,
    ['ram', 'list of RAM blocks', name],
    [
      [1, 'Length of the name of a RAM block', nameBytes - 1],
      [nameBytes - 1, 'Name of a RAM block', name],
      [8, 'Bytes of the RAM block', usedBytes],
      [pageBytes === undefined ? 0 : 8, 'Host page size of the RAM block', pageBytes],
      [gpa === undefined ? 0 : 8, 'Guest-physical address of the RAM block', gpa],
      ...(hasMappedHeader
        ? ([
            [4, 'Version of the mapped-ram header'],
            [8, 'Page size of the mapped-ram header', mapped?.pageBytes],
            [8, 'Absolute file offset of the bitmap', mapped?.bitmapOffset ?? 0],
            [8, 'Absolute file offset of the pages', mapped?.pagesOffset ?? 0],
          ] as const)
        : []),
    ],
  );
}

function* readPageBytes(
  reader: ByteReader,
  block: string,
  summary: bigint | undefined,
): Parser<number | undefined> {
  if (summary === undefined) return undefined;
  const { offset } = reader;
  const pageBytes = yield* readBlockPageSize(reader);
  if (pageBytes === undefined) return undefined;
  const word = BigInt(pageBytes);
  if (word === 0n || (word & (word - 1n)) !== 0n || (word & summary) === 0n) {
    throw ramListInvalid(
      `one of the page sizes in 0x${summary.toString(16)}`,
      `0x${word.toString(16)}`,
      offset,
      block,
    );
  }
  return pageBytes;
}
