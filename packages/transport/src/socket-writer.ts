import type { Writable } from 'node:stream';
import { TransportError } from './transport-error.ts';

/** Writes whole buffers to a socket, one at a time, and says when each may be used again. */
export class SocketWriter {
  readonly #socket: Pick<Writable, 'write' | 'end'>;
  #reject: ((reason: Error) => void) | undefined;
  #failure: Error | undefined;
  #ended = false;
  readonly #describe: (error: unknown) => Error;

  /** @param describe turns a system error into the one that writers get */
  constructor(socket: Pick<Writable, 'write' | 'end'>, describe: (error: unknown) => Error) {
    this.#socket = socket;
    this.#describe = describe;
  }

  /** Implements Transport.write. */
  write(bytes: Uint8Array): Promise<void> {
    if (this.#ended) return Promise.reject(ended());
    if (bytes.length === 0 && this.#failure === undefined) return Promise.resolve();
    return this.#run((done) => this.#socket.write(bytes, done));
  }

  /** Implements Transport.end. */
  end(): Promise<void> {
    if (this.#ended) return Promise.resolve();
    this.#ended = true;
    return this.#run((done) => this.#socket.end(done));
  }

  /** Rejects the write under way and those to come. */
  fail(reason: Error): void {
    this.#failure ??= reason;
    this.#reject?.(this.#failure);
    this.#reject = undefined;
  }

  #run(start: (done: (error?: Error | null) => void) => void): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#reject !== undefined) {
      return Promise.reject(new TransportError('BUSY', 'A write is under way already'));
    }
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      start((error) => {
        if (this.#reject !== reject) return; // it was rejected by fail()
        if (error) this.fail(this.#describe(error));
        else {
          this.#reject = undefined;
          resolve();
        }
      });
    });
  }
}

function ended(): TransportError {
  return new TransportError('UNSUPPORTED', 'A write came after the end of its direction');
}
