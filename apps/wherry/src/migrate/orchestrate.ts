import { setTimeout as sleep } from 'node:timers/promises';
import { type Comparison, compareHandover } from './compare.ts';
import type { MigrateOptions } from './migrate-options.ts';
import { type GuestReport, isRefusal, type MigrationReport, type Peer } from './peer.ts';

const POLL_MS = 100;
/** How long the destination may take to say how it ended once the source has. */
const SETTLE_MS = 10_000;

/** What both sides said at one moment. */
export interface Snapshot {
  readonly elapsedMs: number;
  readonly source: MigrationReport;
  readonly destination: MigrationReport;
  /** Undefined for a real QEMU. */
  readonly destinationGuest: GuestReport | undefined;
}

/** How a migration ended. */
export interface Outcome {
  readonly status: 'completed' | 'failed' | 'cancelled' | 'paused';
  readonly source: MigrationReport;
  readonly destination: MigrationReport;
  readonly elapsedMs: number;
  /** What the vCPUs saw, both sides added; undefined for real QEMUs. */
  readonly witness:
    | {
        readonly writes: number;
        readonly checks: number;
        readonly violations: number;
        readonly firstViolations: readonly string[];
      }
    | undefined;
  readonly destinationGuest: GuestReport | undefined;
  readonly comparison: Comparison | undefined;
  /** Why it did not complete, and where the guest is now. */
  readonly problem: string | undefined;
}

/**
 * Drives a migration between two hosts through QMP alone.
 *
 * @param signal cancels the migration: the guest goes on at the source
 * @throws QmpCommandError when a host refuses to begin; nothing has been changed then but its settings
 */
export async function orchestrate(
  source: Peer,
  destination: Peer,
  uri: string,
  options: MigrateOptions,
  onProgress: (snapshot: Snapshot) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const startedAt = performance.now();
  await prepare(source, destination, options);
  await destination.listen(uri);
  const target = await targetUri(destination, uri);
  await source.client.execute('migrate', { uri: target });
  const watch = new Watch(source, destination, options, onProgress, startedAt);
  await watch.untilSourceEnds(signal);
  return watch.conclude();
}

async function prepare(source: Peer, destination: Peer, options: MigrateOptions): Promise<void> {
  const postcopy = options.postcopy === true || options.autoPostcopy === true;
  await source.setCapabilities({
    events: true,
    'return-path': options.returnPath,
    'postcopy-ram': postcopy,
  });
  await destination.setCapabilities({ events: true, 'postcopy-ram': postcopy });
  const { maxBandwidth, maxPostcopyBandwidth, downtimeLimit } = options;
  await source.client.execute('migrate-set-parameters', {
    ...(maxBandwidth === undefined ? {} : { 'max-bandwidth': maxBandwidth }),
    ...(maxPostcopyBandwidth === undefined
      ? {}
      : { 'max-postcopy-bandwidth': maxPostcopyBandwidth }),
    ...(downtimeLimit === undefined ? {} : { 'downtime-limit': downtimeLimit }),
  });
}

/** With port 0 the destination chose a port: it tells which. */
async function targetUri(destination: Peer, uri: string): Promise<string> {
  if (!/^tcp:.*:0$/.test(uri)) return uri;
  const { 'socket-address': addresses } = await destination.migration();
  const inet = addresses?.find((address) => address.type === 'inet');
  if (inet === undefined || inet.type !== 'inet') return uri;
  return `tcp:${inet.host.includes(':') ? `[${inet.host}]` : inet.host}:${inet.port}`;
}

class Watch {
  readonly #source: Peer;
  readonly #destination: Peer;
  readonly #options: MigrateOptions;
  readonly #onProgress: (snapshot: Snapshot) => void;
  readonly #startedAt: number;
  #lastSource: MigrationReport = {};
  #lastDestination: MigrationReport = {};
  #destinationGone: string | undefined;
  #sourceGone: string | undefined;
  #postcopyStarted = false;
  #pass = 0;
  #remainingAtPass = Number.POSITIVE_INFINITY;

  constructor(
    source: Peer,
    destination: Peer,
    options: MigrateOptions,
    onProgress: (snapshot: Snapshot) => void,
    startedAt: number,
  ) {
    this.#source = source;
    this.#destination = destination;
    this.#options = options;
    this.#onProgress = onProgress;
    this.#startedAt = startedAt;
  }

  /** Polls until the source's side has ended, starts postcopy when it is due, cancels when told. */
  async untilSourceEnds(signal: AbortSignal): Promise<void> {
    let isCancelling = false;
    for (;;) {
      await this.#look();
      if (this.#sourceGone !== undefined || hasEnded(this.#lastSource.status)) return;
      if (signal.aborted && !isCancelling) {
        isCancelling = true;
        await this.#source.client.execute('migrate_cancel').catch((error: Error) => {
          if (!isRefusal(error)) throw error; // too late: it completes
        });
      }
      await this.#startPostcopyWhenDue();
      await sleep(this.#lastSource.status === 'active' ? POLL_MS : POLL_MS / 4);
    }
  }

  async #look(): Promise<void> {
    const [source, destination] = await Promise.allSettled([
      this.#source.migration(),
      this.#destination.migration(),
    ]);
    if (source.status === 'fulfilled') this.#lastSource = source.value;
    else this.#sourceGone = (source.reason as Error).message;
    if (destination.status === 'fulfilled') this.#lastDestination = destination.value;
    else this.#destinationGone = (destination.reason as Error).message;
    const destinationGuest = await this.#destination.guest().catch(() => undefined);
    this.#onProgress({
      elapsedMs: performance.now() - this.#startedAt,
      source: this.#lastSource,
      destination: this.#lastDestination,
      destinationGuest,
    });
  }

  async #startPostcopyWhenDue(): Promise<void> {
    const { status, ram } = this.#lastSource;
    if (this.#postcopyStarted || status !== 'active' || ram === undefined) return;
    let isDue = this.#options.postcopy === true && Number(ram.transferred) > 0;
    if (this.#options.autoPostcopy === true && Number(ram['dirty-sync-count']) > this.#pass) {
      // A round is over: what remains should be less than after the round before.
      this.#pass = Number(ram['dirty-sync-count']);
      const remaining = Number(ram.remaining);
      isDue = this.#pass > 2 && remaining >= this.#remainingAtPass;
      this.#remainingAtPass = remaining;
    }
    if (!isDue) return;
    this.#postcopyStarted = true;
    await this.#source.client.execute('migrate-start-postcopy').catch((error: Error) => {
      if (!isRefusal(error)) throw error; // it has just ended
    });
  }

  async conclude(): Promise<Outcome> {
    const settleUntil = performance.now() + SETTLE_MS;
    while (!this.#destinationHasEnded() && performance.now() < settleUntil) {
      await sleep(POLL_MS / 4);
      await this.#look();
    }
    const elapsedMs = performance.now() - this.#startedAt;
    const base = { source: this.#lastSource, destination: this.#lastDestination, elapsedMs };
    const sourceStatus = this.#lastSource.status;
    const arrived = this.#lastDestination.status === 'completed';
    if (arrived && this.#destinationGone === undefined && sourceStatus !== 'cancelled') {
      return { status: 'completed', ...base, ...(await this.#examine()), problem: this.#warning() };
    }
    const guest = { witness: undefined, destinationGuest: undefined, comparison: undefined };
    if (sourceStatus === 'cancelled') {
      return {
        status: 'cancelled',
        ...base,
        ...guest,
        problem: 'Cancelled: the guest runs on at the source',
      };
    }
    const isPaused =
      sourceStatus === 'postcopy-paused' || this.#lastDestination.status === 'postcopy-paused';
    const problem = await this.#problem(isPaused);
    return { status: isPaused ? 'paused' : 'failed', ...base, ...guest, problem };
  }

  #destinationHasEnded(): boolean {
    if (this.#destinationGone !== undefined) return true;
    const { status } = this.#lastDestination;
    return (
      hasEnded(status) || (status !== 'postcopy-active' && this.#lastSource.status !== 'completed')
    );
  }

  /** The source said nothing of the end, yet the destination has the guest. */
  #warning(): string | undefined {
    if (this.#sourceGone !== undefined)
      return `The source is gone (${this.#sourceGone}); the guest runs at the destination`;
    if (this.#lastSource.status === 'completed') return undefined;
    return 'The source did not learn of the end; the guest runs at the destination';
  }

  /** Says what happened on both sides, and sees to it that the guest runs somewhere where that is certain. */
  async #problem(isPaused: boolean): Promise<string> {
    const sourceError = this.#sourceGone ?? this.#lastSource['error-desc'];
    const destinationError = this.#destinationGone ?? this.#lastDestination['error-desc'];
    const lines = [
      `source: ${sourceError ?? this.#lastSource.status ?? 'no error'}`,
      `destination: ${destinationError ?? this.#lastDestination.status ?? 'no error'}`,
    ];
    if (isPaused) {
      lines.push(
        'the guest is at the destination; its pages at the source are still needed: end neither side',
      );
    } else if (this.#sourceGone === undefined) {
      lines.push(await this.#guestAtSource());
    } else lines.push('the source is gone, and the guest did not arrive');
    return lines.join('\n');
  }

  async #guestAtSource(): Promise<string> {
    const { running } = await this.#source.client.execute('query-status');
    if (running) return 'the guest runs on at the source';
    // The source keeps the guest paused when it cannot know; a destination that is gone or failed does not run it.
    if (this.#destinationGone !== undefined || this.#lastDestination.status === 'failed') {
      const resumed = await this.#source.client.execute('cont').then(
        () => true,
        () => false,
      );
      if (resumed)
        return 'the guest runs on at the source (it was resumed: the destination does not run it)';
    }
    return 'the guest is paused at the source';
  }

  async #examine(): Promise<Pick<Outcome, 'witness' | 'destinationGuest' | 'comparison'>> {
    const [source, destination] = [this.#source, this.#destination];
    const isBoth = source.isSimulated && destination.isSimulated && this.#sourceGone === undefined;
    const comparison =
      this.#options.compare && isBoth ? await compareHandover(source, destination) : undefined;
    const there = this.#options.compare ? await destination.verify() : await destination.guest();
    const here = isBoth ? await source.guest() : undefined;
    if (there === undefined) return { witness: undefined, destinationGuest: undefined, comparison };
    const sum = (member: 'writes' | 'checks' | 'violations'): number =>
      Math.max(Number(there[member]), 0) +
      (member === 'violations' ? Number(here?.violations ?? 0) : 0);
    return {
      witness: {
        writes: sum('writes'),
        checks: sum('checks'),
        violations: Math.max(Number(there.violations), Number(here?.violations ?? 0)),
        firstViolations: [...(here?.['first-violations'] ?? []), ...there['first-violations']],
      },
      destinationGuest: there,
      comparison,
    };
  }
}

function hasEnded(status: string | undefined): boolean {
  return (
    status !== undefined && ['completed', 'failed', 'cancelled', 'postcopy-paused'].includes(status)
  );
}
