import { type ByteReader, collect, need, type Parser, skip } from '@wherry/bytes';
import { applyXbzrle, RamFlag, type RamRecord, RamRecordReader, StreamError } from '@wherry/stream';
import type { Locator } from './locator.ts';
import type { MappedRamNeeds } from './mapped-ram.ts';
import { deducePageBytes } from './page-size.ts';
import { type RamListHints, readUnknownRamList } from './ram-list.ts';
import type { RamSink } from './ram-sink.ts';
import type { RamBlockModel, RamModel } from './stream-model.ts';

/** What the stream said before its RAM, and who wants to know what is in it. */
export interface RamWalkOptions extends RamListHints, MappedRamNeeds {
  /** Where the stream states it. */
  readonly targetPageBytes?: number;
  /** A recovery stream has no list: its pages alone tell of the blocks. */
  readonly isRecovery?: boolean;
  /** Hears of marks for multifd channels; when it says so the walk yields there. */
  readonly onMark?: ((mark: 'eos' | 'flush') => boolean) | undefined;
}

type PageRecord = Extract<RamRecord, { readonly block: string }>;

/** Walks the bodies of a stream's `ram` sections: counts pages, gives their data to a sink or passes over it. */
export class RamWalk {
  readonly #options: RamWalkOptions;
  readonly #sink: RamSink | undefined;
  readonly #locator: Locator;
  readonly #records: RamRecordReader;
  readonly #blocks = new Map<string, RamBlockModel>();
  #block: RamBlockModel | undefined;
  /** The page whose record is being read. */
  #page: PageRecord | undefined;
  #model: RamModel | undefined;

  constructor(options: RamWalkOptions) {
    this.#options = options;
    this.#sink = options.sink;
    this.#locator = options.locator;
    this.#records = new RamRecordReader(options.targetPageBytes);
    if (options.isRecovery === true) this.#model = this.#newModel(0);
  }

  /** What was seen; undefined before the list. */
  get model(): RamModel | undefined {
    return this.#model;
  }

  /** The block and page that are being read, for messages. */
  get place(): readonly string[] {
    return this.#page === undefined ? [] : [this.#page.block, pageName(this.#page)];
  }

  /** Whether the stream stated its page size, or a page told it. */
  get isPageSizeKnown(): boolean {
    return this.#records.targetPageBytes !== undefined;
  }

  /**
   * Reads one section's records up to and with its EOS.
   *
   * @throws StreamError `RAM_RECORD_INVALID`, `RAM_BLOCK_UNKNOWN`, `RAM_LIST_INVALID`, `XBZRLE_INVALID`
   */
  *readBody(reader: ByteReader): Parser<void> {
    for (;;) {
      this.#passContinued(reader);
      const record = yield* this.#records.read(reader);
      switch (record.kind) {
        case 'eos':
          this.#locateWord(record, 'EOS: the end of this section’s records');
          yield* this.#mark(reader, 'eos');
          return;
        case 'hook':
          this.#locateWord(record, 'A hook of RDMA');
          break;
        case 'multifd-flush':
          this.#locateWord(record, 'A multifd flush: the channels are waited for here');
          if (this.#model !== undefined) this.#model.multifdFlushes++;
          yield* this.#mark(reader, 'flush');
          break;
        case 'mem-size':
          this.#locateWord(record, 'The total of all RAM blocks, a list of them follows');
          yield* this.#readList(reader, record.totalBytes, record.offset);
          break;
        default:
          this.#page = record;
          yield* this.#readPage(reader, record);
          this.#page = undefined;
      }
    }
  }

  *#mark(reader: ByteReader, mark: 'eos' | 'flush'): Parser<void> {
    if (this.#options.onMark?.(mark) === true) yield reader.available;
  }

  *#readList(reader: ByteReader, totalBytes: number, offset: number): Parser<void> {
    if (this.#model !== undefined) {
      throw new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks comes twice', {
        offset,
        path: ['ram'],
        likely: 'The stream is damaged before this point',
      });
    }
    this.#model = this.#newModel(totalBytes);
    yield* readUnknownRamList(reader, totalBytes, this.#options, this.#options, (block) => {
      if (this.#blocks.has(block.name)) {
        throw new StreamError('RAM_LIST_INVALID', 'A RAM block is listed twice', {
          found: block.name,
          offset,
          path: ['ram', block.name],
          likely: 'The stream is damaged near this point',
        });
      }
      if (block.mapped !== undefined) this.#setPageBytes(block.mapped.pageBytes);
      this.#addBlock(block);
    });
  }

  #newModel(totalBytes: number): RamModel {
    const { targetPageBytes = 4096 } = this.#records;
    return { totalBytes, targetPageBytes, blocks: [], multifdFlushes: 0 };
  }

  #setPageBytes(bytes: number): void {
    this.#records.targetPageBytes = bytes;
    if (this.#model !== undefined) this.#model.targetPageBytes = bytes;
  }

  #addBlock(block: RamBlockModel): RamBlockModel {
    this.#blocks.set(block.name, block);
    this.#model?.blocks.push(block);
    this.#sink?.begin(block);
    return block;
  }

  *#readPage(reader: ByteReader, record: PageRecord): Parser<void> {
    const { kind, pageOffset, offset } = record;
    const block = this.#blockOf(record.block, offset);
    this.#block = block;
    if (kind === 'page' && !this.isPageSizeKnown) {
      if (pageOffset < block.usedBytes) {
        this.#setPageBytes(yield* deducePageBytes(reader, this.#blocks, block));
      }
    }
    const pageBytes = this.#records.targetPageBytes ?? 4096;
    if (this.#options.isRecovery === true) {
      block.usedBytes = Math.max(block.usedBytes, pageOffset + pageBytes);
    }
    checkPage(block, record, this.isPageSizeKnown ? pageBytes : 1);
    const dataBytes = kind === 'page' ? pageBytes : record.dataBytes;
    const at = reader.offset;
    const sink = this.#sink;
    if (kind === 'zero') {
      yield* need(reader, 1);
      const fill = reader.u8();
      if (fill !== 0) throw badFill(block, fill, at);
      sink?.zero(block, pageOffset, Math.min(pageBytes, block.usedBytes - pageOffset), at);
    } else if (kind === 'xbzrle') {
      const encoded = yield* bytesOf(reader, dataBytes);
      const path = ['ram', block.name, pageName(record)];
      applyXbzrle(undefined, encoded, pageBytes, { offset: at, path });
      sink?.xbzrle(block, pageOffset, pageBytes, encoded, at);
    } else if (sink === undefined) {
      yield* skip(reader, dataBytes);
    } else {
      const bytes = yield* bytesOf(reader, dataBytes);
      if (kind === 'page') sink.page(block, pageOffset, bytes, at);
      else sink.compressed(block, pageOffset, pageBytes, bytes, at);
    }
    block.pages[kind]++;
    if (this.#locator.covers(offset, reader.offset)) this.#locatePage(record, at, dataBytes);
  }

  #locateWord({ offset }: RamRecord, what: string): void {
    this.#locator.pieces(offset, ['ram'], [[8, what]]);
  }

  #locatePage(record: PageRecord, at: number, dataBytes: number): void {
    const { kind, block, pageOffset, offset } = record;
    const byte = this.#locator.at - at;
    const data = {
      page: `Byte ${byte} of a page: offset 0x${(pageOffset + byte).toString(16)} of the block`,
      zero: 'Fill byte of a page that is zero',
      xbzrle: `Byte ${byte} of an XBZRLE encoding: the change of a page`,
      compress: `Byte ${byte} of a page packed with zlib`,
    }[kind];
    this.#locator.pieces(
      offset,
      ['ram', block, pageName(record)],
      [
        [8, `The word that begins a ${kind} record: page address and flags`, pageOffset],
        [at - offset - 8, `Name of the RAM block, or lengths, of a ${kind} record`],
        [dataBytes, data],
      ],
    );
  }

  /**
   * Passes over records that are whole at hand and continue the block before: nearly all of a stream,
   * at a fraction of the general reader's cost.
   */
  #passContinued(reader: ByteReader): void {
    const block = this.#block;
    const pageBytes = this.#records.targetPageBytes;
    if (block === undefined || pageBytes === undefined) return;
    if (this.#locator.covers(reader.offset, reader.offset + reader.available)) return;
    const sink = this.#sink;
    const { pages, usedBytes } = block;
    while (reader.available >= 9) {
      const low = reader.peekU32(4);
      const flags = low & (pageBytes - 1);
      const pageOffset = reader.peekU32(0) * 2 ** 32 + (low - flags);
      if (pageOffset + pageBytes > usedBytes) return;
      if (flags === (RamFlag.page | RamFlag.continue)) {
        if (reader.available < 8 + pageBytes) return;
        pages.page++;
        if (sink === undefined) {
          reader.skip(8 + pageBytes);
        } else {
          reader.skip(8);
          sink.page(block, pageOffset, reader.view(pageBytes), reader.offset - pageBytes);
        }
      } else if (flags === (RamFlag.zero | RamFlag.continue) && reader.peekU8(8) === 0) {
        pages.zero++;
        reader.skip(9);
        sink?.zero(block, pageOffset, pageBytes, reader.offset - 1);
      } else {
        return;
      }
    }
  }

  #blockOf(name: string, offset: number): RamBlockModel {
    const block = this.#blocks.get(name);
    if (block !== undefined) return block;
    if (this.#options.isRecovery === true) {
      const pages = { page: 0, zero: 0, xbzrle: 0, compress: 0, mapped: 0 };
      return this.#addBlock({ name, usedBytes: 0, pages });
    }
    throw new StreamError('RAM_BLOCK_UNKNOWN', 'A page belongs to no listed RAM block', {
      expected: [...this.#blocks.keys()].join(', ') || 'a list of blocks first',
      found: JSON.stringify(name),
      offset,
      path: ['ram'],
      likely: 'The stream is damaged before this point',
    });
  }
}

function pageName({ pageOffset }: PageRecord): string {
  return `page 0x${pageOffset.toString(16)}`;
}

/** Gives a record's data: a view where it is whole at hand, else a copy. */
function* bytesOf(reader: ByteReader, count: number): Parser<Uint8Array> {
  return reader.available >= count ? reader.view(count) : yield* collect(reader, count);
}

/** @param pageBytes 1 where it is not known */
function checkPage(block: RamBlockModel, record: PageRecord, pageBytes: number): void {
  const { pageOffset, offset } = record;
  const isBehind = pageOffset + pageBytes > block.usedBytes;
  if (!isBehind && pageOffset % pageBytes === 0) return;
  throw new StreamError(
    'RAM_RECORD_INVALID',
    isBehind ? 'A page lies behind the end of its RAM block' : 'A page has a crooked address',
    {
      expected: isBehind
        ? `an end at 0x${block.usedBytes.toString(16)} or before`
        : `a multiple of ${pageBytes}`,
      found: `0x${pageOffset.toString(16)}`,
      offset,
      path: ['ram', block.name],
      likely: 'The stream is damaged before this point',
    },
  );
}

function badFill(block: RamBlockModel, fill: number, offset: number): StreamError {
  return new StreamError('RAM_RECORD_INVALID', 'A zero page has another fill byte', {
    expected: '0',
    found: `${fill}`,
    offset,
    path: ['ram', block.name],
    likely: 'The stream is damaged before this point',
  });
}
