import { createLogUpdate } from 'log-update';
import { formatBytes, formatMs } from '../sizes.ts';
import type { StreamReceiver } from './receive-stream.ts';

const LIVE_EVERY_MS = 100;
const PLAIN_EVERY_MS = 3_000;

/** Shows how a stream comes in: one live line on a terminal, a plain line every few seconds elsewhere. */
export class ReceiveProgress {
  readonly #receiver: StreamReceiver;
  readonly #output: NodeJS.WriteStream;
  readonly #live: ReturnType<typeof createLogUpdate> | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #startMs = performance.now();
  #last = { atMs: this.#startMs, bytes: 0 };

  constructor(receiver: StreamReceiver, output: NodeJS.WriteStream) {
    this.#receiver = receiver;
    this.#output = output;
    this.#live = output.isTTY ? createLogUpdate(output) : undefined;
    const everyMs = this.#live === undefined ? PLAIN_EVERY_MS : LIVE_EVERY_MS;
    this.#timer = setInterval(() => this.#show(), everyMs);
  }

  /** Stops; the live line is removed. */
  stop(): void {
    clearInterval(this.#timer);
    this.#live?.clear();
    this.#live?.done();
  }

  #show(): void {
    const now = performance.now();
    const bytes = this.#receiver.receivedBytes;
    const rate = ((bytes - this.#last.bytes) / (now - this.#last.atMs)) * 1000;
    this.#last = { atMs: now, bytes };
    const line = [
      phaseOf(this.#receiver).padEnd(8),
      `${formatBytes(bytes)} received`,
      `${(rate / 2 ** 20).toFixed(0)} MiB/s`,
      formatMs(now - this.#startMs),
    ].join('  ');
    if (this.#live === undefined) this.#output.write(`${line}\n`);
    else this.#live(line);
  }
}

function phaseOf({ walk: { model } }: StreamReceiver): string {
  if (model.eofOffset !== undefined) return 'end';
  if (model.devices.length > 0) return 'devices';
  return model.ram === undefined ? 'setup' : 'ram';
}
