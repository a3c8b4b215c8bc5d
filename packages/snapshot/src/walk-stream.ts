import { ByteReader, collect, more, need, type Parser } from '@wherry/bytes';
import {
  type Command,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readSectionBody,
  readVmdescLength,
  type SectionHead,
  SectionType,
  StreamError,
} from '@wherry/stream';
import { parseVmdesc } from '@wherry/vmstate';
import { BodyStore } from './body-store.ts';
import { RamWalk } from './ram-walk.ts';
import type { CommandModel, ItemModel, StreamModel } from './stream-model.ts';

/** What a walk keeps, and who hears of it meanwhile. */
export interface WalkOptions {
  /** Whether device bodies and the vmdesc are kept for decoding (default true). */
  readonly keepBodies?: boolean;
  /** The most bytes of bodies to keep in all (default 512 MiB). */
  readonly maxKeptBytes?: number;
  /** Hears of each command before what follows it is read; a throw ends the walk. */
  readonly onCommand?: (command: Command, offset: number) => void;
  /** Hears of the byte that ends the sections; a vmdesc may follow. */
  readonly onEof?: () => void;
  /** Hears that the vmdesc was read: nothing more belongs to the stream. */
  readonly onVmdesc?: () => void;
}

const MAX_ITEMS = 100_000;
const MAX_DEVICES = 65_536;
const MAX_LIVE_SECTIONS = 4096;

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
  readonly #bodies: BodyStore;
  readonly #live = new Map<number, SectionHead & { readonly kind: 'start' }>();
  #ram: RamWalk | undefined;
  #pageSizes: { readonly summary: bigint; readonly targetPageBytes: number } | undefined;
  #path: readonly string[] = ['header'];
  #hasFooters: boolean | undefined;

  constructor(options: WalkOptions = {}) {
    this.#options = options;
    this.#bodies = new BodyStore(options.maxKeptBytes ?? 512 * 1024 * 1024);
  }

  /** Where the walk is, for the path of an error that has none. */
  get path(): readonly string[] {
    return this.#path;
  }

  /**
   * Reads the stream from its header to the end of the input, in the storage that the reader has.
   *
   * @throws StreamError, BytesError, VmstateError; {@link StreamWalk.model} holds what was read before
   */
  *walk(reader: ByteReader): Parser<void> {
    const { model } = this;
    yield* readHeader(reader);
    model.version = 3;
    this.#path = ['configuration'];
    yield* need(reader, 1);
    // Streams of machine types up to 2.3 have none: the first item follows at once.
    if (reader.peekU8() === SectionType.configuration) {
      model.configuration = yield* readConfiguration(reader);
    }
    yield* this.#walkItems(reader, false);
    model.eofOffset = reader.offset - 1;
    this.#options.onEof?.();
    this.#path = ['vmdesc'];
    yield* this.#walkVmdesc(reader);
    model.endOffset = reader.offset;
    this.#path = ['behind the end'];
    while (yield* more(reader)) {
      model.trailingBytes += reader.available;
      reader.skip(reader.available);
    }
  }

  /** Reads items up to an EOF; in a package also up to a RUN or its end. */
  *#walkItems(reader: ByteReader, packaged: boolean): Parser<void> {
    for (;;) {
      this.#path = packaged ? ['package'] : ['between sections'];
      if (packaged && !(yield* more(reader))) return;
      const item = yield* readItem(reader);
      switch (item.type) {
        case 'eof':
          this.#add({ type: 'eof', offset: item.offset, lengthBytes: 1, packaged });
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
    switch (command.name) {
      case 'postcopy-run':
        return 'run';
      case 'postcopy-advise':
        if (command.ram !== undefined) {
          const { pageSizesSummary: summary, targetPageBytes } = command.ram;
          this.#pageSizes = { summary, targetPageBytes: checkPageBytes(targetPageBytes, offset) };
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
    const limit = this.#options.maxKeptBytes ?? 512 * 1024 * 1024;
    if (packaged || lengthBytes > limit) {
      throw new StreamError('COMMAND_INVALID', 'A package is not usable', {
        expected: packaged ? 'no package in a package' : `at most ${limit} bytes`,
        found: `${lengthBytes} bytes`,
        offset,
        path: ['command packaged'],
        likely: 'The stream is damaged before this point',
      });
    }
    this.#path = ['package'];
    const start = reader.offset;
    const bytes = yield* collect(reader, lengthBytes);
    // QEMU reads the package from memory too: what follows its RUN or EOF in there is ignored.
    yield* this.#walkItems(ByteReader.over(bytes, start), true);
  }

  *#walkSection(
    reader: ByteReader,
    head: SectionHead,
    offset: number,
    packaged: boolean,
  ): Parser<void> {
    const start =
      head.kind === 'start' || head.kind === 'full' ? head : this.#started(head, offset);
    const { sectionId, idstr, instanceId, version } = start;
    const name = `${idstr} (${head.kind} of section ${sectionId})`;
    this.#path = [name];
    if (head.kind === 'start') this.#begin({ ...head, kind: 'start' }, offset);
    const bodyOffset = reader.offset;
    if (head.kind !== 'full' && idstr === 'ram') {
      yield* this.#walkRam(reader, start.version, offset);
      yield* this.#checkFooters(reader, name);
      yield* readFooter(reader, sectionId, name);
    } else if (head.kind === 'full' && this.#options.keepBodies !== false) {
      const body = yield* this.#bodies.read(reader, sectionId, name);
      this.#addDevice({ ...start, offset, bodyOffset, body, bodyLengthBytes: body.length });
    } else {
      const bodyLengthBytes = yield* readSectionBody(reader, sectionId, name, () => {});
      if (head.kind === 'full') {
        this.#addDevice({ ...start, offset, bodyOffset, bodyLengthBytes });
      }
    }
    this.#add({
      type: 'section',
      kind: head.kind,
      sectionId,
      idstr,
      instanceId,
      version,
      offset,
      lengthBytes: reader.offset - offset,
      packaged,
      count: 1,
    });
  }

  *#walkRam(reader: ByteReader, version: number, offset: number): Parser<void> {
    if (version !== 4) {
      throw new StreamError('RAM_LIST_INVALID', 'The RAM section has another version', {
        expected: '4',
        found: `${version}`,
        offset,
        path: ['ram'],
        likely: 'The stream is damaged, or a release newer than this program wrote it',
      });
    }
    const { targetPageBits, capabilities = [] } = this.model.configuration ?? {};
    this.#ram ??= new RamWalk({
      targetPageBytes: this.#pageSizes?.targetPageBytes ?? 2 ** (targetPageBits ?? 12),
      ...(this.#pageSizes === undefined ? {} : { pageSizesSummary: this.#pageSizes.summary }),
      ignoreShared: capabilities.includes('x-ignore-shared'),
      mappedRam: capabilities.includes('mapped-ram'),
    });
    try {
      yield* this.#ram.readBody(reader);
    } finally {
      if (this.#ram.model !== undefined) this.model.ram = this.#ram.model;
    }
  }

  /** Says at the first chance that a stream has no footers: without them nothing here can be found. */
  *#checkFooters(reader: ByteReader, section: string): Parser<void> {
    if (this.#hasFooters === true) return;
    yield* need(reader, 1);
    const next = reader.peekU8();
    this.#hasFooters = next === SectionType.footer;
    if (next <= SectionType.full || next === SectionType.command) {
      throw new StreamError('FOOTER_MISSING', 'The sections of this stream have no footers', {
        expected: 'a footer (0x7e)',
        found: `0x${next.toString(16).padStart(2, '0')}, which begins another section`,
        offset: reader.offset,
        path: [section],
        likely:
          'The sender runs with -global migration.send-section-footer=off, or a machine type up to 2.3',
      });
    }
  }

  #begin(head: SectionHead & { readonly kind: 'start' }, offset: number): void {
    this.#live.set(head.sectionId, head);
    if (this.#live.size <= MAX_LIVE_SECTIONS) return;
    throw new StreamError('SECTION_TOO_LARGE', 'The stream has too many live sections', {
      expected: `at most ${MAX_LIVE_SECTIONS}`,
      offset,
      likely: 'The stream is damaged, or something other than a virtual machine wrote it',
    });
  }

  #started(head: SectionHead, offset: number): SectionHead & { readonly kind: 'start' } {
    const start = this.#live.get(head.sectionId);
    if (start === undefined) {
      throw new StreamError('SECTION_TYPE_UNKNOWN', 'A part belongs to no section that began', {
        expected: `one of the section ids ${[...this.#live.keys()].join(', ') || '(none began)'}`,
        found: `${head.sectionId}`,
        offset,
        likely: 'The section before it was read to a wrong length, or the stream is damaged',
      });
    }
    return start;
  }

  *#walkVmdesc(reader: ByteReader): Parser<void> {
    const { offset } = reader;
    const lengthBytes = yield* readVmdescLength(reader);
    if (lengthBytes === undefined) return;
    if (this.#options.keepBodies === false) {
      for (let left = lengthBytes; left > 0; ) {
        yield* need(reader, 1);
        const count = Math.min(left, reader.available);
        reader.skip(count);
        left -= count;
      }
      this.model.vmdesc = { offset, lengthBytes };
    } else {
      const start = reader.offset;
      const bytes = yield* collect(reader, lengthBytes);
      const value = parseVmdesc(ByteReader.over(bytes, start).text(lengthBytes), start);
      this.model.vmdesc = { offset, lengthBytes, value };
    }
    this.#options.onVmdesc?.();
  }

  #addDevice(device: StreamModel['devices'][number]): void {
    if (this.model.devices.length === MAX_DEVICES) {
      throw new StreamError('SECTION_TOO_LARGE', 'The stream has too many device sections', {
        expected: `at most ${MAX_DEVICES}`,
        offset: device.offset,
      });
    }
    const { sectionId, idstr, instanceId, version, offset, bodyOffset, bodyLengthBytes } = device;
    this.model.devices.push({
      ...{ sectionId, idstr, instanceId, version, offset, bodyOffset, bodyLengthBytes },
      ...(device.body === undefined ? {} : { body: device.body }),
    });
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
