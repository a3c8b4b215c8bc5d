import type { ByteReader, Parser } from '@wherry/bytes';
import {
  type GuestRam,
  type PageEngineError,
  type RamBlock,
  type RamReceiver,
  TARGET_PAGE_BYTES,
} from '@wherry/page-engine';
import {
  type MappedRamPlace,
  type RamListEntry,
  type RamRecord,
  RamRecordReader,
  readRamList,
} from '@wherry/stream';
import type { Capabilities } from './capabilities.ts';
import { type GuestPort, gpaOf, ignoredBlocks } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';

/** A block of which the pages lie elsewhere in the file. */
interface MappedBlock {
  readonly block: RamBlock;
  readonly place: MappedRamPlace;
}

/** What {@link RamLoad} may be told. */
export interface RamLoadOptions {
  /** Called after each step, in which pages may have become present. */
  readonly onDecoded?: () => void;
  /** What is read, for messages; default `ram`. */
  readonly place?: string;
}

/** Loads the RAM records of a channel: page records in WebAssembly, the others here. */
export class RamLoad {
  readonly #ram: GuestRam;
  readonly #receiver: RamReceiver;
  readonly #capabilities: Capabilities;
  readonly #ignored: ReadonlySet<RamBlock>;
  readonly #records = new RamRecordReader(TARGET_PAGE_BYTES);
  #mapped: MappedBlock[] = [];

  readonly #place: string;
  readonly #onDecoded: () => void;

  constructor(
    guest: Pick<GuestPort, 'ram' | 'shared'>,
    receiver: RamReceiver,
    capabilities: Capabilities,
    options: RamLoadOptions = {},
  ) {
    this.#ram = guest.ram;
    this.#receiver = receiver;
    this.#capabilities = capabilities;
    this.#ignored = ignoredBlocks(guest, capabilities);
    this.#onDecoded = options.onDecoded ?? (() => {});
    this.#place = options.place ?? 'ram';
  }

  /** Gives each block once of which the pages lie elsewhere in the file. */
  takeMapped(): MappedBlock[] {
    const mapped = this.#mapped;
    this.#mapped = [];
    return mapped;
  }

  /**
   * Loads one section's body, to its end mark, or to where the channels of multifd are to be waited for
   * before the next call. `reader` keeps its bytes in the receiver's input buffer.
   *
   * @param withPageSizes whether the list of blocks carries page sizes: ADVISE was received
   * @returns what it stopped at
   * @throws MigrationError `RAM_MISMATCH`, `RAM_RECORD_INVALID`; StreamError
   * @see ram_load in QEMU's migration/ram.c
   */
  *loadBody(reader: ByteReader, withPageSizes: boolean): Parser<'eos' | 'multifd-flush'> {
    const isMapped = this.#capabilities.has('mapped-ram');
    for (;;) {
      if (!isMapped && !(yield* this.#loadPages(reader))) continue;
      const record = yield* this.#records.read(reader);
      if (record.kind === 'eos' || record.kind === 'multifd-flush') return record.kind;
      if (record.kind === 'mem-size') {
        const { offset } = record;
        const shape = {
          advised: withPageSizes,
          ignoreShared: this.#capabilities.has('x-ignore-shared'),
          mappedRam: isMapped,
        };
        for (const entry of yield* readRamList(reader, record.totalBytes, shape)) {
          this.#checkBlock(entry, withPageSizes, offset);
        }
      } else if ('block' in record) {
        throw this.#unsupported(
          record,
          isMapped
            ? 'no page in the stream: mapped-ram keeps them elsewhere in the file'
            : 'pages as they are, zero pages, or XBZRLE before postcopy',
          isMapped
            ? 'The file is damaged before this point'
            : record.kind === 'xbzrle'
              ? 'The source goes on with XBZRLE in postcopy, where no QEMU does'
              : 'Turn compress off at the source',
        );
      }
    }
  }

  /**
   * Loads what a channel for requested pages brings, to its end mark.
   *
   * @throws MigrationError `RAM_RECORD_INVALID`, `CONNECTION_LOST` where it ends without a mark; StreamError
   * @see ram_load_postcopy in QEMU's migration/ram.c
   */
  *loadRequested(reader: ByteReader): Parser<void> {
    while (!(yield* this.#loadPages(reader)));
    const record = yield* this.#records.read(reader);
    if (record.kind !== 'eos') {
      const likely = 'The source breaks the protocol: no QEMU sends this in postcopy';
      throw this.#unsupported(record, 'pages as they are, or zero pages', likely);
    }
  }

  /** Places page records as far as there are some; returns whether another kind of record comes next. */
  *#loadPages(reader: ByteReader): Parser<boolean> {
    const result = this.#receiver.decode(reader.start, reader.end);
    reader.skip(result.consumed);
    this.#onDecoded();
    if (result.error !== undefined) throw this.#recordError(reader.offset, result.error);
    if (result.status !== 'need-more') return true;
    const needed = Math.max(result.bytesNeeded, reader.available + 1);
    if (reader.ended) throw this.#truncated(reader);
    const { bytes } = this.#receiver.input;
    if (reader.storage !== bytes) reader.moveTo(bytes); // the pages have come to another bank
    yield needed;
    return false;
  }

  #unsupported(record: RamRecord, expected: string, likely: string): MigrationError {
    return new MigrationError('RAM_RECORD_INVALID', 'A kind of RAM record is not supported here', {
      expected,
      found: record.kind,
      offset: record.offset,
      path: [this.#place, ...('block' in record ? [record.block] : [])],
      likely,
    });
  }

  #checkBlock(entry: RamListEntry, withPageSizes: boolean, offset: number): void {
    const block = this.#ram.block(entry.name);
    const fail = (what: string, expected: string, found: string): MigrationError =>
      new MigrationError('RAM_MISMATCH', what, {
        expected,
        found,
        offset,
        path: ['ram', entry.name],
        likely: 'Give both sides the same memory options',
      });
    if (block === undefined) {
      throw fail(
        `Unknown ramblock "${entry.name}", cannot accept migration`,
        this.#ram.blocks.map(({ name }) => name).join(', '),
        entry.name,
      );
    }
    const hex = (value: number): string => `0x${value.toString(16)}`;
    if (entry.usedBytes !== block.lengthBytes) {
      throw fail(
        `Size mismatch: ${entry.name}: ${hex(entry.usedBytes)} != ${hex(block.lengthBytes)}: Invalid argument`,
        `${block.lengthBytes} bytes`,
        `${entry.usedBytes} bytes`,
      );
    }
    const { pageBytes = TARGET_PAGE_BYTES } = entry;
    if (withPageSizes && pageBytes !== block.hostPageBytes) {
      throw fail(
        `Mismatched RAM page size ${entry.name} (local) ${block.hostPageBytes} != ${pageBytes}`,
        `pages of ${block.hostPageBytes} bytes`,
        `${pageBytes} bytes`,
      );
    }
    const gpa = gpaOf(this.#ram, block);
    const isIgnored = this.#ignored.has(block);
    if (isIgnored && entry.gpa !== gpa) {
      throw fail(
        `Mismatched GPAs for block ${entry.name} ${entry.gpa}!= ${gpa}`,
        `address ${gpa}`,
        `${entry.gpa}`,
      );
    }
    const { mapped } = entry;
    if (mapped === undefined) {
      if (!this.#capabilities.has('mapped-ram') || isIgnored) return;
      throw fail(
        'A block is not in the file',
        'its pages',
        'none: it was shared where it was saved',
      );
    }
    if (mapped.pageBytes !== TARGET_PAGE_BYTES) {
      throw fail(
        'The file counts in other target pages than this guest',
        `${TARGET_PAGE_BYTES} bytes`,
        `${mapped.pageBytes} bytes`,
      );
    }
    if (mapped.pagesOffset % TARGET_PAGE_BYTES !== 0) {
      throw fail(
        `Error reading ramblock ${entry.name} pages, region has bad alignment`,
        `a multiple of ${TARGET_PAGE_BYTES}`,
        `${mapped.pagesOffset}`,
      );
    }
    this.#mapped.push({ block, place: mapped });
  }

  /**
   * Sees that every block has come that does not lie in a file that both sides have.
   *
   * @throws MigrationError `PAGES_MISSING` where a source took a block for shared that is not shared here
   */
  checkAllCame(): void {
    if (!this.#capabilities.has('x-ignore-shared') || this.#capabilities.has('mapped-ram')) return;
    for (const block of this.#ram.blocks) {
      if (this.#ignored.has(block) || block.receivedCount() > 0) continue;
      throw new MigrationError('PAGES_MISSING', 'No page of a RAM block came', {
        expected: `${block.pageCount} pages`,
        found: '0',
        path: ['ram', block.name],
        likely: 'It is shared at the source and not here: give it the same file on both sides',
      });
    }
  }

  /**
   * Sees that no page is missing at the end of postcopy.
   *
   * @param offset of the end in the stream
   * @throws MigrationError `PAGES_MISSING`
   */
  checkAllPlaced(offset: number): void {
    for (const block of this.#ram.blocks) {
      const missing = block.pageCount - block.receivedCount();
      if (missing === 0) continue;
      throw new MigrationError('PAGES_MISSING', 'The stream ended before all pages came', {
        expected: `${block.pageCount} pages`,
        found: `${block.pageCount - missing}${this.#receiver.hostPageIncomplete ? ', and a part of a host page' : ''}`,
        offset,
        path: ['ram', block.name],
        likely: 'The source lost track of pages: please report it, with both sides’ releases',
      });
    }
  }

  #recordError(offset: number, error: PageEngineError): MigrationError {
    const { block, expected, found } = error.details;
    return new MigrationError('RAM_RECORD_INVALID', error.message, {
      ...(expected === undefined ? {} : { expected }),
      ...(found === undefined ? {} : { found }),
      offset,
      path: block === undefined ? [this.#place] : [this.#place, block],
      cause: error,
    });
  }

  #truncated(reader: ByteReader): MigrationError {
    return new MigrationError('CONNECTION_LOST', 'The stream ends inside RAM', {
      offset: reader.offset + reader.available,
      path: [this.#place],
      likely:
        'The source failed, was cancelled or lost its connection: its guest runs on there, or in postcopy here',
    });
  }
}
