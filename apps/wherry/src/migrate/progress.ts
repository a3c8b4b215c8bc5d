import { createLogUpdate } from 'log-update';
import { formatBytes, formatCount } from '../sizes.ts';
import type { Snapshot } from './orchestrate.ts';

const PLAIN_EVERY_MS = 1000;
const BAR_WIDTH = 20;

/** Shows how a migration goes: one live line a side on a terminal, plain lines elsewhere. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #live: ReturnType<typeof createLogUpdate> | undefined;
  #shownAt = Number.NEGATIVE_INFINITY;
  #shownStatus = '';
  #faults = { count: 0, atMs: 0, perSecond: 0 };

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    this.#live = stream.isTTY ? createLogUpdate(stream) : undefined;
  }

  show(snapshot: Snapshot): void {
    const lines = [this.#sourceLine(snapshot), this.#destinationLine(snapshot)];
    if (this.#live !== undefined) {
      const width = Math.max(20, (this.#stream.columns ?? 80) - 1);
      this.#live(
        lines
          .map((line) => (line.length > width ? `${line.slice(0, width - 1)}…` : line))
          .join('\n'),
      );
      return;
    }
    const status = `${snapshot.source.status} ${snapshot.destination.status}`;
    if (status === this.#shownStatus && snapshot.elapsedMs - this.#shownAt < PLAIN_EVERY_MS) return;
    this.#shownStatus = status;
    this.#shownAt = snapshot.elapsedMs;
    this.#stream.write(`${lines.join('\n')}\n`);
  }

  /** Leaves the last state on the screen. */
  done(): void {
    this.#live?.done();
  }

  #sourceLine({ source }: Snapshot): string {
    const { ram, status = 'none' } = source;
    if (ram === undefined) return `source      ${status}`;
    const [total, remaining] = [Number(ram.total), Number(ram.remaining)];
    const share = total === 0 ? 1 : 1 - remaining / total;
    return [
      `source      ${status.padEnd(15)}`,
      `round ${ram['dirty-sync-count']}`,
      bar(share),
      `${((ram.mbps * 1e6) / 8 / 2 ** 20).toFixed(0)} MiB/s`,
      `${formatBytes(remaining)} left`,
      `${formatCount(Number(ram['dirty-pages-rate']))} dirty pages/s`,
    ].join('  ');
  }

  #destinationLine({ destination, destinationGuest, elapsedMs }: Snapshot): string {
    const { status = 'waiting' } = destination;
    const parts = [`destination ${status.padEnd(15)}`];
    if (destinationGuest !== undefined) {
      const count = Number(destinationGuest.faults.count);
      const seconds = (elapsedMs - this.#faults.atMs) / 1000;
      if (seconds > 0.2) {
        this.#faults = {
          count,
          atMs: elapsedMs,
          perSecond: (count - this.#faults.count) / seconds,
        };
      }
      const pages =
        Number(destinationGuest['normal-pages-received']) +
        Number(destinationGuest['zero-pages-received']);
      parts.push(
        `${formatCount(pages)} pages received`,
        `${formatCount(this.#faults.perSecond)} faults/s`,
      );
    }
    return parts.join('  ');
  }
}

function bar(share: number): string {
  const full = Math.round(share * BAR_WIDTH);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_WIDTH - full)}] ${(share * 100).toFixed(0).padStart(3)}%`;
}
