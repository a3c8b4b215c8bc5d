import { setImmediate } from 'node:timers/promises';
import { ReadProgress } from '../inspect/read-progress.ts';

/** How much is written in one go: signals wait so long. */
const TURN_BYTES = 16 * 1024 * 1024;

/** Shows how far a conversion is, and lets signals in. */
export class Pace implements Disposable {
  readonly #totalBytes: number;
  readonly #signal: AbortSignal;
  readonly #progress: ReadProgress | undefined;
  #sinceTurn = 0;
  /** Bytes of RAM that were written. */
  doneBytes = 0;

  constructor(name: string, totalBytes: number, signal: AbortSignal, isQuiet: boolean) {
    this.#totalBytes = totalBytes;
    this.#signal = signal;
    this.#progress = isQuiet ? undefined : new ReadProgress(process.stderr, name);
  }

  /** Hears of bytes that were written. @throws the signal's reason */
  async wrote(bytes: number): Promise<void> {
    this.doneBytes += bytes;
    this.#sinceTurn += bytes;
    this.#progress?.show(this.doneBytes, this.#totalBytes);
    if (this.#sinceTurn < TURN_BYTES) return;
    this.#sinceTurn = 0;
    await setImmediate();
    this.#signal.throwIfAborted();
  }

  [Symbol.dispose](): void {
    this.#progress?.done();
  }
}
