import { close, constants, fstat, ftruncate, open, read, write } from 'node:fs';
import { promisify } from 'node:util';
import type { SeekableFile, Transport } from '@wherry/migration';
import { destroyed } from './socket-transport.ts';
import { fromSystemError, TransportError } from './transport-error.ts';

const closeFile = promisify(close);
const openFile = promisify(open);
const truncateFile = promisify(ftruncate);
const statFile = promisify(fstat);

const OUTGOING_FLAGS = constants.O_CREAT | constants.O_WRONLY;

type Operation = (
  fd: number,
  bytes: Uint8Array,
  at: number,
  length: number,
  position: number | null,
  done: (error: Error | null, count: number) => void,
) => void;

/** Whether a channel is opened to send a stream or to receive one. */
export type Direction = 'outgoing' | 'incoming';

/** A file as a connection: one that is written has nothing to read, one that is read takes nothing. */
export class FileTransport implements Transport {
  readonly #fd: number;
  readonly #place: string;
  readonly #direction: Direction;
  /** Byte offset of the next read or write; undefined follows the descriptor's own. */
  #position: number | undefined;
  #isBusy = false;
  #isOver = false;
  #isClosed = false;
  #failure: Error | undefined;

  constructor(fd: number, place: string, direction: Direction, position?: number) {
    this.#fd = fd;
    this.#place = place;
    this.#direction = direction;
    this.#position = position;
  }

  async read(into: Uint8Array): Promise<number> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#direction === 'outgoing' || into.length === 0) return 0;
    return this.#advance(read, into, 0);
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#direction === 'incoming') {
      throw new TransportError('UNSUPPORTED', `${this.#place} is being read`, {
        likely: 'A file has no return path: turn the return-path capability off',
      });
    }
    if (this.#isOver) throw new TransportError('UNSUPPORTED', 'A write came after the end');
    for (let at = 0; at < bytes.length; ) at += await this.#advance(write, bytes, at);
  }

  /** Access to the whole file, where it has offsets. */
  get file(): SeekableFile | undefined {
    const position = this.#position;
    if (position === undefined) return undefined;
    return {
      position,
      seek: (offset) => {
        this.#position = offset;
      },
      readAt: async (into, offset) => {
        let count = 0;
        while (count < into.length) {
          const done = await this.#run(read, into, count, offset + count);
          if (done === 0) break;
          count += done;
        }
        return count;
      },
      writeAt: async (bytes, offset) => {
        for (let at = 0; at < bytes.length; ) at += await this.#run(write, bytes, at, offset + at);
      },
    };
  }

  async end(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#direction === 'incoming' || this.#isOver) return;
    if (this.#isBusy) throw new TransportError('BUSY', 'A write is under way already');
    this.#isOver = true;
    try {
      await this.#close();
    } catch (error) {
      throw fromSystemError(error, this.#place, 'IO_ERROR');
    }
  }

  destroy(reason: Error = destroyed()): void {
    this.#failure ??= reason;
    // What is under way must end first: the descriptor's number may be given out again.
    if (!this.#isBusy) this.#close().catch(() => {});
  }

  async #close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await closeFile(this.#fd);
  }

  /** Runs an operation on the stream itself. */
  async #advance(operation: Operation, bytes: Uint8Array, at: number): Promise<number> {
    const count = await this.#run(operation, bytes, at, this.#position ?? null);
    if (this.#position !== undefined) this.#position += count;
    return count;
  }

  #run(
    operation: Operation,
    bytes: Uint8Array,
    at: number,
    position: number | null,
  ): Promise<number> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#isBusy) {
      return Promise.reject(new TransportError('BUSY', `${this.#place} is busy already`));
    }
    this.#isBusy = true;
    return new Promise((resolve, reject) => {
      operation(this.#fd, bytes, at, bytes.length - at, position, (error, count) => {
        this.#isBusy = false;
        if (this.#failure !== undefined) {
          this.#close().catch(() => {});
          reject(this.#failure);
        } else if (error) reject(fromSystemError(error, this.#place, 'IO_ERROR'));
        else resolve(count);
      });
    });
  }
}

/**
 * Opens a file to send or to receive a stream that starts at byte `offset`. What lies before it is
 * kept, what lies behind it is cut off when sending.
 *
 * @throws TransportError `NOT_FOUND`, `PERMISSION`, `IO_ERROR`
 * @see QEMU migration/file.c `file_connect_outgoing`
 */
export async function openFileTransport(
  path: string,
  offset: number,
  direction: Direction,
): Promise<FileTransport> {
  const place = `file:${path}`;
  let fd: number | undefined;
  try {
    // Opened without truncation, so that the part before the offset survives.
    fd = await openFile(path, direction === 'incoming' ? 'r' : OUTGOING_FLAGS, 0o600);
    const stat = await statFile(fd);
    if (stat.isDirectory()) throw Object.assign(new Error(), { code: 'EISDIR' });
    // Pipes and devices have neither a length nor offsets.
    if (!stat.isFile()) return new FileTransport(fd, place, direction);
    if (direction === 'outgoing') await truncateFile(fd, offset);
    return new FileTransport(fd, place, direction, offset);
  } catch (error) {
    if (fd !== undefined) await closeFile(fd);
    throw fromSystemError(error, place, 'IO_ERROR');
  }
}
