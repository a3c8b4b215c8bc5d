import { readSync } from 'node:fs';
import type { OnReadOpts, Socket } from 'node:net';
import type { ConnectionReader } from './socket-transport.ts';
import { TransportError } from './transport-error.ts';

/** Bytes that one wake-up moves through the parking buffer; the rest of a read goes straight. */
const PARKING_BYTES = 32 * 1024;

/**
 * Reads a socket into buffers that are handed in one at a time, in plain or in shared memory.
 *
 * Node fixes a socket's buffer before the next one is known, so each wake-up lands in a small parking
 * buffer. When that came full there is more waiting, and the same turn reads it from the
 * (non-blocking) descriptor straight into the caller's buffer: a large read copies 32 KiB of it.
 */
export class SocketReader implements ConnectionReader {
  readonly onread: OnReadOpts;
  readonly #parking: Buffer = Buffer.allocUnsafeSlow(PARKING_BYTES);
  #parkedStart = 0;
  #parkedEnd = 0;
  #socket: Socket | undefined;
  #into: Uint8Array | undefined;
  #resolve: (count: number) => void = () => {};
  #reject: (reason: Error) => void = () => {};
  #onWaiting: () => void = () => {};
  #ended = false;
  #failure: Error | undefined;
  readonly #describe: (error: unknown) => Error;

  /** @param describe turns a system error into the one that readers get */
  constructor(describe: (error: unknown) => Error) {
    this.#describe = describe;
    this.onread = {
      buffer: () => this.#parking,
      callback: (count: number) => this.#arrived(count),
    };
  }

  /** Starts to read from a socket that was made with {@link SocketReader.onread}. */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket.once('end', () => this.#finish());
  }

  /** Implements Transport.read. */
  read(into: Uint8Array): Promise<number> {
    if (this.#into !== undefined) {
      return Promise.reject(new TransportError('BUSY', 'A read is under way already'));
    }
    if (this.#parkedStart < this.#parkedEnd) return Promise.resolve(this.#take(into));
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ended || into.length === 0) return Promise.resolve(0);
    return new Promise((resolve, reject) => {
      this.#into = into;
      this.#resolve = resolve;
      this.#reject = reject;
      this.#socket?.resume();
    });
  }

  /** Resolves when bytes wait that no read has asked for. */
  whenWaiting(): Promise<void> {
    if (this.#parkedStart < this.#parkedEnd) return Promise.resolve();
    if (this.#into === undefined) this.#socket?.resume();
    return new Promise((resolve) => {
      this.#onWaiting = resolve;
    });
  }

  /** Rejects the read under way and those to come, after the bytes that have arrived. */
  fail(reason: Error): void {
    if (this.#ended) return;
    this.#failure ??= reason;
    if (this.#into === undefined) return;
    this.#into = undefined;
    this.#reject(this.#failure);
  }

  /** Rejects as {@link SocketReader.fail} does, and drops the bytes that have arrived. */
  destroy(reason: Error): void {
    this.#parkedStart = this.#parkedEnd = 0;
    this.fail(reason);
  }

  /** Takes what has arrived and nobody has read. */
  takeUnread(): Uint8Array {
    const unread = this.#parking.subarray(this.#parkedStart, this.#parkedEnd);
    this.#parkedStart = this.#parkedEnd = 0;
    return unread;
  }

  /** @returns whether to listen on: there is room, and what comes next waits for another wake-up */
  #arrived(count: number): boolean {
    this.#parkedStart = 0;
    this.#parkedEnd = count;
    const into = this.#into;
    if (into === undefined) {
      this.#onWaiting();
      return false;
    }
    this.#into = undefined;
    let length = this.#take(into);
    if (count === PARKING_BYTES && length < into.length) length += this.#readStraight(into, length);
    this.#resolve(length);
    return count < PARKING_BYTES && this.#parkedStart === this.#parkedEnd;
  }

  #take(into: Uint8Array): number {
    const length = Math.min(into.length, this.#parkedEnd - this.#parkedStart);
    into.set(this.#parking.subarray(this.#parkedStart, this.#parkedStart + length));
    this.#parkedStart += length;
    return length;
  }

  #readStraight(into: Uint8Array, at: number): number {
    // The descriptor is no public property; without it the parking buffer alone serves.
    const { fd } = (this.#socket as unknown as { _handle?: { fd?: number } })._handle ?? {};
    if (fd === undefined || fd < 0) return 0;
    try {
      return readSync(fd, into, at, into.length - at, null);
    } catch (error) {
      // The system reports an error once: it is kept for the next read.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') this.#failure = this.#describe(error);
      return 0;
    }
  }

  #finish(): void {
    if (this.#failure === undefined) this.#ended = true;
    if (this.#into === undefined) return;
    this.#into = undefined;
    if (this.#failure === undefined) this.#resolve(0);
    else this.#reject(this.#failure);
  }
}
