import { createLogUpdate } from 'log-update';
import { bar } from '../migrate/progress.ts';
import { formatBytes, formatMs } from '../sizes.ts';

const LIVE_EVERY_MS = 100;
const PLAIN_EVERY_MS = 3_000;

/** How far a transfer of a guest is. */
export interface Transfer {
  readonly phase: string;
  /** Bytes of RAM that are done, of all. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly notes?: readonly string[];
}

/** Shows how a transfer goes: one live line on a terminal, a plain line every few seconds elsewhere. */
export class TransferProgress implements Disposable {
  readonly #look: () => Transfer | undefined;
  readonly #output: NodeJS.WriteStream;
  readonly #live: ReturnType<typeof createLogUpdate> | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  #last = { atMs: this.#startMs, bytes: 0 };

  /** @param look tells how far it is; undefined while there is nothing to tell */
  constructor(look: () => Transfer | undefined, output: NodeJS.WriteStream) {
    this.#look = look;
    this.#output = output;
    this.#live = output.isTTY ? createLogUpdate(output) : undefined;
    const everyMs = this.#live === undefined ? PLAIN_EVERY_MS : LIVE_EVERY_MS;
    this.#timer = setInterval(() => this.#show(), everyMs);
  }

  /** Stops; the live line is removed. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#live?.clear();
    this.#live?.done();
  }

  #show(): void {
    const transfer = this.#look();
    if (transfer === undefined) return;
    const now = performance.now();
    const { phase, doneBytes, totalBytes, notes = [] } = transfer;
    const rate = Math.max(0, ((doneBytes - this.#last.bytes) / (now - this.#last.atMs)) * 1000);
    this.#last = { atMs: now, bytes: doneBytes };
    const line = [
      phase.padEnd('postcopy-active'.length),
      bar(totalBytes === 0 ? 1 : doneBytes / totalBytes, (this.#output.columns ?? 120) >= 110),
      `${(rate / 2 ** 20).toFixed(0)} MiB/s`,
      `${formatBytes(totalBytes - doneBytes)} left`,
      ...notes,
      formatMs(now - this.#startMs),
    ].join('  ');
    if (this.#live === undefined) this.#output.write(`${line}\n`);
    else this.#live(line.slice(0, Math.max(20, (this.#output.columns ?? 80) - 1)));
  }
}
