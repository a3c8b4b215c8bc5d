import { setTimeout as sleep } from 'node:timers/promises';
import type { Transport } from '@wherry/migration';

/** What may wait in one direction of a connection while it is delayed. */
const MAX_DELAYED_BYTES = 16 * 1024 * 1024;
/** A limited direction is written in pieces of this share of a second. */
const PIECE_SECONDS = 0.02;
const MIN_PIECE_BYTES = 1024;

/** Spreads bytes evenly over time; several connections may share one. */
export class Pace {
  readonly #bytesPerMs: number;
  #freeAtMs = 0;

  constructor(bytesPerSecond: number) {
    this.#bytesPerMs = bytesPerSecond / 1000;
  }

  /** The most that should be taken at once. */
  get pieceBytes(): number {
    return Math.max(MIN_PIECE_BYTES, Math.floor(this.#bytesPerMs * 1000 * PIECE_SECONDS));
  }

  /** Waits for the turn of `count` bytes. @throws the signal's AbortError */
  async take(count: number, signal: AbortSignal): Promise<void> {
    const now = performance.now();
    const turnMs = Math.max(now, this.#freeAtMs);
    this.#freeAtMs = turnMs + count / this.#bytesPerMs;
    if (turnMs > now) await sleep(turnMs - now, undefined, { signal });
  }
}

/** How bytes leave the relay in one direction. */
export interface OutletOptions {
  readonly pace?: Pace | undefined;
  /** How long after its arrival a byte leaves. */
  readonly delayMs?: number | undefined;
  /** Ends all waiting. */
  readonly signal: AbortSignal;
}

/** The way out of the relay in one direction of a connection: paced and delayed. */
export class Outlet {
  readonly #transport: Transport;
  readonly #options: OutletOptions;
  readonly #delayMs: number;
  #delayedBytes = 0;
  /** What was delayed, sent one after the other. */
  #tail: Promise<void> = Promise.resolve();
  #onRoom: () => void = () => {};

  constructor(transport: Transport, options: OutletOptions) {
    this.#transport = transport;
    this.#options = options;
    this.#delayMs = options.delayMs ?? 0;
  }

  /** Writes bytes; resolves when the buffer may be used again. @throws what writing to the transport throws */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#delayMs === 0) return this.#send(bytes);
    this.#delay(bytes.slice());
    if (this.#delayedBytes < MAX_DELAYED_BYTES) return;
    const room = Promise.withResolvers<void>();
    this.#onRoom = room.resolve;
    await Promise.race([room.promise, this.#tail]);
  }

  /** Waits until all has been written. @throws as {@link Outlet.write} */
  flush(): Promise<void> {
    return this.#tail;
  }

  /** Ends the direction behind all that was written. @throws as {@link Outlet.write} */
  async end(): Promise<void> {
    await this.#tail;
    await this.#transport.end();
  }

  #delay(bytes: Uint8Array): void {
    const dueMs = performance.now() + this.#delayMs;
    this.#delayedBytes += bytes.length;
    this.#tail = this.#tail.then(async () => {
      const waitMs = dueMs - performance.now();
      if (waitMs > 0) await sleep(waitMs, undefined, { signal: this.#options.signal });
      await this.#send(bytes);
      this.#delayedBytes -= bytes.length;
      if (this.#delayedBytes < MAX_DELAYED_BYTES) this.#onRoom();
    });
    this.#tail.catch(() => {}); // the next write or flush reports it
  }

  async #send(bytes: Uint8Array): Promise<void> {
    const { pace, signal } = this.#options;
    if (pace === undefined) return this.#transport.write(bytes);
    const { pieceBytes } = pace;
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      await pace.take(piece.length, signal);
      await this.#transport.write(piece);
    }
  }
}
