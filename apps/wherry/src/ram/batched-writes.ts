import { readSync, writeSync } from 'node:fs';

const BATCH_BYTES = 1024 * 1024;

/** Gathers small writes that follow one another in a file, and writes them in one go. */
export class BatchedWrites {
  readonly #batch: Buffer = Buffer.allocUnsafe(BATCH_BYTES);
  #fd = -1;
  #at = 0;
  #length = 0;
  readonly #toError: (fd: number, cause: unknown) => unknown;

  /** @param toError makes what is thrown when a write to a file fails */
  constructor(toError: (fd: number, cause: unknown) => unknown = (_, cause) => cause) {
    this.#toError = toError;
  }

  /** Writes bytes at an offset of a file; they may be changed afterwards. */
  write(fd: number, bytes: Uint8Array, at: number): void {
    for (let done = 0; done < bytes.length; ) {
      const isNext = fd === this.#fd && at + done === this.#at + this.#length;
      if (!isNext || this.#length === BATCH_BYTES) {
        this.flush();
        this.#fd = fd;
        this.#at = at + done;
      }
      const piece = bytes.subarray(done, done + BATCH_BYTES - this.#length);
      this.#batch.set(piece, this.#length);
      this.#length += piece.length;
      done += piece.length;
    }
  }

  /** Reads bytes that were written, to the end of `into` or of the file. @returns how many */
  read(fd: number, into: Uint8Array, at: number): number {
    this.flush();
    for (let done = 0; ; ) {
      const count = readSync(fd, into, done, into.length - done, at + done);
      done += count;
      if (count === 0 || done === into.length) return done;
    }
  }

  /** Hands everything to the system. */
  flush(): void {
    const length = this.#length;
    try {
      for (let done = 0; done < length; ) {
        done += writeSync(this.#fd, this.#batch, done, length - done, this.#at + done);
      }
    } catch (cause) {
      throw this.#toError(this.#fd, cause); // the batch stays: once there is room the write can be done
    }
    this.#length = 0;
  }
}
