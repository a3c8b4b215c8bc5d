import { ByteReader, collect, more, need, type Parser, skip } from '@wherry/bytes';
import {
  type Command,
  readCommand,
  readConfiguration,
  readHeader,
  readItem,
  readVmdescLength,
  type SectionHead,
  SectionType,
  STREAM_MAGIC,
  STREAM_VERSION,
  StreamError,
} from '@wherry/stream';
import { parseVmdesc } from '@wherry/vmstate';
import { readContainer } from './container.ts';
import { isRecovery, skipLead } from './lead.ts';
import { Locator } from './locator.ts';
import { commandPieces, configurationPieces, headPieces } from './pieces.ts';
import { SectionWalk } from './section-walk.ts';
import type { CommandModel, ItemModel, StreamModel } from './stream-model.ts';
import type { WalkOptions } from './walk-options.ts';

const MAX_ITEMS = 100_000;
/** Far above any machine's; parsed it takes several times its length. */
const MAX_PARSED_VMDESC_BYTES = 16 * 1024 * 1024;

/** Walks a whole migration stream, of whatever machine, and collects what it holds. */
export class StreamWalk {
  /** What was seen so far, also after a throw. */
  readonly model: StreamModel = {
    items: [],
    devices: [],
    liveSections: [],
    omittedItems: 0,
    trailingBytes: 0,
  };
  readonly #options: WalkOptions;
  readonly #locator: Locator;
  readonly #sections: SectionWalk;
  #path: readonly string[] = ['header'];

  constructor(options: WalkOptions = {}) {
    this.#options = options;
    this.#locator = new Locator(options.at);
    if (options.container !== undefined) this.model.container = options.container;
    this.#sections = new SectionWalk(this.model, options, this.#locator);
  }

  /** Where the walk is, for the path of an error that has none. */
  get path(): readonly string[] {
    return [...this.#path, ...this.#sections.ramPlace];
  }

  /**
   * Reads what a file can hold to the end of the input: a stream, or one in a libvirt save image, or at
   * an offset (`file:…,offset=N`), or what a source sends to recover a postcopy.
   *
   * @throws as {@link StreamWalk.walk}; `CONTAINER_INVALID`; `CONTAINER_PACKED` when the stream in the image must be unpacked first
   */
  *walkFile(reader: ByteReader): Parser<void> {
    try {
      const container = yield* readContainer(reader, this.#locator);
      if (container !== undefined) {
        this.model.container = container;
        this.#path = ['libvirt save image'];
        checkPlain(container.compression, container.streamOffset);
      }
      yield* this.#skipLead(reader);
      this.#path = ['header'];
      if (yield* isRecovery(reader)) {
        this.model.isRecovery = true;
        yield* this.#walkBody(reader);
      } else {
        yield* this.walk(reader);
      }
    } finally {
      this.#settle();
    }
  }

  /**
   * Reads a stream from its header to the end of the input, in the storage that the reader has.
   *
   * @throws StreamError, BytesError, VmstateError; {@link StreamWalk.model} holds what was read before
   */
  *walk(reader: ByteReader): Parser<void> {
    const { model } = this;
    try {
      const start = reader.offset;
      yield* readHeader(reader);
      model.version = STREAM_VERSION;
      this.#locator.pieces(start, this.#path, [
        [4, 'Magic of a migration stream: QEVM', STREAM_MAGIC],
        [4, 'Version of the format', STREAM_VERSION],
      ]);
      this.#path = ['configuration'];
      yield* need(reader, 1);
      // Streams of machine types up to 2.3 have none: the first item follows at once.
      if (reader.peekU8() === SectionType.configuration) {
        const { offset } = reader;
        model.configuration = yield* readConfiguration(reader);
        this.#locator.pieces(offset, this.#path, configurationPieces(model.configuration));
      }
      yield* this.#walkBody(reader);
    } finally {
      this.#settle();
    }
  }

  /** Reads from the first item to the end of the input. */
  *#walkBody(reader: ByteReader): Parser<void> {
    const { model } = this;
    yield* this.#walkItems(reader);
    model.eofOffset = reader.offset - 1;
    this.#options.onEof?.();
    this.#path = ['vmdesc'];
    yield* this.#walkVmdesc(reader);
    model.endOffset = reader.offset;
    this.#path = ['behind the end'];
    while (yield* more(reader)) {
      const { offset, available } = reader;
      this.#locator.pieces(offset, this.#path, [
        [available, 'A byte behind the end of the stream: nobody reads it'],
      ]);
      model.trailingBytes += available;
      reader.skip(available);
    }
  }

  /** Puts into the model what is known when the walk ends, in whatever way. */
  #settle(): void {
    if (this.#locator.found !== undefined) this.model.located = this.#locator.found;
  }

  /** Passes over what is before the header of a stream that was written to an offset of a file. */
  *#skipLead(reader: ByteReader): Parser<void> {
    const start = reader.offset;
    yield* skipLead(reader);
    if (reader.offset === start) return;
    this.model.streamOffset = reader.offset;
    const what = 'A byte before the stream: that was written to an offset of the file';
    this.#locator.pieces(start, ['before the stream'], [[reader.offset - start, what]]);
  }

  /** Reads items up to an EOF; in a package also up to a RUN or its end. */
  *#walkItems(reader: ByteReader, packageEnd?: number): Parser<void> {
    const packaged = packageEnd !== undefined;
    for (;;) {
      this.#path = packaged ? ['package'] : ['between sections'];
      if (packageEnd !== undefined && reader.offset >= packageEnd) return;
      const item = yield* readItem(reader);
      switch (item.type) {
        case 'eof':
          this.#add({ type: 'eof', offset: item.offset, lengthBytes: 1, packaged });
          this.#locator.pieces(item.offset, this.#path, [[1, 'The end of the sections']]);
          return;
        case 'command':
          if ((yield* this.#walkCommand(reader, item.offset, packaged)) === 'run' && packaged) {
            return;
          }
          break;
        case 'section':
          yield* this.#walkSection(reader, item.head, item.offset, packaged);
      }
    }
  }

  *#walkCommand(reader: ByteReader, offset: number, packaged: boolean): Parser<'run' | undefined> {
    this.#path = ['command'];
    const command = yield* readCommand(reader);
    this.#options.onCommand?.(command, offset);
    const lengthBytes = reader.offset - offset;
    this.#add({ type: 'command', offset, lengthBytes, packaged, command: summarize(command) });
    this.#locator.pieces(offset, [`command ${command.name}`], commandPieces(command));
    switch (command.name) {
      case 'postcopy-run':
        return 'run';
      case 'postcopy-advise':
        if (command.ram !== undefined) {
          const { pageSizesSummary, targetPageBytes } = command.ram;
          this.#sections.advise(pageSizesSummary, checkPageBytes(targetPageBytes, offset));
        }
        return undefined;
      case 'packaged':
        yield* this.#walkPackage(reader, command.lengthBytes, offset, packaged);
        return undefined;
      default:
        return undefined;
    }
  }

  *#walkPackage(
    reader: ByteReader,
    lengthBytes: number,
    offset: number,
    packaged: boolean,
  ): Parser<void> {
    const fail = (expected: string, found: string): StreamError =>
      new StreamError('COMMAND_INVALID', 'A package is not usable', {
        expected,
        found,
        offset,
        path: ['command packaged'],
        likely: 'The stream is damaged before this point',
      });
    if (packaged) throw fail('no package in a package', `one of ${lengthBytes} bytes`);
    this.#path = ['package'];
    const start = reader.offset;
    const end = start + lengthBytes;
    yield* this.#walkItems(reader, end);
    if (reader.offset > end) {
      throw fail(`items within its ${lengthBytes} bytes`, `one up to ${reader.offset - start}`);
    }
    // QEMU ignores what follows a RUN or EOF in the package.
    const rest = reader.offset;
    yield* skip(reader, end - rest);
    this.#locator.pieces(rest, ['package'], [[end - rest, 'The unused rest of the package']]);
  }

  *#walkSection(
    reader: ByteReader,
    head: SectionHead,
    offset: number,
    packaged: boolean,
  ): Parser<void> {
    const start = this.#sections.startOf(head, offset);
    const { sectionId, idstr, instanceId, version } = start;
    const { kind } = head;
    const name = `${idstr} (${kind} of section ${sectionId})`;
    this.#path = [name];
    this.#locator.pieces(offset, this.#path, headPieces(head));
    this.#options.onSection?.(kind, start, offset);
    yield* this.#sections.read(reader, kind, start, offset, name);
    this.#options.onSectionEnd?.(reader.offset);
    const lengthBytes = reader.offset - offset;
    this.#add({
      ...{ type: 'section', kind, sectionId, idstr, instanceId, version },
      ...{ offset, lengthBytes, packaged, count: 1 },
    });
  }

  *#walkVmdesc(reader: ByteReader): Parser<void> {
    const { offset } = reader;
    const lengthBytes = yield* readVmdescLength(reader);
    if (lengthBytes === undefined) return;
    this.#locator.pieces(offset, this.#path, [
      [1, 'The byte that begins the vmdesc', SectionType.vmdescription],
      [4, 'Length of the vmdesc’s text', lengthBytes],
      [lengthBytes, 'The vmdesc: a description of the device sections in JSON'],
    ]);
    const start = reader.offset;
    if (this.#options.keepBodies === false || lengthBytes > MAX_PARSED_VMDESC_BYTES) {
      yield* skip(reader, lengthBytes);
      this.model.vmdesc = { offset, lengthBytes };
    } else {
      const bytes = yield* collect(reader, lengthBytes);
      const text = ByteReader.over(bytes, start).text(lengthBytes);
      const value = parseVmdesc(text, start);
      this.model.vmdesc = { offset, lengthBytes, text, value };
      this.#sections.settlePageSize(value.page_size);
    }
    this.#options.onVmdesc?.();
  }

  #add(item: ItemModel): void {
    const { items } = this.model;
    const last = items.at(-1);
    if (
      item.type === 'section' &&
      item.kind === 'part' &&
      last?.type === 'section' &&
      last.kind === 'part' &&
      last.sectionId === item.sectionId
    ) {
      last.count++;
      last.lengthBytes += item.lengthBytes;
    } else if (items.length < MAX_ITEMS) {
      items.push(item);
    } else {
      this.model.omittedItems++;
    }
  }
}

function checkPlain(compression: string, offset: number): void {
  if (compression === 'raw' || compression === 'sparse') return;
  throw new StreamError('CONTAINER_PACKED', 'The stream in this libvirt save image is packed', {
    expected: 'a plain stream',
    found: compression,
    offset,
    path: ['libvirt save image'],
    likely: `Unpack what follows offset ${offset} with ${compression}, and read that`,
  });
}

function summarize(command: Command): CommandModel {
  if (command.name !== 'postcopy-ram-discard') return command;
  const { name, block, ranges } = command;
  const lengthBytes = ranges.reduce((sum, { length }) => sum + length, 0);
  return { name, block, ranges: ranges.length, lengthBytes };
}

function checkPageBytes(targetPageBytes: bigint, offset: number): number {
  const bytes = Number(targetPageBytes);
  if (bytes >= 1024 && bytes <= 2 ** 30 && (bytes & (bytes - 1)) === 0) return bytes;
  throw new StreamError('COMMAND_INVALID', 'The command postcopy-advise is malformed', {
    expected: 'a power of two as target page size',
    found: `${targetPageBytes}`,
    offset,
    path: ['command postcopy-advise'],
    likely: 'The stream is damaged near its beginning',
  });
}
