import type { ByteReader, Parser } from '@wherry/bytes';
import { type GuestRam, type RamReceiver, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { type RamListEntry, RamRecordReader, readRamList } from '@wherry/stream';
import { MigrationError } from './migration-error.ts';

/** Loads the bodies of `ram` sections: page records in WebAssembly, the others here. */
export class RamLoad {
  readonly #ram: GuestRam;
  readonly #receiver: RamReceiver;
  readonly #records = new RamRecordReader(TARGET_PAGE_BYTES);

  constructor(ram: GuestRam, receiver: RamReceiver) {
    this.#ram = ram;
    this.#receiver = receiver;
  }

  /**
   * Loads one section's body, to its end mark. `reader` keeps its bytes in the receiver's input buffer.
   *
   * @param withPageSizes whether the list of blocks carries page sizes: ADVISE was received
   * @throws MigrationError `RAM_MISMATCH`, `RAM_RECORD_INVALID`; StreamError
   * @see ram_load in QEMU's migration/ram.c
   */
  *loadBody(reader: ByteReader, withPageSizes: boolean): Parser<void> {
    for (;;) {
      const result = this.#receiver.decode(reader.start, reader.end);
      reader.skip(result.consumed);
      if (result.status === 'error') throw this.#recordError(reader.offset, result.error);
      if (result.status === 'need-more') {
        const needed = Math.max(result.bytesNeeded, reader.available + 1);
        if (reader.ended) throw this.#truncated(reader);
        yield needed;
        continue;
      }
      const record = yield* this.#records.read(reader);
      if (record.kind === 'eos') return;
      if (record.kind === 'mem-size') {
        const hasPageSize = (name: string): boolean =>
          withPageSizes && (this.#ram.block(name)?.hostPageBytes ?? 0) > TARGET_PAGE_BYTES;
        const offset = reader.offset;
        for (const entry of yield* this.#readList(reader, record.totalBytes, hasPageSize, offset)) {
          this.#checkBlock(entry, offset);
        }
      } else if ('block' in record) {
        throw new MigrationError(
          'RAM_RECORD_INVALID',
          'A kind of RAM record is not supported here',
          {
            expected: 'pages as they are, zero pages, or XBZRLE before postcopy',
            found: record.kind,
            offset: record.offset,
            path: ['ram', record.block],
            likely:
              record.kind === 'xbzrle'
                ? 'The source goes on with XBZRLE in postcopy, where no QEMU does'
                : 'Turn compress off at the source',
          },
        );
      }
    }
  }

  *#readList(
    reader: ByteReader,
    totalBytes: number,
    hasPageSize: (name: string) => boolean,
    offset: number,
  ): Parser<RamListEntry[]> {
    try {
      return yield* readRamList(reader, totalBytes, { hasPageSize });
    } catch (cause) {
      // Which words are there follows from this side's page sizes: with others the list is unreadable.
      throw new MigrationError('RAM_MISMATCH', 'The list of RAM blocks does not fit this guest', {
        found: cause instanceof Error ? cause.message : String(cause),
        offset,
        path: ['ram'],
        likely:
          'A block has another page size on the source: give both sides the same memory options',
        cause,
      });
    }
  }

  #checkBlock(entry: RamListEntry, offset: number): void {
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
    if (entry.pageBytes !== undefined && entry.pageBytes !== block.hostPageBytes) {
      throw fail(
        `Mismatched RAM page size ${entry.name} (local) ${block.hostPageBytes} != ${entry.pageBytes}`,
        `pages of ${block.hostPageBytes} bytes`,
        `${entry.pageBytes}`,
      );
    }
  }

  #recordError(offset: number, error: Error | undefined): MigrationError {
    return new MigrationError('RAM_RECORD_INVALID', error?.message ?? 'A page record is wrong', {
      offset,
      path: ['ram'],
      cause: error,
    });
  }

  #truncated(reader: ByteReader): MigrationError {
    return new MigrationError('CONNECTION_LOST', 'The stream ends inside RAM', {
      offset: reader.offset + reader.available,
      path: ['ram'],
      likely: 'The source failed, was cancelled or lost its connection: its guest runs on',
    });
  }
}
