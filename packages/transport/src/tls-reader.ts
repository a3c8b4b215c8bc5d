import type { Socket } from 'node:net';
import type { ConnectionReader } from './socket-transport.ts';
import { TransportError } from './transport-error.ts';

const NOTHING = new Uint8Array(0);

/** Reads a TLS connection into buffers that are handed in one at a time; what it decrypts is copied once. */
export class TlsReader implements ConnectionReader {
  #socket: Socket | undefined;
  #rest: Uint8Array = NOTHING;
  #into: Uint8Array | undefined;
  #filled = 0;
  #resolve: (count: number) => void = () => {};
  #reject: (reason: Error) => void = () => {};
  #ended = false;
  #failure: Error | undefined;

  /** Starts to read from a connection whose handshake is over. */
  attach(socket: Socket): void {
    this.#socket = socket;
    socket.pause();
    socket.on('data', (chunk: Buffer) => this.#arrived(chunk));
    socket.once('end', () => this.#finish());
    // A paused stream reads ahead; what came before an error must not be lost with it.
    socket.once('error', () => this.#rescue(socket));
  }

  /** Implements Transport.read. */
  read(into: Uint8Array): Promise<number> {
    if (this.#into !== undefined) {
      return Promise.reject(new TransportError('BUSY', 'A read is under way already'));
    }
    if (this.#rest.length > 0) {
      const count = Math.min(into.length, this.#rest.length);
      into.set(this.#rest.subarray(0, count));
      this.#rest = this.#rest.subarray(count);
      return Promise.resolve(count);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#ended || into.length === 0) return Promise.resolve(0);
    return new Promise((resolve, reject) => {
      this.#into = into;
      this.#filled = 0;
      this.#resolve = resolve;
      this.#reject = reject;
      this.#socket?.resume();
    });
  }

  /** Rejects the read under way and those to come, after the bytes that have arrived. */
  fail(reason: Error): void {
    if (this.#ended) return;
    this.#failure ??= reason;
    if (this.#into === undefined || this.#filled > 0) return;
    this.#into = undefined;
    this.#reject(this.#failure);
  }

  /** Rejects as {@link TlsReader.fail} does, and drops the bytes that have arrived. */
  destroy(reason: Error): void {
    this.#rest = NOTHING;
    this.#filled = 0;
    this.fail(reason);
  }

  #arrived(chunk: Uint8Array): void {
    const into = this.#into;
    if (into === undefined) {
      this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
      return;
    }
    const count = Math.min(into.length - this.#filled, chunk.length);
    into.set(chunk.subarray(0, count), this.#filled);
    // A record is 16 KiB at most, and several arrive in one turn: a read takes them together.
    if (this.#filled === 0) setImmediate(() => this.#settle());
    this.#filled += count;
    if (count < chunk.length) {
      const rest = chunk.subarray(count);
      this.#rest = this.#rest.length === 0 ? rest : Buffer.concat([this.#rest, rest]);
    }
    if (this.#filled === into.length) this.#socket?.pause();
  }

  #rescue(socket: Socket): void {
    for (;;) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      this.#arrived(chunk);
    }
  }

  #settle(): void {
    if (this.#into === undefined || this.#filled === 0) return;
    this.#socket?.pause();
    this.#into = undefined;
    this.#resolve(this.#filled);
  }

  #finish(): void {
    if (this.#failure === undefined) this.#ended = true;
    if (this.#into === undefined || this.#filled > 0) return;
    this.#into = undefined;
    if (this.#failure === undefined) this.#resolve(0);
    else this.#reject(this.#failure);
  }
}
