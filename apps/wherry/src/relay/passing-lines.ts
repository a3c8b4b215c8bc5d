import type { ReturnPathMessage } from '@wherry/stream';
import { createLogUpdate } from 'log-update';
import { escapeControls } from '../inspect/output.ts';
import { formatBytes, formatCount, formatMs } from '../sizes.ts';
import type { Link } from './link.ts';
import type { Relay, RelayListener } from './relay.ts';
import type { Phase } from './source-channel.ts';

const LIVE_EVERY_MS = 100;
const PLAIN_EVERY_MS = 3_000;

/**
 * Prints what passes as it goes by: connections, phases and messages; on a terminal also sections, above a
 * live line with the rate.
 */
export class PassingLines implements RelayListener {
  readonly #output: NodeJS.WriteStream;
  readonly #live: ReturnType<typeof createLogUpdate> | undefined;
  readonly #startMs = performance.now();
  #timer: NodeJS.Timeout | undefined;
  #last = { atMs: this.#startMs, bytes: 0 };

  constructor(output: NodeJS.WriteStream) {
    this.#output = output;
    this.#live = output.isTTY && output.rows > 0 ? createLogUpdate(output) : undefined;
  }

  /** Begins to show the rate. */
  start(relay: Relay): void {
    const everyMs = this.#live === undefined ? PLAIN_EVERY_MS : LIVE_EVERY_MS;
    this.#timer = setInterval(() => this.#showRate(relay), everyMs);
  }

  /** Stops; the live line is removed. */
  stop(): void {
    clearInterval(this.#timer);
    this.#live?.clear();
    this.#live?.done();
  }

  onKnown(link: Link): void {
    this.#line(nameOf(link), 'connected');
  }

  onPhase(link: Link, phase: Phase, offset: number): void {
    this.#line(nameOf(link), `${phase} at ${formatCount(offset)}`);
  }

  onSection(link: Link, kind: 'start' | 'part' | 'end' | 'full', idstr: string): void {
    if (this.#live === undefined || kind === 'part') return;
    this.#line(nameOf(link), `  ${idstr}${kind === 'full' ? '' : ` (${kind})`}`);
  }

  onMessage(link: Link, message: ReturnPathMessage): void {
    const { name } = message;
    // Requests are many: the first of each kind tells that they come.
    if (name !== 'shut' && link.returnPath.counts[name] !== 1) return;
    const value = name === 'shut' ? ` ${message.status}` : '';
    this.#line(nameOf(link), `return path: ${name}${value}`);
  }

  onCut(link: Link): void {
    this.#line(nameOf(link), 'cut');
  }

  onEnd(link: Link): void {
    const end = link.end instanceof Error ? `lost: ${link.end.message}` : link.end;
    if (end !== 'cut') this.#line(nameOf(link), `${end}`);
  }

  onRefuse(reason: string): void {
    this.#line('relay', reason);
  }

  #line(who: string, what: string): void {
    const time = formatMs(performance.now() - this.#startMs).padStart(8);
    this.#live?.clear();
    this.#output.write(`${time}  ${escapeControls(`${who.padEnd(10)}  ${what}`)}\n`);
  }

  #showRate({ links }: Relay): void {
    const atMs = performance.now();
    const bytes = links.reduce((sum, { forwardBytes }) => sum + forwardBytes, 0);
    const rate = ((bytes - this.#last.bytes) / (atMs - this.#last.atMs)) * 1000;
    const isQuiet = bytes === this.#last.bytes;
    this.#last = { atMs, bytes };
    const text = `${formatBytes(bytes)} passed  ${(rate / 2 ** 20).toFixed(0)} MiB/s`;
    if (this.#live !== undefined) this.#live(text);
    else if (!isQuiet) this.#line('relay', text);
  }
}

function nameOf(link: Link): string {
  return link.name ?? link.kind;
}
