import { createLogUpdate } from 'log-update';
import { formatBytes, formatCount } from '../sizes.ts';
import type { Snapshot } from './orchestrate.ts';

const PLAIN_EVERY_MS = 1000;
/** From here on there is room for a wide bar and aligned columns. */
const WIDE_COLUMNS = 110;

/** Shows how a migration goes: one live line a side on a terminal, plain lines elsewhere. */
export class Progress {
  readonly #stream: NodeJS.WriteStream;
  readonly #live: ReturnType<typeof createLogUpdate> | undefined;
  #shownAt = Number.NEGATIVE_INFINITY;
  #shownStatus = '';
  #faults = { count: 0, atMs: 0, perSecond: 0 };

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
    // A terminal that says it has no rows is none to draw on.
    this.#live = stream.isTTY && stream.rows > 0 ? createLogUpdate(stream) : undefined;
  }

  show(snapshot: Snapshot): void {
    const width =
      this.#live === undefined ? WIDE_COLUMNS : Math.max(20, (this.#stream.columns ?? 80) - 1);
    const isWide = width >= WIDE_COLUMNS;
    const lines = [sourceLine(snapshot, isWide), this.#destinationLine(snapshot, isWide)];
    if (snapshot.convergenceProblem !== undefined) lines.push(snapshot.convergenceProblem);
    if (this.#live !== undefined) {
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

  #destinationLine(
    { destination, destinationGuest, elapsedMs }: Snapshot,
    isWide: boolean,
  ): string {
    const parts = [`destination ${pad(destination.status ?? 'waiting', isWide)}`];
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

function sourceLine({ source }: Snapshot, isWide: boolean): string {
  const { ram, status = 'none' } = source;
  if (ram === undefined) return `source      ${status}`;
  const [total, remaining] = [Number(ram.total), Number(ram.remaining)];
  const parts = [
    `source      ${pad(status, isWide)}`,
    bar(total === 0 ? 1 : 1 - remaining / total, isWide),
    `round ${ram['dirty-sync-count']}`,
    `${((ram.mbps * 1e6) / 8 / 2 ** 20).toFixed(0)} MiB/s`,
    `${formatBytes(remaining)} left`,
  ];
  // In postcopy the guest dirties no page here any more.
  if (status !== 'postcopy-active') {
    parts.push(`${formatCount(Number(ram['dirty-pages-rate']))} dirty pages/s`);
  }
  const { 'cpu-throttle-percentage': throttle } = source;
  if (throttle !== undefined) parts.push(`vCPUs sleep ${throttle} %`);
  return parts.join('  ');
}

function pad(status: string, isWide: boolean): string {
  return isWide ? status.padEnd('postcopy-active'.length) : status;
}

/** Draws a share from 0 to 1 as a bar. */
export function bar(share: number, isWide: boolean): string {
  const width = isWide ? 20 : 6;
  const full = Math.round(share * width);
  const percent = isWide ? ` ${(share * 100).toFixed(0).padStart(3)}%` : '';
  return `[${'#'.repeat(full)}${'.'.repeat(width - full)}]${percent}`;
}
