import { type ByteReader, more, type Parser } from '@wherry/bytes';
import { SectionType, STREAM_MAGIC, STREAM_VERSION, StreamError } from '@wherry/stream';

const RECV_BITMAP = 10;
/** How far a header is looked for behind something else: QEMU takes any offset, its users take small ones. */
const MAX_LEAD_BYTES = 1024 * 1024;
/** What can follow a header. */
const FIRST_ITEMS: readonly number[] = [
  SectionType.configuration,
  SectionType.start,
  SectionType.full,
  SectionType.command,
];

/** Tells whether the input begins as a recovery does: with the command RECV_BITMAP in the place of a header. */
export function* isRecovery(reader: ByteReader): Parser<boolean> {
  yield* wait(reader, 3);
  if (reader.available < 3) return false;
  return reader.peekU8() === SectionType.command && reader.peekU16(1) === RECV_BITMAP;
}

/**
 * Passes over what is before a stream that was written to an offset of a file: zeros of any length, or
 * whatever else as long as the header follows within 1 MiB. Anything else is left as it is.
 *
 * @throws StreamError `NOT_A_STREAM` for zeros alone
 */
export function* skipLead(reader: ByteReader): Parser<void> {
  const start = reader.offset;
  while ((yield* more(reader)) && reader.peekU8() === 0) {
    const bytes = reader.storage.subarray(reader.start, reader.end);
    const used = bytes.findIndex((byte) => byte !== 0);
    reader.skip(used < 0 ? bytes.length : used);
  }
  if (reader.offset > start && reader.available === 0) {
    throw new StreamError('NOT_A_STREAM', 'This is not a migration stream', {
      expected: 'the magic 0x5145564d ("QEVM")',
      found: `${reader.offset - start} zeros, and the end`,
      offset: start,
      likely: 'The file was never written, or its writer failed before it began',
    });
  }
  yield* wait(reader, 4);
  if (reader.available < 4 || reader.peekU32() === STREAM_MAGIC) return;
  if (yield* isRecovery(reader)) return;
  yield* wait(reader, Math.min(MAX_LEAD_BYTES, reader.capacityBytes));
  const found = findHeader(reader);
  if (found !== undefined) reader.skip(found);
}

/** Finds a header among the bytes at hand, as an index from the first one. */
function findHeader(reader: ByteReader): number | undefined {
  const first = STREAM_MAGIC >>> 24;
  const bytes = reader.storage.subarray(reader.start, reader.end);
  const end = Math.min(bytes.length - 8, MAX_LEAD_BYTES);
  for (let at = bytes.indexOf(first); at >= 0 && at < end; at = bytes.indexOf(first, at + 1)) {
    if (reader.peekU32(at) !== STREAM_MAGIC || reader.peekU32(at + 4) !== STREAM_VERSION) continue;
    if (FIRST_ITEMS.includes(reader.peekU8(at + 8))) return at;
  }
  return undefined;
}

/** Waits for bytes at hand, or for the end of the input. */
function* wait(reader: ByteReader, count: number): Parser<void> {
  while (reader.available < count && !reader.ended) yield count;
}
