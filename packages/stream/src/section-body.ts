import { type ByteReader, more, type Parser } from '@wherry/bytes';
import { SectionType } from './sections.ts';
import { StreamError } from './stream-error.ts';

const FOOTER_BYTES = 5;
/** Far above the number of commands that any release has. */
const MAX_COMMANDS = 256;
/** Far above any device's state; a section that is longer has lost its footer. */
const MAX_DEVICE_BYTES = 256 * 1024 * 1024;

/**
 * Reads the body of a section whose fields nobody here knows, and its footer.
 *
 * The end is the first footer with the section's id behind which an item begins, or the stream ends: state
 * can look like a footer (a timer is followed by zeros), so that what follows is looked at closely.
 *
 * @param section the section's name, for messages
 * @param sink gets each piece of the body, a view that is valid during the call
 * @param maxBytes what is too long for the section; live sections have no such length
 * @returns the body's length in bytes
 * @throws StreamError `SECTION_TOO_LARGE`, `FOOTER_MISSING`
 */
export function* readSectionBody(
  reader: ByteReader,
  sectionId: number,
  section: string,
  sink: (piece: Uint8Array) => void,
  maxBytes: number = MAX_DEVICE_BYTES,
): Parser<number> {
  const start = reader.offset;
  const pass = (count: number): void => {
    if (count > 0) sink(reader.view(count));
    if (reader.offset - start > maxBytes) {
      throw new StreamError('SECTION_TOO_LARGE', 'A section has no end', {
        expected: `a footer within ${maxBytes} bytes`,
        offset: start,
        path: [section],
        likely: 'The stream was written without section footers, or is damaged',
      });
    }
  };
  while (yield* more(reader)) {
    const window = reader.storage.subarray(reader.start, reader.end);
    let at = window.indexOf(SectionType.footer);
    let lacking = 0;
    while (at >= 0 && (lacking = lackingBytes(reader, at, sectionId)) === NO_FOOTER) {
      at = window.indexOf(SectionType.footer, at + 1);
    }
    if (at < 0) {
      pass(window.length);
    } else if (lacking > 0) {
      pass(at);
      reader.mayBeOver = reader.available === FOOTER_BYTES + 1;
      yield reader.available + lacking;
      reader.mayBeOver = false;
    } else {
      pass(at);
      const length = reader.offset - start;
      reader.skip(FOOTER_BYTES);
      return length;
    }
  }
  throw new StreamError('FOOTER_MISSING', 'The input ends inside a section', {
    expected: `a footer with section id ${sectionId}`,
    found: `the end after ${reader.offset - start} bytes of the section`,
    offset: reader.offset,
    path: [section],
    likely: 'The stream was cut off: the sender failed, or its disk was full',
  });
}

const NO_FOOTER = Number.POSITIVE_INFINITY;

/**
 * Counts the bytes that have to come before it is known whether a footer lies `at` bytes ahead: 0 when
 * one does, {@link NO_FOOTER} when none does.
 */
function lackingBytes(reader: ByteReader, at: number, sectionId: number): number {
  const { available, ended } = reader;
  const item = at + FOOTER_BYTES;
  /** Whether there is room for `count` bytes of the next item; of a cut stream what is there has to do. */
  const lacks = (count: number): number => Math.max(0, item + count - available);
  if (lacks(0) > 0) return ended ? NO_FOOTER : lacks(0) + 1;
  if (reader.peekU32(at + 1) !== sectionId) return NO_FOOTER;
  if (lacks(1) > 0) return ended ? 0 : 1;
  switch (reader.peekU8(item)) {
    case SectionType.eof: // then nothing follows, or the vmdesc
      if (lacks(2) > 0) return ended ? 0 : 1;
      return reader.peekU8(item + 1) === SectionType.vmdescription ? 0 : NO_FOOTER;
    case SectionType.start:
    case SectionType.full: {
      if (lacks(6) > 0) return ended ? 0 : lacks(6);
      const nameBytes = reader.peekU8(item + 5);
      if (lacks(6 + nameBytes) > 0) return ended ? 0 : lacks(6 + nameBytes);
      for (let i = 0; i < nameBytes; i++) {
        const character = reader.peekU8(item + 6 + i);
        if (character < 0x20 || character > 0x7e) return NO_FOOTER;
      }
      return nameBytes > 0 ? 0 : NO_FOOTER;
    }
    case SectionType.command:
      if (lacks(3) > 0) return ended ? 0 : lacks(3);
      return reader.peekU16(item + 1) < MAX_COMMANDS ? 0 : NO_FOOTER;
    case SectionType.part:
    case SectionType.end:
      return 0;
    default:
      return NO_FOOTER;
  }
}
