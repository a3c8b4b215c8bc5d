import { type ByteReader, type ByteWriter, counted, more, need, type Parser } from '@wherry/bytes';
import { StreamError } from './stream-error.ts';

/** First word of every stream: "QEVM". @see QEMU_VM_FILE_MAGIC in QEMU's migration/savevm.h */
export const STREAM_MAGIC = 0x5145564d;
/** The version of the stream format since 2007. */
export const STREAM_VERSION = 3;

/** The byte that begins each item of a stream. @see QEMU_VM_* in QEMU's migration/savevm.h */
export const SectionType = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  vmdescription: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** The head of a device's section: START and FULL name the device, PART and END only its section id. */
export type SectionHead =
  | {
      readonly kind: 'start' | 'full';
      readonly sectionId: number;
      readonly idstr: string;
      readonly instanceId: number;
      readonly version: number;
    }
  | { readonly kind: 'part' | 'end'; readonly sectionId: number };

/** What comes next at the top level of a stream. */
export type StreamItem =
  | { readonly type: 'section'; readonly offset: number; readonly head: SectionHead }
  | { readonly type: 'command'; readonly offset: number }
  | { readonly type: 'eof'; readonly offset: number };

/** Reads magic and version. @throws StreamError `NOT_A_STREAM`, `VERSION_UNSUPPORTED` */
export function* readHeader(reader: ByteReader): Parser<void> {
  yield* need(reader, 8);
  const { offset } = reader;
  const magic = reader.u32();
  if (magic !== STREAM_MAGIC) {
    throw new StreamError('NOT_A_STREAM', 'This is not a migration stream', {
      expected: 'the magic 0x5145564d ("QEVM")',
      found: `0x${magic.toString(16).padStart(8, '0')}`,
      offset,
      likely: likelySource(magic),
    });
  }
  const version = reader.u32();
  if (version !== STREAM_VERSION) {
    throw new StreamError('VERSION_UNSUPPORTED', 'The stream has another format version', {
      expected: `${STREAM_VERSION}`,
      found: `${version}`,
      offset: offset + 4,
      likely: version === 2 ? 'QEMU before 0.10 wrote it' : 'The stream is damaged',
    });
  }
}

function likelySource(magic: number): string {
  if (magic === 0x4c696276)
    return 'It begins like a libvirt save image: the stream follows its header';
  if (magic === 0x514649fb)
    return 'It is a qcow2 image: a snapshot inside it is loaded with -loadvm';
  if (magic === 0x11223344) return 'It is a multifd channel: the main channel must connect first';
  if (magic >>> 16 === 0x1f8b) return 'It is gzip data: decompress it first';
  if (magic >>> 24 === 0x16) return 'It begins like TLS: set tls-creds on both sides';
  return 'Another program wrote it, or its beginning is missing';
}

/** Writes magic and version. */
export function writeHeader(writer: ByteWriter): void {
  writer.u32(STREAM_MAGIC).u32(STREAM_VERSION);
}

/**
 * Reads the next item's type and, for a section, its head. A command's payload is read by
 * `readCommand`; a section's body by whoever knows the device, then `readFooter`.
 *
 * @throws StreamError `SECTION_TYPE_UNKNOWN`
 */
export function* readItem(reader: ByteReader): Parser<StreamItem> {
  yield* need(reader, 1);
  const { offset } = reader;
  const type = reader.u8();
  switch (type) {
    case SectionType.eof:
      return { type: 'eof', offset };
    case SectionType.command:
      return { type: 'command', offset };
    case SectionType.start:
    case SectionType.full: {
      yield* need(reader, 4);
      const sectionId = reader.u32();
      const idstr = yield* counted(reader);
      yield* need(reader, 8);
      const kind = type === SectionType.start ? 'start' : 'full';
      const head = {
        kind,
        sectionId,
        idstr,
        instanceId: reader.u32(),
        version: reader.u32(),
      } as const;
      return { type: 'section', offset, head };
    }
    case SectionType.part:
    case SectionType.end: {
      yield* need(reader, 4);
      const kind = type === SectionType.part ? 'part' : 'end';
      return { type: 'section', offset, head: { kind, sectionId: reader.u32() } };
    }
    default:
      throw new StreamError('SECTION_TYPE_UNKNOWN', 'No section begins here', {
        expected: 'a section type (0 to 4 or 8)',
        found: `0x${type.toString(16).padStart(2, '0')}`,
        offset,
        likely:
          type === SectionType.footer
            ? 'A footer stands where no section was open'
            : 'The section before it was read to a wrong length: the two sides describe that device differently',
      });
  }
}

/** Writes a section's type byte and head. */
export function writeSectionHead(writer: ByteWriter, head: SectionHead): void {
  writer.u8(SectionType[head.kind]).u32(head.sectionId);
  if (head.kind === 'start' || head.kind === 'full') {
    writer.counted(head.idstr).u32(head.instanceId).u32(head.version);
  }
}

/**
 * Reads the footer that ends every section.
 *
 * @param section the section's name, for messages
 * @throws StreamError `FOOTER_MISSING`, `FOOTER_MISMATCH`
 */
export function* readFooter(reader: ByteReader, sectionId: number, section: string): Parser<void> {
  yield* need(reader, 1);
  const { offset } = reader;
  const type = reader.peekU8();
  if (type !== SectionType.footer) {
    throw new StreamError('FOOTER_MISSING', 'A section does not end where its device says', {
      expected: 'a footer (0x7e)',
      found: `0x${type.toString(16).padStart(2, '0')}`,
      offset,
      path: [section],
      likely:
        'The sender’s device has more or fewer fields than this side’s: another release or another machine type',
    });
  }
  yield* need(reader, 5);
  reader.skip(1);
  const found = reader.u32();
  if (found !== sectionId) {
    throw new StreamError('FOOTER_MISMATCH', 'A footer belongs to another section', {
      expected: `section id ${sectionId}`,
      found: `${found}`,
      offset: offset + 1,
      path: [section],
      likely: 'The stream is damaged before this point',
    });
  }
}

/** Writes the footer that ends a section. */
export function writeFooter(writer: ByteWriter, sectionId: number): void {
  writer.u8(SectionType.footer).u32(sectionId);
}

const MAX_VMDESC_BYTES = 64 * 1024 * 1024;

/** Reads the length of the vmdesc that may follow the end. @returns undefined when the stream is over */
export function* readVmdescLength(reader: ByteReader): Parser<number | undefined> {
  if (!(yield* more(reader))) return undefined;
  const { offset } = reader;
  const type = reader.peekU8();
  if (type !== SectionType.vmdescription) return undefined;
  yield* need(reader, 5);
  reader.skip(1);
  const length = reader.u32();
  if (length > MAX_VMDESC_BYTES) {
    throw new StreamError('SECTION_TOO_LARGE', 'The description of the device state is too large', {
      expected: `at most ${MAX_VMDESC_BYTES} bytes`,
      found: `${length}`,
      offset: offset + 1,
      path: ['vmdesc'],
    });
  }
  return length;
}

/** Writes the vmdesc behind the end of the stream. */
export function writeVmdesc(writer: ByteWriter, json: string): void {
  const at = writer.u8(SectionType.vmdescription).u32(0).length;
  writer.text(json).patchU32(at - 4, writer.length - at);
}
