import { type ByteReader, need, type Parser } from '@wherry/bytes';
import {
  readFooter,
  readSectionBody,
  type SectionHead,
  SectionType,
  StreamError,
} from '@wherry/stream';
import { BodyStore } from './body-store.ts';
import type { LiveFormat } from './live-format.ts';
import { liveFormatOf } from './live-section.ts';
import type { Locator } from './locator.ts';
import { RamWalk } from './ram-walk.ts';
import { VmdescSplit } from './split-by-vmdesc.ts';
import type { DeviceModel, LiveSectionModel, StreamModel } from './stream-model.ts';
import type { WalkOptions } from './walk-options.ts';

type StartHead = Extract<SectionHead, { readonly idstr: string }>;

/** A live section that has begun. */
interface Live {
  readonly head: StartHead;
  /** Absent for `ram`. */
  readonly model?: LiveSectionModel;
  readonly format?: LiveFormat | undefined;
}

const MAX_DEVICES = 65_536;
const MAX_LIVE_SECTIONS = 4096;
/**
 * What is kept by default: a real machine has a few MiB of device state; the largest, the storage keys
 * of an s390x guest, is one byte a page. Twice this is held while a body is put together.
 */
const MAX_KEPT_BYTES = 64 * 1024 * 1024;

/** Walks the sections of a stream: RAM, other live sections, devices. */
export class SectionWalk {
  readonly #model: StreamModel;
  readonly #options: WalkOptions;
  readonly #locator: Locator;
  readonly #bodies: BodyStore;
  readonly #split: VmdescSplit | undefined;
  readonly #live = new Map<number, Live>();
  #ram: RamWalk | undefined;
  #sawFooter = false;
  #pageSizes: { readonly summary: bigint; readonly targetPageBytes: number } | undefined;

  constructor(model: StreamModel, options: WalkOptions, locator: Locator) {
    this.#model = model;
    this.#options = options;
    this.#locator = locator;
    this.#bodies = new BodyStore(options.maxKeptBytes ?? MAX_KEPT_BYTES);
    if (options.vmdesc !== undefined) this.#split = new VmdescSplit(options.vmdesc);
  }

  /** The RAM block and page that are being read, for messages. */
  get ramPlace(): readonly string[] {
    return this.#ram?.place ?? [];
  }

  /** Takes note of the page sizes that POSTCOPY_ADVISE states. */
  advise(summary: bigint, targetPageBytes: number): void {
    this.#pageSizes = { summary, targetPageBytes };
  }

  /** Takes the page size from the vmdesc where nothing before it told. */
  settlePageSize(pageBytes: number): void {
    const { ram } = this.#model;
    if (ram !== undefined && this.#ram?.isPageSizeKnown === false) ram.targetPageBytes = pageBytes;
  }

  /** Finds the head of the START that a PART or END continues. @throws StreamError `SECTION_TYPE_UNKNOWN` */
  startOf(head: SectionHead, offset: number): StartHead {
    if ('idstr' in head) return head;
    const { sectionId } = head;
    const live = this.#live.get(sectionId);
    if (live !== undefined) return live.head;
    if (this.#model.isRecovery === true) {
      // The connection that broke began the section; only RAM can be recovered.
      const ram: StartHead = { kind: 'start', sectionId, idstr: 'ram', instanceId: 0, version: 4 };
      this.#live.set(sectionId, { head: ram });
      return ram;
    }
    const known = [...this.#live.keys()].slice(0, 16).join(', ');
    throw new StreamError('SECTION_TYPE_UNKNOWN', 'A part belongs to no section that began', {
      expected: `one of the section ids ${known || '(none began)'}`,
      found: `${sectionId}`,
      offset,
      likely: 'The section before it was read to a wrong length, or the stream is damaged',
    });
  }

  /**
   * Reads a section behind its head, with its footer.
   *
   * @param start the head of its START; that of a FULL section is its own
   * @param name the section's name, for messages
   */
  *read(
    reader: ByteReader,
    kind: SectionHead['kind'],
    start: StartHead,
    offset: number,
    name: string,
  ): Parser<void> {
    const { sectionId, idstr, instanceId, version } = start;
    const bodyOffset = reader.offset;
    this.#bodies.begin();
    try {
      if (kind === 'full') yield* this.#readDevice(reader, start, offset, name);
      else yield* this.#readLive(reader, kind, start, offset, name);
    } catch (error) {
      const body = kind === 'full' ? this.#bodies.end() : undefined;
      this.#model.partial = {
        ...{ kind, sectionId, idstr, instanceId, version, offset, bodyOffset },
        ...(body === undefined ? {} : { body }),
      };
      throw error;
    }
  }

  *#readDevice(reader: ByteReader, head: StartHead, offset: number, name: string): Parser<void> {
    const { sectionId, idstr, instanceId, version } = head;
    if (this.#model.devices.length === MAX_DEVICES) {
      throw new StreamError('SECTION_TOO_LARGE', 'The stream has too many device sections', {
        expected: `at most ${MAX_DEVICES}`,
        offset,
        likely: 'The stream is damaged, or something other than a virtual machine wrote it',
      });
    }
    const bodyOffset = reader.offset;
    const sink =
      this.#options.keepBodies === false
        ? () => {}
        : (bytes: Uint8Array) => this.#bodies.add(bytes);
    const bodyLengthBytes =
      this.#split === undefined
        ? yield* readSectionBody(reader, sectionId, name, sink)
        : yield* this.#split.readBody(reader, idstr, instanceId, sink);
    const body = this.#options.keepBodies === false ? undefined : this.#bodies.end();
    const device: DeviceModel = {
      ...{ sectionId, idstr, instanceId, version, offset, bodyOffset, bodyLengthBytes },
      ...(body === undefined ? {} : { body }),
    };
    this.#model.devices.push(device);
    this.#locateRest(bodyOffset, bodyLengthBytes, reader, name, `The state of ${idstr}`);
  }

  *#readLive(
    reader: ByteReader,
    kind: 'start' | 'part' | 'end',
    start: StartHead,
    offset: number,
    name: string,
  ): Parser<void> {
    if (kind === 'start') this.#begin(start, offset);
    const live = this.#live.get(start.sectionId)!;
    const bodyOffset = reader.offset;
    let isEnded = true;
    if (live.model === undefined) yield* this.#readRam(reader, start.version, offset);
    else isEnded = live.format !== undefined && (yield* live.format(reader, kind));
    let bodyBytes = reader.offset - bodyOffset;
    if (!isEnded) {
      if (this.#split !== undefined) throw footersAbsent(name, 'data of no known format', offset);
      const { sectionId } = start;
      bodyBytes += yield* readSectionBody(reader, sectionId, name, () => {}, Infinity);
    } else if (yield* this.#hasFooter(reader, name)) {
      yield* readFooter(reader, start.sectionId, name);
    }
    if (live.model !== undefined) live.model.bodyBytes += bodyBytes;
    this.#locateRest(bodyOffset, bodyBytes, reader, name, `Data of ${start.idstr}`);
  }

  *#readRam(reader: ByteReader, version: number, offset: number): Parser<void> {
    if (version !== 4) {
      throw new StreamError('RAM_LIST_INVALID', 'The RAM section has another version', {
        expected: '4',
        found: `${version}`,
        offset,
        path: ['ram'],
        likely: 'The stream is damaged, or a release newer than this program wrote it',
      });
    }
    this.#ram ??= this.#newRam();
    try {
      yield* this.#ram.readBody(reader);
    } finally {
      if (this.#ram.model !== undefined) this.#model.ram = this.#ram.model;
    }
  }

  #newRam(): RamWalk {
    const { targetPageBits, capabilities = [] } = this.#model.configuration ?? {};
    const advised = this.#pageSizes;
    const targetPageBytes =
      advised?.targetPageBytes ?? (targetPageBits === undefined ? undefined : 2 ** targetPageBits);
    return new RamWalk({
      ...(targetPageBytes === undefined ? {} : { targetPageBytes }),
      ...(advised === undefined ? {} : { pageSizesSummary: advised.summary }),
      ignoreShared: capabilities.includes('x-ignore-shared'),
      mappedRam: capabilities.includes('mapped-ram'),
      isRecovery: this.#model.isRecovery === true,
      sink: this.#options.ramSink,
      onMark: this.#options.onRamMark,
      locator: this.#locator,
      byteOrder: this.#model.container?.byteOrder,
    });
  }

  /** Tells whether a footer follows, and says at the first chance that a stream has none. */
  *#hasFooter(reader: ByteReader, section: string): Parser<boolean> {
    if (this.#sawFooter) return true;
    yield* need(reader, 1);
    const next = reader.peekU8();
    if (next > SectionType.full && next !== SectionType.command) {
      this.#sawFooter = next === SectionType.footer;
      return true;
    }
    if (this.#split !== undefined) return false;
    const found = `0x${next.toString(16).padStart(2, '0')}, which begins another section`;
    throw footersAbsent(section, found, reader.offset);
  }

  #begin(head: StartHead, offset: number): void {
    if (this.#live.size === MAX_LIVE_SECTIONS && !this.#live.has(head.sectionId)) {
      throw new StreamError('SECTION_TOO_LARGE', 'The stream has too many live sections', {
        expected: `at most ${MAX_LIVE_SECTIONS}`,
        offset,
        likely: 'The stream is damaged, or something other than a virtual machine wrote it',
      });
    }
    const { sectionId, idstr, instanceId, version } = head;
    if (idstr === 'ram') {
      this.#live.set(sectionId, { head });
      return;
    }
    const model: LiveSectionModel = { idstr, instanceId, sectionId, version, bodyBytes: 0 };
    if (this.#model.liveSections.length < MAX_LIVE_SECTIONS) this.#model.liveSections.push(model);
    this.#live.set(sectionId, { head, model, format: liveFormatOf(model, this.#model) });
  }

  /** Says what the body and the footer are, where nobody said it more closely. */
  #locateRest(
    bodyOffset: number,
    bodyBytes: number,
    reader: ByteReader,
    name: string,
    what: string,
  ): void {
    const footerBytes = reader.offset - bodyOffset - bodyBytes;
    this.#locator.pieces(
      bodyOffset,
      [name],
      [
        [bodyBytes, what],
        [Math.min(1, footerBytes), 'The byte that begins a section’s footer', SectionType.footer],
        [Math.max(0, footerBytes - 1), 'Section id in the footer'],
      ],
    );
  }
}

function footersAbsent(section: string, found: string, offset: number): StreamError {
  return new StreamError('FOOTERS_ABSENT', 'The sections of this stream have no footers', {
    expected: 'a footer (0x7e)',
    found,
    offset,
    path: [section],
    likely:
      'The sender runs with -global migration.send-section-footer=off, or a machine type up to 2.3: a file can be read by the vmdesc at its end, a pipe cannot',
  });
}
