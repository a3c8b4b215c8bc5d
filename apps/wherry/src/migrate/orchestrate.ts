import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrationParameters } from '@wherry/qmp';
import { formatUri, parseUri } from '@wherry/transport';
import { CliError } from '../cli-error.ts';
import { type Comparison, compareHandover } from './compare.ts';
import { Convergence } from './convergence.ts';
import type { MigrateOptions } from './migrate-options.ts';
import { type GuestReport, isRefusal, type MigrationReport, type Peer } from './peer.ts';

const POLL_MS = 100;
/** How long the destination may take to end once the source has: completed, or died. */
const SETTLE_MS = 10_000;
/** The same once the source has failed and closed the connection. */
const SETTLE_FAILED_MS = 2000;

/** What both sides said at one moment. */
export interface Snapshot {
  readonly elapsedMs: number;
  readonly source: MigrationReport;
  readonly destination: MigrationReport;
  /** Undefined for a real QEMU. */
  readonly destinationGuest: GuestReport | undefined;
  /** Why precopy leads to no end, as far as it looks so. */
  readonly convergenceProblem: string | undefined;
}

/** How a migration ended. */
export interface Outcome {
  readonly status: 'completed' | 'failed' | 'cancelled' | 'paused';
  readonly source: MigrationReport;
  readonly destination: MigrationReport;
  readonly elapsedMs: number;
  /** How much auto-converge made the vCPUs sleep at most, in percent. */
  readonly mostThrottle: number;
  /** What the vCPUs saw, both sides added; undefined for real QEMUs. */
  readonly witness:
    | {
        readonly writes: number;
        readonly checks: number;
        readonly violations: number;
        readonly 'first-violations': readonly string[];
      }
    | undefined;
  readonly destinationGuest: GuestReport | undefined;
  readonly comparison: Comparison | undefined;
  /** Why it did not complete, and where the guest is now. */
  readonly problem: string | undefined;
}

type Examined = Pick<Outcome, 'witness' | 'destinationGuest' | 'comparison'>;

/**
 * Drives a migration between two hosts through QMP alone.
 *
 * @param signal cancels the migration: the guest goes on at the source
 * @throws CliError when a host refuses to begin; nothing has been changed then but its settings
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
  await checkNotBlocked(source);
  await begin('source', () => prepareSource(source, options));
  await begin('destination', () => prepareDestination(destination, uri, options));
  const target = await targetUri(destination, uri);
  await begin('source', () => source.migrate(target));
  const watch = new Watch(source, destination, options, onProgress, startedAt);
  await watch.untilSourceEnds(signal);
  return watch.conclude();
}

/** QEMU refuses with the first blocker alone, once the destination listens: all are known before. */
async function checkNotBlocked(source: Peer): Promise<void> {
  const { 'blocked-reasons': reasons = [] } = await source.migration();
  if (reasons.length === 0) return;
  const lines = reasons.map((reason) => `\n  ${reason}`).join('');
  throw new CliError(
    `The guest cannot be migrated; nothing was changed on either side:${lines}\nUnplug what blocks it, or start the guest without it`,
    1,
  );
}

/** What to do about the refusals that people meet most. */
const REMEDIES: readonly (readonly [RegExp, string])[] = [
  [/-incoming' was not specified/, 'start it with --incoming defer'],
  [/already been started/, 'it takes one migration in its life, start another one'],
];

async function begin(side: 'source' | 'destination', step: () => Promise<void>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const { desc } = error;
    const remedy = REMEDIES.find(([refusal]) => refusal.test(desc))?.[1];
    throw new CliError(
      `The ${side} refused: ${desc}${remedy === undefined ? '' : ` (${remedy})`}`,
      2,
    );
  }
}

async function prepareSource(source: Peer, options: MigrateOptions): Promise<void> {
  const { status } = await source.runState();
  if (status === 'inmigrate') {
    throw new CliError(
      'The source waits for a migration itself: name the host that runs the guest first',
      2,
    );
  }
  if (status === 'postmigrate') {
    throw new CliError('The source has no guest any more: it was migrated away', 2);
  }
  await source.setCapabilities({
    events: true,
    'return-path': options.returnPath,
    'postcopy-ram': usesPostcopy(options),
    xbzrle: options.xbzrle === true,
    'auto-converge': options.autoConverge === true,
    multifd: options.multifdChannels !== undefined,
    ...furtherCapabilities(options),
  });
  const { maxBandwidth, maxPostcopyBandwidth, downtimeLimit, xbzrleCacheSize } = options;
  await source.setParameters({
    ...tlsParameters(options),
    ...(maxBandwidth === undefined ? {} : { 'max-bandwidth': maxBandwidth }),
    ...(maxPostcopyBandwidth === undefined
      ? {}
      : { 'max-postcopy-bandwidth': maxPostcopyBandwidth }),
    ...(downtimeLimit === undefined ? {} : { 'downtime-limit': downtimeLimit }),
    ...(xbzrleCacheSize === undefined ? {} : { 'xbzrle-cache-size': xbzrleCacheSize }),
    ...multifdParameters(options),
    ...options.parameter,
  });
}

async function prepareDestination(
  destination: Peer,
  uri: string,
  options: MigrateOptions,
): Promise<void> {
  await destination.setCapabilities({
    events: true,
    'postcopy-ram': usesPostcopy(options),
    multifd: options.multifdChannels !== undefined,
    ...furtherCapabilities(options),
  });
  const parameters = {
    ...multifdParameters(options),
    ...tlsParameters(options),
    ...options.parameter,
  };
  if (Object.keys(parameters).length > 0) await destination.setParameters(parameters);
  await destination.listen(uri);
}

function furtherCapabilities({ capability = [] }: MigrateOptions): Record<string, boolean> {
  return Object.fromEntries(capability.map((name) => [name, true]));
}

/** Both sides need the same of these. */
function multifdParameters(options: MigrateOptions): MigrationParameters {
  const { multifdChannels: channels, multifdCompression = 'none' } = options;
  if (channels === undefined) return {};
  return { 'multifd-channels': channels, 'multifd-compression': multifdCompression };
}

function tlsParameters({ tlsCreds, tlsHostname }: MigrateOptions): MigrationParameters {
  return {
    ...(tlsCreds === undefined ? {} : { 'tls-creds': tlsCreds }),
    ...(tlsHostname === undefined ? {} : { 'tls-hostname': tlsHostname }),
  };
}

function usesPostcopy({ postcopy, autoPostcopy }: MigrateOptions): boolean {
  return postcopy === true || autoPostcopy === true;
}

/** With port 0 the destination chose a port: it tells which. */
async function targetUri(destination: Peer, uri: string): Promise<string> {
  const parsed = parseUri(uri);
  if (parsed.kind !== 'tcp' || (parsed.port !== 0 && parsed.toPort === undefined)) return uri;
  const { 'socket-address': addresses } = await destination.migration();
  const inet = addresses?.find((address) => address.type === 'inet');
  if (inet === undefined || inet.type !== 'inet') return uri;
  return formatUri({ kind: 'tcp', host: inet.host, port: Number(inet.port) });
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
  #tooLateToCancel = false;
  readonly #convergence: Convergence;

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
    this.#convergence = new Convergence(options);
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
        await this.#source.tell('migrate_cancel').catch((error: Error) => {
          this.#tooLateToCancel = isRefusal(error); // a lost source shows at the next look
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
    const destinationGuest =
      this.#destinationGone === undefined
        ? await this.#destination.guest().catch(() => undefined)
        : undefined;
    const elapsedMs = performance.now() - this.#startedAt;
    this.#convergence.look(elapsedMs, this.#lastSource);
    this.#onProgress({
      elapsedMs,
      source: this.#lastSource,
      destination: this.#lastDestination,
      destinationGuest,
      convergenceProblem: this.#convergence.problem,
    });
  }

  async #startPostcopyWhenDue(): Promise<void> {
    const { status, ram } = this.#lastSource;
    if (this.#postcopyStarted || status !== 'active' || ram === undefined) return;
    const isDue =
      (this.#options.postcopy === true && Number(ram.transferred) > 0) ||
      (this.#options.autoPostcopy === true && this.#convergence.isInVain);
    if (!isDue) return;
    this.#postcopyStarted = true;
    await this.#source.tell('migrate-start-postcopy').catch(() => {}); // ended: see the next look
  }

  async conclude(): Promise<Outcome> {
    const hasFailed = ['failed', 'cancelled'].includes(this.#lastSource.status ?? '');
    const settleMs = hasFailed && this.#sourceGone === undefined ? SETTLE_FAILED_MS : SETTLE_MS;
    const settleUntil = performance.now() + settleMs;
    while (!this.#destinationHasEnded() && performance.now() < settleUntil) {
      await sleep(POLL_MS / 4);
      await this.#look();
    }
    const elapsedMs = performance.now() - this.#startedAt;
    const base = {
      source: this.#lastSource,
      destination: this.#lastDestination,
      elapsedMs,
      mostThrottle: this.#convergence.mostThrottle,
    };
    const sourceStatus = this.#lastSource.status;
    const arrived = this.#lastDestination.status === 'completed';
    if (arrived && this.#destinationGone === undefined && sourceStatus !== 'cancelled') {
      const examined = await this.#examineWhatIsThere();
      if (examined !== undefined) {
        return { status: 'completed', ...base, ...examined, problem: this.#warning() };
      }
    }
    const guest = { witness: undefined, destinationGuest: undefined, comparison: undefined };
    if (sourceStatus === 'cancelled') {
      return {
        status: 'cancelled',
        ...base,
        ...guest,
        problem: ['Cancelled: the guest runs on at the source', this.#convergence.problem ?? []]
          .flat()
          .join('\n'),
      };
    }
    const isPaused =
      sourceStatus === 'postcopy-paused' || this.#lastDestination.status === 'postcopy-paused';
    const problem = await this.#problem(isPaused);
    return { status: isPaused ? 'paused' : 'failed', ...base, ...guest, problem };
  }

  #destinationHasEnded(): boolean {
    return this.#destinationGone !== undefined || hasEnded(this.#lastDestination.status);
  }

  /** The source said nothing of the end, yet the destination has the guest. */
  #warning(): string | undefined {
    if (this.#sourceGone !== undefined)
      return `The source is gone (${this.#sourceGone}); the guest runs at the destination`;
    if (this.#tooLateToCancel)
      return 'It was too late to cancel; the guest runs at the destination';
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
    if (isPaused) lines.push(this.#whyPaused());
    else if (this.#sourceGone === undefined) {
      lines.push(await this.#guestAtSource());
    } else lines.push('the source is gone, and the guest did not arrive');
    return lines.join('\n');
  }

  #whyPaused(): string {
    if (this.#destinationGone !== undefined) return 'the guest was lost with the destination';
    if (this.#sourceGone !== undefined) {
      return 'the guest at the destination waits for pages that were lost with the source';
    }
    if (this.#lastDestination.status === 'failed') {
      return 'the guest is paused at the source: the destination did not start it';
    }
    return 'the guest is at the destination; its pages at the source are still needed: end neither side, `migrate-recover` there, then `migrate` with resume here';
  }

  async #guestAtSource(): Promise<string> {
    const state = await this.#source.runState().catch(() => undefined);
    if (state === undefined) return 'the source is gone, and the guest did not arrive';
    if (state.running) return 'the guest runs on at the source';
    // The source keeps the guest paused when it cannot know; a destination that is dead or failed does not run it.
    const { status } = this.#lastDestination;
    const isDead = this.#destinationGone !== undefined && (await this.#destination.isDead());
    if (status === 'failed' || (isDead && status !== 'completed')) {
      const resumed = await this.#source.tell('cont').then(
        () => true,
        () => false,
      );
      if (resumed)
        return 'the guest runs on at the source (it was resumed: the destination does not run it)';
    }
    if (isDead && this.#lastSource.status === 'completed') {
      return 'the guest had moved to the destination and was lost with it';
    }
    return 'the guest is paused at the source: `cont` there if the destination does not run it';
  }

  /** Examines both sides, or the destination alone if the source dies; undefined if the destination does. */
  async #examineWhatIsThere(): Promise<Examined | undefined> {
    try {
      return await this.#examine();
    } catch (error) {
      await this.#look();
      if (this.#destinationGone !== undefined) return undefined;
      if (this.#sourceGone === undefined) throw error;
      return this.#examine();
    }
  }

  async #examine(): Promise<Examined> {
    const [source, destination] = [this.#source, this.#destination];
    const isBoth = source.isSimulated && destination.isSimulated && this.#sourceGone === undefined;
    const comparison =
      this.#options.compare && isBoth ? await compareHandover(source, destination) : undefined;
    const there = this.#options.compare ? await destination.verify() : await destination.guest();
    const here = isBoth ? await source.guest() : undefined;
    if (there === undefined) return { witness: undefined, destinationGuest: undefined, comparison };
    return {
      witness: {
        // Counters move with the vCPUs; violations found by a source after hand-over would stay there.
        writes: Number(there.writes),
        checks: Number(there.checks),
        violations: Math.max(Number(there.violations), Number(here?.violations ?? 0)),
        'first-violations': [...(here?.['first-violations'] ?? []), ...there['first-violations']],
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
