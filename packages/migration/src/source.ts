import { BytesError, ByteWriter, WherryError } from '@wherry/bytes';
import { RamSender } from '@wherry/page-engine';
import { readReturnPathMessage } from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { AutoConverge } from './auto-converge.ts';
import { checkMigratable } from './blockers.ts';
import { type Capabilities, checkGuestSupports, usesReturnPath } from './capabilities.ts';
import { InputChannel, OutputChannel, RateLimit } from './channels.ts';
import type { Clock } from './clock.ts';
import { GlobalState } from './global-state.ts';
import type { GuestPort } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';
import type { MigrationInfo, MigrationStatus } from './migration-info.ts';
import type { Parameters } from './parameters.ts';
import { postcopyAdvice } from './postcopy-advice.ts';
import { type DeviceState, SourceFrames } from './source-frames.ts';
import { type SenderCounts, SourceStatistics } from './source-statistics.ts';
import type { Transport } from './transport.ts';

/** Bytes of page records in one PART section, about what QEMU sends in its 50 ms at 1 Gbit/s. */
const PART_BYTES = 8 * 1024 * 1024;
/** In postcopy: how much background data may stand before an answer to a request. */
const POSTCOPY_CHUNK_BYTES = 256 * 1024;
/** How long to wait for the destination's last word once the connection breaks. */
const LAST_WORD_MS = 1000;

/** What {@link SourceMigration} needs. */
export interface SourceOptions {
  readonly guest: GuestPort;
  /** A connection to the destination, owned by the migration from now on. */
  readonly transport: Transport;
  readonly clock: Clock;
  readonly capabilities: Capabilities;
  /** Gives the parameters as they are now: they may change while it runs. */
  readonly parameters: () => Parameters;
  readonly onStatus?: (status: MigrationStatus) => void;
  /** Called at each synchronisation of the dirty log, with its number from 1. */
  readonly onPass?: (pass: number) => void;
}

/** How far the source has committed itself: what a failure means depends on it. */
type Commitment =
  /** The guest is here, whatever happens. */
  | 'none'
  /** The destination may have all that it needs to run the guest. */
  | 'handing-over'
  /** The destination runs the guest, or is about to. */
  | 'postcopy';

/**
 * The source's side of one migration. {@link SourceMigration.run} is the protocol, top to bottom:
 *
 * | phase | on success | on failure |
 * |---|---|---|
 * | set up | the destination knows the RAM blocks | the guest runs on here |
 * | precopy | little enough is owed, or postcopy was asked for | the guest runs on here |
 * | stop | the guest stands still, the last dirty pages are known | the guest goes on here |
 * | complete | everything was sent | before its last write: the guest goes on here; after it: only if the destination said that it failed |
 * | or postcopy | the destination runs the guest and has all pages | paused, the guest is there |
 *
 * @see migration_thread in QEMU's migration/migration.c
 */
export class SourceMigration {
  readonly #options: SourceOptions;
  readonly #sender: RamSender;
  readonly #output: OutputChannel;
  readonly #input: InputChannel;
  readonly #frames: SourceFrames;
  readonly #statistics: SourceStatistics;
  readonly #rate: RateLimit;
  readonly #autoConverge: AutoConverge | undefined;
  readonly #globalState = new GlobalState();
  readonly #registry: DeviceRegistry;
  readonly #abort = new AbortController();
  #status: MigrationStatus = 'none';
  #error: Error | undefined;
  #commitment: Commitment = 'none';
  #guestWasRunning = false;
  #guestStopped = false;
  #cancelled = false;
  #postcopyRequested = false;
  #shut: number | undefined;
  #packageLoaded = false;
  #requestBlock: string | undefined;
  /** State of the devices as it was sent, for a comparison at hand-over. */
  deviceStates: readonly DeviceState[] = [];

  /** @throws VmstateError `REGISTRATION_INVALID` when two of the guest's devices have one section */
  constructor(options: SourceOptions) {
    this.#options = options;
    const { guest, transport, clock } = options;
    const { 'xbzrle-cache-size': cacheBytes } = options.parameters();
    this.#sender = new RamSender(guest.ram, {
      xbzrleCacheBytes: options.capabilities.has('xbzrle')
        ? Math.min(cacheBytes, guest.ram.plan.options.xbzrleCacheBytes)
        : 0,
    });
    this.#output = new OutputChannel(transport);
    this.#input = new InputChannel(transport, 'return path');
    this.#registry = new DeviceRegistry([this.#globalState.device, ...guest.devices]);
    this.#frames = new SourceFrames(this.#output.frames, guest.machineType, this.#registry);
    this.#rate = new RateLimit(clock);
    if (options.capabilities.has('auto-converge') && guest.setThrottle !== undefined) {
      this.#autoConverge = new AutoConverge({
        clock,
        parameters: options.parameters,
        setThrottle: guest.setThrottle.bind(guest),
      });
    }
    const counts = (): SenderCounts => ({
      ...this.#sender.counters,
      owedBytes: this.#sender.owedBytes,
      totalBytes: guest.ram.totalBytes,
      streamBytes: this.#output.bytes,
      xbzrle: this.#sender.xbzrle,
    });
    this.#statistics = new SourceStatistics(clock, counts, cacheBytes);
  }

  get status(): MigrationStatus {
    return this.#status;
  }
  /** Why it failed, was cancelled or is paused. */
  get error(): Error | undefined {
    return this.#error;
  }
  get info(): MigrationInfo {
    const throttle = this.#autoConverge?.percentage ?? 0;
    return {
      ...this.#statistics.info(this.#status, this.#error?.message),
      ...(throttle === 0 ? {} : { 'cpu-throttle-percentage': throttle }),
    };
  }

  /** Asks for postcopy: the guest moves at the next opportunity, its pages follow. @throws MigrationError `STATE` */
  startPostcopy(): void {
    if (!this.#options.capabilities.has('postcopy-ram')) {
      throw new MigrationError(
        'STATE',
        'Enable postcopy with migrate_set_capability before the start of migration',
      );
    }
    this.#postcopyRequested = true;
    this.#rate.interrupt();
  }

  /**
   * Gives the migration up; the guest goes on here as if nothing had been.
   *
   * @throws MigrationError `STATE` when the destination may already run the guest
   */
  cancel(): void {
    if (this.#commitment !== 'none') {
      throw new MigrationError(
        'STATE',
        'The migration can no longer be cancelled: the destination has the guest',
      );
    }
    if (!['none', 'setup', 'active', 'device'].includes(this.#status)) return;
    this.#cancelled = true;
    this.#setStatus('cancelling');
    this.#stopWith(new MigrationError('CANCELLED', 'The migration was cancelled'));
  }

  /**
   * Runs the migration to its end; never rejects. The status says how it ended.
   */
  async run(): Promise<MigrationStatus> {
    const { capabilities, transport } = this.#options;
    this.#setStatus('setup');
    const returnPath = usesReturnPath(capabilities) ? this.#readReturnPath() : undefined;
    try {
      await this.#setUp();
      const postcopy = await this.#precopy();
      await this.#stopGuest();
      if (postcopy) await this.#postcopy();
      else await this.#complete();
      await transport.end();
      await returnPath;
      if (returnPath !== undefined && this.#shut !== 0) this.#checkAborted();
      this.#succeed();
    } catch (error) {
      if (error instanceof MigrationError) this.#stopWith(error); // its own: nobody knows it better
      await this.#awaitLastWord(returnPath);
      // A destination that is done may close before this side has seen its last write through.
      if (this.#shut === 0 && this.#commitment !== 'none') this.#succeed();
      else await this.#fail(error as Error, returnPath);
    }
    transport.destroy();
    return this.#status;
  }

  async #setUp(): Promise<void> {
    const { guest, capabilities } = this.#options;
    const postcopy = capabilities.has('postcopy-ram');
    checkMigratable(guest);
    checkGuestSupports(capabilities, guest);
    this.#guestWasRunning = guest.running;
    this.#sender.oweAll();
    this.#frames.begin();
    if (usesReturnPath(capabilities)) {
      this.#frames.command({ name: 'open-return-path' });
      this.#frames.command({ name: 'ping', value: 1 });
    }
    if (postcopy) {
      this.#frames.command({ name: 'postcopy-advise', ram: postcopyAdvice(guest.ram) });
    }
    this.#frames.setUp(guest.ram, postcopy);
    this.#pass(0);
    await this.#output.flush();
    this.#statistics.setupDone();
    this.#setStatus('active');
  }

  /** Sends rounds over what is dirty while the guest runs. @returns whether postcopy comes next */
  async #precopy(): Promise<boolean> {
    for (;;) {
      await this.#sendPart('part', PART_BYTES);
      if (this.#postcopyRequested) return true;
      const { 'downtime-limit': limitMs } = this.#options.parameters();
      if (
        this.#sender.owedBytes > this.#statistics.bytesWithin(limitMs) &&
        !this.#sender.roundComplete &&
        this.#autoConverge?.isSyncDue !== true
      ) {
        continue;
      }
      // What is owed looks little enough, or a round is over: see what the guest dirtied meanwhile.
      this.#pass(this.#sender.syncDirty());
      if (this.#sender.owedBytes <= this.#statistics.bytesWithin(limitMs)) return false;
    }
  }

  #pass(dirtyPages: number): void {
    this.#statistics.synced(dirtyPages);
    this.#autoConverge?.synced(dirtyPages, this.#output.bytes);
    this.#options.onPass?.(this.#statistics.syncCount);
  }

  async #stopGuest(): Promise<void> {
    const { guest } = this.#options;
    this.#globalState.runState = guest.running ? 'running' : 'paused';
    this.#setStatus('device');
    this.#statistics.guestStopped();
    this.#guestStopped = true;
    if (guest.running) await guest.stop();
    this.#checkAborted();
    this.#pass(this.#sender.syncDirty());
  }

  /** Sends the rest of RAM, the devices and the end. The point of no return is its last write. */
  async #complete(): Promise<void> {
    await this.#sendPart('end', Number.POSITIVE_INFINITY);
    this.#frames.devices();
    this.deviceStates = this.#frames.states;
    this.#frames.end(true);
    this.#checkAborted();
    this.#commitment = 'handing-over';
    await this.#output.flush();
  }

  /** Hands the guest over, then sends its pages: those that it waits for first. */
  async #postcopy(): Promise<void> {
    this.#sendDiscards();
    this.#frames.command({ name: 'ping', value: 2 });
    this.#sendPackage();
    this.#frames.command({ name: 'ping', value: 4 });
    this.#checkAborted();
    this.#commitment = 'postcopy';
    await this.#output.flush();
    this.#sender.enterPostcopy();
    this.#statistics.postcopyStarted();
    this.#setStatus('postcopy-active');
    while (this.#sender.owedPages() > 0) await this.#sendPart('part', POSTCOPY_CHUNK_BYTES);
    await this.#sendPart('end', Number.POSITIVE_INFINITY);
    this.#frames.end(false);
    await this.#output.flush();
  }

  #sendDiscards(): void {
    let sent = 0;
    for (const { block, ranges } of this.#sender.discards()) {
      sent += 1;
      this.#frames.command({
        name: 'postcopy-ram-discard',
        block: block.name,
        ranges: ranges.map(([start, length]) => ({ start, length })),
      });
    }
    // QEMU as destination refuses to run without any discard.
    const [block] = this.#options.guest.ram.blocks;
    if (sent === 0 && block !== undefined) {
      const ranges = [{ start: 0, length: 0 }];
      this.#frames.command({ name: 'postcopy-ram-discard', block: block.name, ranges });
    }
  }

  #sendPackage(): void {
    const content = new ByteWriter();
    const frames = new SourceFrames(content, this.#options.guest.machineType, this.#registry);
    frames.command({ name: 'postcopy-listen' });
    frames.devices();
    this.deviceStates = [...this.#frames.states, ...frames.states];
    frames.command({ name: 'ping', value: 3 });
    frames.command({ name: 'postcopy-run' });
    this.#frames.command({ name: 'packaged', lengthBytes: content.length });
    this.#output.frames.raw(content.bytes);
  }

  /**
   * Sends one section of page records: at least `bytes` of them where so much is owed, and to the end
   * of a host page in postcopy, since older destinations lose a host page that two sections share.
   */
  async #sendPart(kind: 'part' | 'end', bytes: number): Promise<void> {
    const { parameters, clock } = this.#options;
    const inPostcopy = this.#commitment === 'postcopy';
    const until = this.#output.bytes + bytes;
    // Postcopy waits for nothing: neither for a rate that precopy keeps nor for the end of its round.
    const isOver = (): boolean =>
      kind === 'part' &&
      !inPostcopy &&
      (this.#postcopyRequested ||
        this.#sender.roundComplete ||
        this.#autoConverge?.isSyncDue === true);
    this.#frames.ramHead(kind);
    do {
      this.#checkAborted();
      const rate =
        kind === 'end' ? 0 : parameters()[inPostcopy ? 'max-postcopy-bandwidth' : 'max-bandwidth'];
      const largest = inPostcopy ? POSTCOPY_CHUNK_BYTES : PART_BYTES;
      // A request ends the wait, and is served; the background goes on waiting behind it.
      if (rate !== 0 && !this.#sender.hasRequests) await this.#rate.wait(this.#abort.signal);
      const chunk = this.#sender.next(Math.min(largest, this.#rate.burst(rate)));
      if (chunk === undefined) break;
      const { length } = chunk.bytes;
      await this.#output.sendChunk(chunk);
      this.#statistics.measure();
      await clock.yield(); // writes that succeed at once would keep requests and QMP waiting
      if (!chunk.requested) this.#rate.spend(length, rate);
    } while ((this.#output.bytes < until || this.#sender.insideHostPage) && !isOver());
    this.#frames.ramEnd();
    await this.#output.flush();
  }

  /** Reads the destination's messages until it is done. */
  async #readReturnPath(): Promise<void> {
    try {
      while (this.#shut === undefined) {
        const message = await this.#input.parse(readReturnPathMessage(this.#input.reader));
        switch (message.name) {
          case 'shut':
            this.#shut = message.status;
            break;
          case 'pong':
            if (message.value === 3) this.#packageLoaded = true;
            break;
          case 'req-pages':
            this.#requestPages(message.block, message.start, message.length);
            break;
          default: // recovery and switchover-ack were not agreed on
            throw new MigrationError(
              'STATE',
              `The destination sent an unexpected ${message.name}`,
              {
                path: ['return path'],
              },
            );
        }
      }
      if (this.#shut !== 0) this.#stopWith(this.#destinationFailed());
    } catch (error) {
      const atEnd = error instanceof BytesError && error.code === 'UNEXPECTED_END';
      const isBroken = error instanceof MigrationError && error.code === 'CONNECTION_LOST';
      this.#stopWith(atEnd || isBroken ? this.#destinationClosed(error) : (error as Error));
    }
  }

  #destinationClosed(cause: BytesError | MigrationError): MigrationError {
    const broken = cause.cause instanceof WherryError ? cause.cause.what : cause.found;
    return new MigrationError('CONNECTION_LOST', 'The destination closed the connection', {
      ...(cause instanceof MigrationError && broken !== undefined ? { found: broken } : {}),
      path: ['return path'],
      likely:
        'It refused the stream or died: its own error message (query-migrate there, or its log) says why',
      cause,
    });
  }

  #requestPages(name: string | undefined, start: number, length: number): void {
    const block = this.#options.guest.ram.block(name ?? this.#requestBlock ?? '');
    if (block === undefined || this.#commitment !== 'postcopy') {
      throw new MigrationError('PAGE_REQUEST_INVALID', 'The destination requested pages in vain', {
        expected:
          this.#commitment === 'postcopy'
            ? 'a RAM block of this guest'
            : 'no request before postcopy',
        found: `${length} bytes at ${start} of ${name ?? this.#requestBlock ?? 'no block'}`,
        path: ['return path', 'REQ_PAGES'],
      });
    }
    this.#requestBlock = block.name;
    this.#statistics.requests += 1;
    this.#sender.request(block, start, length);
    this.#rate.interrupt();
  }

  #succeed(): void {
    this.#statistics.guestHandedOver();
    this.#autoConverge?.stop();
    this.#statistics.ended();
    this.#setStatus('completed');
  }

  #destinationFailed(): MigrationError {
    return new MigrationError('DESTINATION_FAILED', 'The destination could not load the guest', {
      found: `status ${this.#shut} on the return path`,
      likely: 'Its own error message (query-migrate there, or its log) says why',
    });
  }

  /** Makes everything under way end with `reason`. */
  #stopWith(reason: Error): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(reason);
    this.#options.transport.destroy(reason);
  }

  #checkAborted(): void {
    this.#abort.signal.throwIfAborted();
  }

  /** A destination says how it ended before it closes: a better cause than a broken pipe. */
  async #awaitLastWord(returnPath: Promise<void> | undefined): Promise<void> {
    if (returnPath === undefined || this.#abort.signal.aborted) return;
    const given = new AbortController();
    const waited = this.#options.clock.sleep(LAST_WORD_MS, given.signal).catch(() => {});
    await Promise.race([returnPath, waited]);
    given.abort();
  }

  async #fail(thrown: Error, returnPath: Promise<void> | undefined): Promise<void> {
    const { guest, transport } = this.#options;
    transport.destroy(thrown);
    await returnPath;
    const cause: Error = this.#abort.signal.reason ?? thrown;
    const destinationHasFailed = this.#shut !== undefined && this.#shut !== 0;
    const guestIsHere =
      this.#commitment === 'none' ||
      (destinationHasFailed && (this.#commitment === 'handing-over' || !this.#packageLoaded));
    this.#autoConverge?.stop();
    this.#statistics.ended();
    if (guestIsHere) {
      this.#error = cause;
      if (this.#guestStopped && this.#guestWasRunning) guest.start();
      this.#setStatus(this.#cancelled ? 'cancelled' : 'failed');
    } else if (this.#commitment === 'postcopy') {
      this.#error = cause;
      this.#setStatus('postcopy-paused');
    } else {
      this.#error = new MigrationError(
        'OUTCOME_UNKNOWN',
        'The connection broke after the whole guest was sent: the destination may run it',
        {
          found: cause.message,
          likely:
            'The guest is kept paused here: look at the destination, and `cont` here only if it does not run there',
          cause,
        },
      );
      this.#setStatus('failed');
    }
  }

  #setStatus(status: MigrationStatus): void {
    this.#status = status;
    this.#options.onStatus?.(status);
  }
}
