import type { ByteReader } from './byte-reader.ts';
import { BytesError } from './wherry-error.ts';

/**
 * A parser that can wait: it yields the number of unread bytes that it needs at hand to go on, and
 * returns its result. It throws only when the input is wrong, never because more is to come.
 */
export type Parser<T> = Generator<number, T, void>;

/** Waits until `count` unread bytes are at hand. @throws BytesError `UNEXPECTED_END` when the input ended before. */
export function* need(reader: ByteReader, count: number): Parser<void> {
  while (reader.available < count) {
    if (reader.ended) throw unexpectedEnd(reader, count);
    yield count;
  }
}

/** Waits for at least one more byte, or for the end of the input. @returns false at the end. */
export function* more(reader: ByteReader): Parser<boolean> {
  while (reader.available === 0) {
    if (reader.ended) return false;
    yield 1;
  }
  return true;
}

/** Reads a counted string: one length byte, then that many bytes of text. */
export function* counted(reader: ByteReader): Parser<string> {
  yield* need(reader, 1);
  yield* need(reader, 1 + reader.peekU8());
  return reader.text(reader.u8());
}

/** Passes over `count` bytes, however few the reader holds at a time. @throws BytesError `UNEXPECTED_END` */
export function* skip(reader: ByteReader, count: number): Parser<void> {
  const end = reader.offset + count;
  while (reader.offset < end) {
    reader.skip(Math.min(reader.available, end - reader.offset));
    if (reader.offset === end) break;
    if (reader.ended) throw unexpectedEnd(reader, end - reader.offset);
    reader.unwantedBytes = end - reader.offset;
    yield 1;
    reader.unwantedBytes = 0;
  }
}

/**
 * Collects `count` bytes piece by piece into a buffer of its own, however small the reader's storage.
 *
 * The buffer grows with what has arrived, so that a false length costs the peer its own bytes.
 * The caller checks `count` against a limit first.
 */
export function* collect(reader: ByteReader, count: number): Parser<Uint8Array<ArrayBuffer>> {
  let bytes = new Uint8Array(Math.min(count, Math.max(reader.available, 4096)));
  let have = 0;
  while (have < count) {
    yield* need(reader, 1);
    const take = Math.min(reader.available, count - have);
    if (have + take > bytes.length) {
      const larger = new Uint8Array(Math.min(count, Math.max(have + take, bytes.length * 2)));
      larger.set(bytes.subarray(0, have));
      bytes = larger;
    }
    bytes.set(reader.view(take), have);
    have += take;
  }
  return bytes;
}

/** Runs a parser over a reader that holds the whole input. @throws BytesError `UNEXPECTED_END` when it wants more. */
export function runParser<T>(parser: Parser<T>, reader: ByteReader): T {
  const step = parser.next();
  if (!step.done) throw unexpectedEnd(reader, step.value);
  return step.value;
}

function unexpectedEnd(reader: ByteReader, count: number): BytesError {
  return new BytesError('UNEXPECTED_END', 'The input ends too early', {
    expected: `${count} more bytes`,
    found: `${reader.available}`,
    offset: reader.offset + reader.available,
    likely: 'The sender stopped or the connection was cut: look at the sender’s own log',
  });
}
