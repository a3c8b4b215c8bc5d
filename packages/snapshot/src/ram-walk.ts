import type { ByteReader, Parser } from '@wherry/bytes';
import { RamFlag, RamRecordReader, StreamError, skip } from '@wherry/stream';
import { type RamListHints, readUnknownRamList } from './ram-list.ts';
import type { RamBlockModel, RamModel } from './stream-model.ts';

/** Walks the bodies of a stream's `ram` sections: counts pages, passes over their data. */
export class RamWalk {
  readonly #hints: RamListHints;
  readonly #records: RamRecordReader;
  readonly #blocks = new Map<string, RamBlockModel>();
  #block: RamBlockModel | undefined;
  #model: RamModel | undefined;

  constructor(hints: RamListHints) {
    this.#hints = hints;
    this.#records = new RamRecordReader(hints.targetPageBytes);
  }

  /** What was seen; undefined before the list. */
  get model(): RamModel | undefined {
    return this.#model;
  }

  /**
   * Reads one section's records up to and with its EOS.
   *
   * @throws StreamError `RAM_RECORD_INVALID`, `RAM_BLOCK_UNKNOWN`, `RAM_LIST_INVALID`
   */
  *readBody(reader: ByteReader): Parser<void> {
    for (;;) {
      this.#passContinued(reader);
      const record = yield* this.#records.read(reader);
      switch (record.kind) {
        case 'eos':
          return;
        case 'hook':
          break;
        case 'multifd-flush':
          if (this.#model !== undefined) this.#model.multifdFlushes++;
          break;
        case 'mem-size':
          yield* this.#readList(reader, record.totalBytes, record.offset);
          break;
        default:
          this.#block = this.#checkPage(record.block, record.pageOffset, record.offset);
          this.#block.pages[record.kind]++;
          yield* skip(reader, record.dataBytes);
      }
    }
  }

  *#readList(reader: ByteReader, totalBytes: number, offset: number): Parser<void> {
    if (this.#model !== undefined) {
      throw new StreamError('RAM_LIST_INVALID', 'The list of RAM blocks comes twice', {
        offset,
        path: ['ram'],
        likely: 'The stream is damaged before this point',
      });
    }
    const blocks = yield* readUnknownRamList(reader, totalBytes, this.#hints);
    for (const block of blocks) {
      if (this.#blocks.has(block.name)) {
        throw new StreamError('RAM_LIST_INVALID', 'A RAM block is listed twice', {
          found: block.name,
          offset,
          path: ['ram', block.name],
        });
      }
      this.#blocks.set(block.name, block);
    }
    const { targetPageBytes } = this.#hints;
    this.#model = { totalBytes, targetPageBytes, blocks, multifdFlushes: 0 };
  }

  /**
   * Passes over records that are whole at hand and continue the block before: nearly all of a stream,
   * at a fraction of the general reader's cost.
   */
  #passContinued(reader: ByteReader): void {
    const block = this.#block;
    if (block === undefined) return;
    const pageBytes = this.#hints.targetPageBytes;
    const { pages, usedBytes } = block;
    while (reader.available >= 9) {
      const low = reader.peekU32(4);
      const flags = low & (pageBytes - 1);
      const pageOffset = reader.peekU32(0) * 2 ** 32 + (low - flags);
      if (pageOffset >= usedBytes) return;
      if (flags === (RamFlag.page | RamFlag.continue)) {
        if (reader.available < 8 + pageBytes) return;
        pages.page++;
        reader.skip(8 + pageBytes);
      } else if (flags === (RamFlag.zero | RamFlag.continue)) {
        pages.zero++;
        reader.skip(9);
      } else {
        return;
      }
    }
  }

  #checkPage(name: string, pageOffset: number, offset: number): RamBlockModel {
    const block = this.#blocks.get(name);
    if (block === undefined) {
      throw new StreamError('RAM_BLOCK_UNKNOWN', 'A page belongs to no listed RAM block', {
        expected: [...this.#blocks.keys()].join(', ') || 'a list of blocks first',
        found: JSON.stringify(name),
        offset,
        path: ['ram'],
        likely: 'The stream is damaged before this point',
      });
    }
    if (pageOffset >= block.usedBytes) {
      throw new StreamError('RAM_RECORD_INVALID', 'A page lies behind the end of its RAM block', {
        expected: `less than 0x${block.usedBytes.toString(16)}`,
        found: `0x${pageOffset.toString(16)}`,
        offset,
        path: ['ram', name],
        likely: 'The stream is damaged before this point',
      });
    }
    return block;
  }
}
