import { formatBytes } from '../sizes.ts';
import type { MigrateOptions } from './migrate-options.ts';
import type { MigrationReport } from './peer.ts';

/** Rounds without progress before people are told: what remains is seen anywhere in a round, so it varies. */
const TELL_ROUNDS = 5;
/** What counts as progress: less than this share of the least that remained before. */
const PROGRESS = 0.9;
/** How long a throttled guest is given to show an effect. */
const THROTTLE_EFFECT_MS = 10_000;

/** Tells from `query-migrate` whether the rounds of a precopy lead to an end. */
export class Convergence {
  readonly #options: MigrateOptions;
  #round = 0;
  #remainingBytes = Number.POSITIVE_INFINITY;
  #isInVain = false;
  #leastBytes = Number.POSITIVE_INFINITY;
  #roundsWithoutProgress = 0;
  #throttledAt = 0;
  #throttle = 0;
  #mostThrottle = 0;
  #problem: string | undefined;

  constructor(options: MigrateOptions) {
    this.#options = options;
  }

  /** Whether the last round left no less than the one before. */
  get isInVain(): boolean {
    return this.#isInVain;
  }

  /** How much the vCPUs slept at most, in percent. */
  get mostThrottle(): number {
    return this.#mostThrottle;
  }

  /** Says why precopy leads to no end, and what would; undefined where it may lead to one. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Takes what the source says into account. */
  look(elapsedMs: number, report: MigrationReport): void {
    const { status, ram } = report;
    const throttle = Number(report['cpu-throttle-percentage'] ?? 0);
    if (throttle !== this.#throttle) this.#throttledAt = elapsedMs;
    this.#throttle = throttle;
    this.#mostThrottle = Math.max(this.#mostThrottle, throttle);
    if (ram === undefined) return;
    if (status !== 'active') {
      if (status !== 'cancelling' && status !== 'cancelled') this.#problem = undefined;
      return;
    }
    const round = Number(ram['dirty-sync-count']);
    if (round === this.#round) return;
    this.#round = round;
    const remainingBytes = Number(ram.remaining);
    this.#isInVain = round > 2 && remainingBytes >= this.#remainingBytes;
    this.#remainingBytes = remainingBytes;
    if (remainingBytes < this.#leastBytes * PROGRESS) {
      this.#leastBytes = remainingBytes;
      this.#roundsWithoutProgress = 0;
      this.#problem = undefined;
      return;
    }
    this.#roundsWithoutProgress += 1;
    const mayHelp = throttle > 0 && elapsedMs - this.#throttledAt < THROTTLE_EFFECT_MS;
    if (this.#roundsWithoutProgress >= TELL_ROUNDS && !mayHelp) this.#problem = this.#describe(ram);
  }

  #describe(ram: NonNullable<MigrationReport['ram']>): string {
    const dirtyBytes = Number(ram['dirty-pages-rate']) * Number(ram['page-size']);
    const { autoPostcopy, postcopy, autoConverge, xbzrle } = this.#options;
    const ways = [
      ...(autoPostcopy === true || postcopy === true ? [] : ['--auto-postcopy']),
      ...(autoConverge === true ? [] : ['--auto-converge']),
      ...(xbzrle === true ? [] : ['--xbzrle']),
      'more --max-bandwidth',
      'a longer --downtime-limit',
    ];
    return `precopy does not converge: the guest dirties ${formatBytes(dirtyBytes)}/s, ${formatBytes((ram.mbps * 1e6) / 8)}/s are sent, ${formatBytes(Number(ram.remaining))} remain; what may help: ${ways.join(', ')}`;
  }
}
