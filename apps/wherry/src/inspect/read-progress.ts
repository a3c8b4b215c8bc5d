import { formatBytes } from '../sizes.ts';

/** What is read sooner than this needs no bar. */
const FIRST_AFTER_MS = 500;
const EVERY_MS = 100;

/** Shows on a terminal how far a large input was read. */
export class ReadProgress {
  readonly #stream: NodeJS.WriteStream;
  readonly #name: string;
  readonly #startMs: number = performance.now();
  #nextMs: number;
  #isDrawn = false;

  constructor(stream: NodeJS.WriteStream, name: string) {
    this.#stream = stream;
    this.#name = name;
    // A terminal that says it has no rows is none to draw on.
    const isTerminal = stream.isTTY && stream.rows > 0;
    this.#nextMs = isTerminal ? this.#startMs + FIRST_AFTER_MS : Number.POSITIVE_INFINITY;
  }

  show(offset: number, sizeBytes: number | undefined): void {
    const nowMs = performance.now();
    if (nowMs < this.#nextMs) return;
    this.#nextMs = nowMs + EVERY_MS;
    const perSecond = formatBytes(offset / ((nowMs - this.#startMs) / 1000));
    const read = `${formatBytes(offset)}${sizeBytes === undefined ? '' : ` of ${formatBytes(sizeBytes)}`}, ${perSecond}/s`;
    const columns = (this.#stream.columns ?? 80) - 1;
    const share = sizeBytes === undefined || sizeBytes === 0 ? undefined : offset / sizeBytes;
    const bar =
      share === undefined ? '' : `[${'#'.repeat(Math.round(share * 10)).padEnd(10, '.')}] `;
    this.#draw(`${bar}${read}  ${this.#name}`.slice(0, columns));
  }

  /** Takes the bar away. */
  done(): void {
    if (this.#isDrawn) this.#draw('');
    this.#nextMs = Number.POSITIVE_INFINITY;
  }

  /** Replaces the line; one line needs no library, which would take longer to load than most streams. */
  #draw(line: string): void {
    this.#isDrawn = true;
    this.#stream.write(`\r${line}\u001b[K`);
  }
}
