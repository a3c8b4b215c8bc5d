import { type ByteReader, type ByteWriter, counted, need, type Parser, skip } from '@wherry/bytes';
import { type MappedRamPlace, readMappedHeader } from './mapped-ram.ts';
import { StreamError } from './stream-error.ts';

/** Flag bits of the word that begins each record of a `ram` section. @see RAM_SAVE_FLAG_* in QEMU's migration/ram.h */
export const RamFlag = {
  zero: 0x02,
  memSize: 0x04,
  page: 0x08,
  eos: 0x10,
  continue: 0x20,
  xbzrle: 0x40,
  hook: 0x80,
  compressPage: 0x100,
  multifdFlush: 0x200,
} as const;

/** Name and version of the section that carries RAM. */
export const RAM_SECTION = { idstr: 'ram', instanceId: 0, version: 4 } as const;

/** A RAM block as the list at the beginning of the `ram` section names it. */
export interface RamListEntry {
  readonly name: string;
  readonly usedBytes: number;
  /** Host page size, carried after ADVISE where it differs from the target's. */
  readonly pageBytes?: number;
  /** Guest-physical address, carried with x-ignore-shared. */
  readonly gpa?: number;
  /** Where a mapped-ram file keeps the block; absent also for a block that stays out of it. */
  readonly mapped?: MappedRamPlace;
}

/** Which optional words the RAM list carries: what came before it tells. */
export interface RamListShape {
  /** ADVISE came: entries of blocks with other pages than the target's carry their size. */
  readonly advised?: boolean;
  /** Goes without `advised`: QEMU refuses the two together. */
  readonly ignoreShared?: boolean;
  readonly mappedRam?: boolean;
}

const MAX_RAM_BLOCKS = 4096;

/** One record of a `ram` section, its page data excluded: the caller reads or skips `dataBytes`. */
export type RamRecord =
  | { readonly kind: 'eos' | 'multifd-flush'; readonly offset: number }
  | { readonly kind: 'hook'; readonly offset: number }
  | { readonly kind: 'mem-size'; readonly offset: number; readonly totalBytes: number }
  | {
      readonly kind: 'page' | 'zero' | 'xbzrle' | 'compress';
      readonly offset: number;
      readonly block: string;
      /** Offset of the page in its block. */
      readonly pageOffset: number;
      /** Bytes of data that follow. */
      readonly dataBytes: number;
    };

/** The smallest target page there is: no flag lies above it. */
const MIN_TARGET_PAGE_BYTES = 1024;

/** Reads the records of `ram` sections; remembers the block that CONTINUE refers to across sections. */
export class RamRecordReader {
  /** Bytes of a target page; while it is not known, 4096 counts. */
  targetPageBytes: number | undefined;
  #block: string | undefined;

  constructor(targetPageBytes?: number) {
    this.targetPageBytes = targetPageBytes;
  }

  /**
   * Reads the next record up to its data.
   *
   * @throws StreamError `RAM_RECORD_INVALID`
   * @see ram_load_precopy in QEMU's migration/ram.c
   */
  *read(reader: ByteReader): Parser<RamRecord> {
    yield* need(reader, 8);
    const { offset } = reader;
    const word = reader.size();
    const flags = word % (this.targetPageBytes ?? MIN_TARGET_PAGE_BYTES);
    const pageOffset = word - flags;
    const kind = flags & ~RamFlag.continue;
    const pageBytes = this.targetPageBytes ?? 4096;
    switch (kind) {
      case RamFlag.eos:
        return { kind: 'eos', offset };
      case RamFlag.multifdFlush:
        return { kind: 'multifd-flush', offset };
      case RamFlag.hook:
        return { kind: 'hook', offset };
      case RamFlag.memSize:
        return { kind: 'mem-size', offset, totalBytes: pageOffset };
      case RamFlag.page: {
        const block = yield* this.#readBlock(reader, flags, offset);
        return { kind: 'page', offset, block, pageOffset, dataBytes: pageBytes };
      }
      case RamFlag.zero: {
        const block = yield* this.#readBlock(reader, flags, offset);
        return { kind: 'zero', offset, block, pageOffset, dataBytes: 1 };
      }
      case RamFlag.xbzrle: {
        const block = yield* this.#readBlock(reader, flags, offset);
        yield* need(reader, 3);
        const encoding = reader.u8();
        const dataBytes = reader.u16();
        if (encoding !== 1 || dataBytes > pageBytes) {
          throw invalid(
            `encoding 1 of at most ${pageBytes} bytes`,
            `encoding ${encoding} of ${dataBytes} bytes`,
            offset,
            block,
          );
        }
        return { kind: 'xbzrle', offset, block, pageOffset, dataBytes };
      }
      case RamFlag.compressPage: {
        const block = yield* this.#readBlock(reader, flags, offset);
        yield* need(reader, 4);
        const dataBytes = reader.u32();
        if (dataBytes > 2 * pageBytes) {
          throw invalid('one compressed page', `${dataBytes} bytes`, offset, block);
        }
        return { kind: 'compress', offset, block, pageOffset, dataBytes };
      }
      default:
        throw invalid('one kind of record', `flags 0x${flags.toString(16)}`, offset, this.#block);
    }
  }

  *#readBlock(reader: ByteReader, flags: number, offset: number): Parser<string> {
    if ((flags & RamFlag.continue) === 0) {
      this.#block = yield* counted(reader);
    } else if (this.#block === undefined) {
      throw invalid('a block name', 'a record that continues no other', offset, undefined);
    }
    return this.#block;
  }
}

function invalid(
  expected: string,
  found: string,
  offset: number,
  block: string | undefined,
): StreamError {
  return new StreamError('RAM_RECORD_INVALID', 'A RAM record is not usable', {
    expected,
    found,
    offset,
    path: block === undefined ? ['ram'] : ['ram', block],
    likely:
      'A capability is on at the sender and off here (compress, multifd, mapped-ram), or the stream is damaged before this point',
  });
}

/** Writes the word of a record: an address or total, and flags. */
export function writeRamWord(writer: ByteWriter, address: number, flags: number): void {
  writer.u64(BigInt(address) | BigInt(flags));
}

/**
 * Reads the RAM list behind its MEM_SIZE word, until the lengths add up to `totalBytes`.
 *
 * @throws StreamError `RAM_LIST_INVALID`
 */
export function* readRamList(
  reader: ByteReader,
  totalBytes: number,
  shape: RamListShape,
): Parser<RamListEntry[]> {
  const entries: RamListEntry[] = [];
  let left = totalBytes;
  while (left > 0) {
    const { offset } = reader;
    if (entries.length === MAX_RAM_BLOCKS) {
      throw listInvalid(`at most ${MAX_RAM_BLOCKS} blocks`, 'more', offset);
    }
    const name = yield* counted(reader);
    yield* need(reader, 8);
    const usedBytes = reader.size();
    if (usedBytes > left || usedBytes === 0) {
      throw listInvalid(
        `1 to ${left} bytes (what is left of the total)`,
        `${usedBytes}`,
        offset,
        name,
      );
    }
    left -= usedBytes;
    const entry: { -readonly [K in keyof RamListEntry]: RamListEntry[K] } = { name, usedBytes };
    const pageBytes = shape.advised === true ? yield* readBlockPageSize(reader) : undefined;
    if (pageBytes !== undefined) entry.pageBytes = pageBytes;
    if (shape.ignoreShared === true) {
      yield* need(reader, 8);
      entry.gpa = reader.size();
    }
    if (shape.mappedRam === true) {
      const mapped = yield* readMappedHeader(reader, name, usedBytes);
      if (mapped !== undefined) {
        entry.mapped = mapped;
        yield* skip(reader, mapped.pagesOffset + usedBytes - reader.offset);
      }
    }
    entries.push(entry);
  }
  return entries;
}

/**
 * Reads the page size behind a block's length, where there is one.
 *
 * QEMU knows from its own block of that name whether to read it, and loses its way where the two sides
 * differ. The bytes tell too: the next entry begins with the length of its name, which is not 0 as a page
 * size's first byte is, and the word behind the last entry has flag bits, which a page size has not.
 *
 * @see parse_ramblock in QEMU's migration/ram.c
 */
export function* readBlockPageSize(reader: ByteReader): Parser<number | undefined> {
  yield* need(reader, 8);
  const isPageSize = reader.peekU8() === 0 && reader.peekU32(4) % MIN_TARGET_PAGE_BYTES === 0;
  return isPageSize ? reader.size() : undefined;
}

/**
 * Writes the RAM list with its MEM_SIZE word; each entry carries the optional words that it has.
 *
 * @param placeMapped writes a mapped-ram file: is called behind each block's other words, decides where
 *   the block goes, and has what follows go behind its pages
 */
export function writeRamList<Entry extends Omit<RamListEntry, 'mapped'>>(
  writer: ByteWriter,
  entries: readonly Entry[],
  placeMapped?: (entry: Entry) => void,
): void {
  const total = entries.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  writeRamWord(writer, total, RamFlag.memSize);
  for (const entry of entries) {
    const { name, usedBytes, pageBytes, gpa } = entry;
    writer.counted(name).u64(BigInt(usedBytes));
    if (pageBytes !== undefined) writer.u64(BigInt(pageBytes));
    if (gpa !== undefined) writer.u64(BigInt(gpa));
    placeMapped?.(entry);
  }
}

function listInvalid(expected: string, found: string, offset: number, block?: string): StreamError {
  return new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks is not usable', {
    expected,
    found,
    offset,
    path: block === undefined ? ['ram'] : ['ram', block],
    likely:
      'postcopy-ram, x-ignore-shared or mapped-ram is on at one side only: the list has other words then',
  });
}
