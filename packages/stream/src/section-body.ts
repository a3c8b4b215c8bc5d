import { type ByteReader, more, type Parser } from '@wherry/bytes';
import { SectionType } from './sections.ts';
import { StreamError } from './stream-error.ts';

const FOOTER_BYTES = 5;
/** Far above any device's state; a section that is longer has lost its footer. */
const MAX_DEVICE_BYTES = 256 * 1024 * 1024;

/**
 * Reads the body of a section whose fields nobody here knows, and its footer.
 *
 * The end is the first footer with the section's id behind which an item can begin or the input ends.
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
    while (at >= 0 && !isFooter(reader, at, sectionId)) {
      if (window.length <= at + FOOTER_BYTES && !reader.ended) break;
      at = window.indexOf(SectionType.footer, at + 1);
    }
    if (at < 0) {
      pass(window.length);
    } else if (window.length <= at + FOOTER_BYTES && !reader.ended) {
      pass(at);
      yield FOOTER_BYTES + 1;
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

function isFooter(reader: ByteReader, at: number, sectionId: number): boolean {
  const behind = reader.available - at - FOOTER_BYTES;
  if (behind < 0 || reader.peekU32(at + 1) !== sectionId) return false;
  if (behind === 0) return true;
  const next = reader.peekU8(at + FOOTER_BYTES);
  return (
    next <= SectionType.full || next === SectionType.configuration || next === SectionType.command
  );
}
