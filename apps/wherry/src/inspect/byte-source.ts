import type { FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import type { ByteReader, Parser } from '@wherry/bytes';

/** Reads at least one byte into `into`; resolves to the count, 0 at the end. A `Transport`'s `read` is one. */
export type ReadBytes = (into: Uint8Array) => Promise<number>;

/** Reads a file from its beginning. */
export function fileSource(file: FileHandle): ReadBytes {
  return async (into) => (await file.read(into, 0, into.length)).bytesRead;
}

/** Reads a Node stream, such as standard input. */
export function streamSource(stream: Readable): ReadBytes {
  const chunks = stream[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array(0);
  return async (into) => {
    while (rest.length === 0) {
      const next = await chunks.next();
      if (next.done === true) return 0;
      rest = next.value as Uint8Array;
    }
    const piece = rest.subarray(0, into.length);
    into.set(piece);
    rest = rest.subarray(piece.length);
    return piece.length;
  };
}

/** Runs a parser to its end, reading from a source whenever it waits. */
export async function readWith<T>(
  parser: Parser<T>,
  reader: ByteReader,
  read: ReadBytes,
): Promise<T> {
  for (;;) {
    const step = parser.next();
    if (step.done === true) return step.value;
    const count = await read(reader.space());
    if (count === 0) reader.finish();
    else reader.commit(count);
  }
}
