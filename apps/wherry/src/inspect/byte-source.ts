import { fstatSync, readSync } from 'node:fs';
import type { Readable } from 'node:stream';
import type { ByteReader, Parser } from '@wherry/bytes';

/** An input that is read from its beginning. */
export interface ByteSource {
  /** Reads at least one byte into `into`; gives the count, 0 at the end. */
  read(into: Uint8Array): number | Promise<number>;
  /** Length of the input; absent for a pipe. */
  readonly sizeBytes?: number;
  /** Goes on at this offset, of a file only. */
  readonly seek?: (offset: number) => void;
}

/**
 * Reads an open file; the caller closes it.
 *
 * A regular file is read synchronously: its pages are mostly in memory, and a thread's round trip would
 * take as long as the copy. Reading in step with the parser, a chunk is still in the processor's cache.
 */
export function fileSource(fd: number): ByteSource {
  const stat = fstatSync(fd);
  if (!stat.isFile()) return { read: (into) => readSync(fd, into) };
  let position = 0;
  return {
    read: (into) => {
      const count = readSync(fd, into, 0, into.length, position);
      position += count;
      return count;
    },
    sizeBytes: stat.size,
    seek: (offset) => {
      position = offset;
    },
  };
}

/** Reads a Node stream, such as standard input. */
export function streamSource(stream: Readable): ByteSource {
  const chunks = stream[Symbol.asyncIterator]();
  let rest: Uint8Array = new Uint8Array(0);
  return {
    read: async (into) => {
      while (rest.length === 0) {
        const next = await chunks.next();
        if (next.done === true) return 0;
        rest = next.value as Uint8Array;
      }
      const piece = rest.subarray(0, into.length);
      into.set(piece);
      rest = rest.subarray(piece.length);
      return piece.length;
    },
  };
}

/**
 * Runs a parser to its end, reading from a source whenever it waits; what it does not want of a file is
 * not read.
 *
 * @param onRead hears of the reader's offset after each read
 */
export async function readWith<T>(
  parser: Parser<T>,
  reader: ByteReader,
  source: ByteSource,
  onRead?: (offset: number) => void,
): Promise<T> {
  for (;;) {
    const step = parser.next();
    if (step.done === true) return step.value;
    if (reader.unwantedBytes > 0 && reader.available === 0) jump(reader, source);
    const reading = source.read(reader.space());
    const count = typeof reading === 'number' ? reading : await reading;
    if (count === 0) reader.finish();
    else reader.commit(count);
    onRead?.(reader.offset);
  }
}

/** Seeking costs more than reading on where the parser passes over little. */
const LEAST_JUMP_BYTES = 4 * 1024 * 1024;

function jump(reader: ByteReader, { seek, sizeBytes = 0 }: ByteSource): void {
  // At least one byte is read: a file that ends here is found to end.
  const count = Math.min(reader.unwantedBytes, sizeBytes - 1 - reader.offset);
  if (seek === undefined || count < LEAST_JUMP_BYTES) return;
  reader.jump(count);
  seek(reader.offset);
}
