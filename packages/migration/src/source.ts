import type { RamBlock } from '@wherry/page-engine';
import type { ReturnPathMessage } from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { saveRunningGuest } from './background-snapshot.ts';
import { BitmapSave } from './bitmap-save.ts';
import { checkMigratable } from './blockers.ts';
import {
  checkSupported,
  configuredCapabilities,
  usesPostcopy,
  usesReturnPath,
} from './capabilities.ts';
import { GlobalState } from './global-state.ts';
import { MigrationError } from './migration-error.ts';
import type { MigrationInfo, MigrationStatus } from './migration-info.ts';
import { postcopyAdvice } from './postcopy-advice.ts';
import { checkCanPause, checkCanResume, pausedByUser } from './postcopy-pause.ts';
import { RequestedPages } from './requested-pages.ts';
import { outcomeUnknown, SourceConnection, unexpected } from './source-connection.ts';
import { type DeviceState, SourceFrames } from './source-frames.ts';
import type { Commitment, OpenChannel, SourceOptions } from './source-options.ts';
import { hasEarlyPreempt } from './source-preempt.ts';
import { type RamOutput, SourceRam } from './source-ram.ts';
import { recvBitmapBytes, SourceRecovery } from './source-recovery.ts';
import { SourceStatistics } from './source-statistics.ts';
import type { Transport } from './transport.ts';

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
 * | or, behind setting up, a snapshot | the guest runs on here, what it was was sent | the guest runs on here |
 *
 * A paused migration keeps the guest's pages; {@link SourceMigration.resume} goes on over another
 * connection, any number of times.
 *
 * @see migration_thread in QEMU's migration/migration.c
 */
export class SourceMigration {
  readonly #options: SourceOptions;
  readonly #ram: SourceRam;
  readonly #requested: RequestedPages;
  readonly #statistics: SourceStatistics;
  readonly #globalState = new GlobalState();
  readonly #registry: DeviceRegistry;
  #connection: SourceConnection;
  #frames: SourceFrames;
  /** Bytes over connections that are lost. */
  #bytesBefore = 0;
  #recovery: SourceRecovery<RamBlock> | undefined;
  #bitmaps: BitmapSave | undefined;
  #status: MigrationStatus = 'none';
  #error: Error | undefined;
  #commitment: Commitment = 'none';
  #guestWasRunning = false;
  #guestStopped = false;
  #cancelled = false;
  #packageLoaded = false;
  /** State of the devices as it was sent, for a comparison at hand-over. */
  deviceStates: readonly DeviceState[] = [];

  /** @throws VmstateError `REGISTRATION_INVALID` when two of the guest's devices have one section */
  constructor(options: SourceOptions) {
    this.#options = options;
    const { guest, transport, clock } = options;
    this.#ram = new SourceRam(options, () => this.#statistics.measure());
    this.#requested = new RequestedPages(guest.ram, this.#ram.sender);
    this.#connection = this.#connect(transport, options.openChannel);
    this.#registry = new DeviceRegistry([this.#globalState.device, ...guest.devices]);
    const { output } = this.#connection;
    this.#frames = new SourceFrames(output.frames, guest.machineType, this.#registry);
    this.#statistics = new SourceStatistics(
      clock,
      () => ({ ...this.#ram.counts, streamBytes: this.#streamBytes }),
      options.parameters()['xbzrle-cache-size'],
    );
  }

  #connect(transport: Transport, open: OpenChannel | undefined): SourceConnection {
    const { capabilities, guest } = this.#options;
    const preempt = { sender: this.#ram.sender, open, onAwaited: () => this.#ram.interrupt() };
    const connection = new SourceConnection(
      transport,
      capabilities.has('postcopy-preempt') ? preempt : undefined,
    );
    const { signal } = connection;
    signal.addEventListener('abort', () => void this.#ram.destroy(signal.reason));
    if (hasEarlyPreempt(guest.machineType)) connection.preempt?.connect();
    return connection;
  }

  get #streamBytes(): number {
    return this.#bytesBefore + this.#connection.bytes + this.#ram.multifdBytes;
  }

  get #output(): RamOutput {
    return { connection: this.#connection, frames: this.#frames };
  }

  get status(): MigrationStatus {
    return this.#status;
  }
  /** Why it failed, was cancelled or is paused. */
  get error(): Error | undefined {
    return this.#error;
  }
  get info(): MigrationInfo {
    const throttle = this.#ram.throttlePercentage;
    return {
      ...this.#statistics.info(this.#status, this.#error?.message),
      ...(throttle === 0 ? {} : { 'cpu-throttle-percentage': throttle }),
    };
  }

  /** Asks for postcopy: the guest moves at the next opportunity, its pages follow. @throws MigrationError `STATE` */
  startPostcopy(): void {
    if (!usesPostcopy(this.#options.capabilities)) {
      throw new MigrationError(
        'STATE',
        'Enable postcopy with migrate_set_capability before the start of migration',
      );
    }
    this.#ram.requestPostcopy();
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
    this.#connection.stopWith(new MigrationError('CANCELLED', 'The migration was cancelled'));
  }

  /** Drops the connection of a postcopy: {@link SourceMigration.resume} goes on. @throws MigrationError `STATE` */
  pause(): void {
    checkCanPause(this.#status);
    this.#connection.stopWith(pausedByUser());
  }

  /**
   * Runs the migration to its end, or to a pause; never rejects. The status says how it ended.
   */
  run(): Promise<MigrationStatus> {
    this.#setStatus('setup');
    return this.#drive(async () => {
      await this.#setUp();
      if (this.#options.capabilities.has('background-snapshot')) return this.#snapshot();
      const postcopy = await this.#precopy();
      await this.#stopGuest();
      if (postcopy) await this.#postcopy();
      else await this.#complete();
    });
  }

  /**
   * Goes on with a paused postcopy over a new connection, to its end or to the next pause.
   *
   * @param connecting the connection, owned by the migration; a rejection leaves the migration paused
   * @param openChannel opens a connection more to there; default the one from the beginning
   * @throws MigrationError `STATE` when the migration is not paused
   */
  async resume(
    connecting: Promise<Transport>,
    openChannel: OpenChannel | undefined = this.#options.openChannel,
  ): Promise<MigrationStatus> {
    if (this.#status !== 'postcopy-paused') {
      throw new MigrationError('STATE', 'Cannot resume if there is no paused migration');
    }
    checkCanResume(this.#options.capabilities);
    const { guest } = this.#options;
    this.#error = undefined;
    this.#setStatus('postcopy-recover-setup');
    try {
      const transport = await connecting;
      this.#bytesBefore += this.#connection.bytes;
      this.#connection = this.#connect(transport, openChannel);
    } catch (error) {
      this.#error = error as Error;
      this.#setStatus('postcopy-paused');
      return this.#status;
    }
    const { frames } = this.#connection.output;
    this.#frames = new SourceFrames(frames, guest.machineType, this.#registry);
    const recovery = new SourceRecovery(guest.ram, this.#ram.sender);
    this.#recovery = recovery;
    this.#packageLoaded = true; // whoever waits for a recovery runs the guest
    this.#setStatus('postcopy-recover');
    return this.#drive(async () => {
      await recovery.run(this.#connection, this.#frames);
      this.#statistics.resumed();
      await this.#sendOwed();
    });
  }

  /** Sends over the connection, sees how it ends, and lets go of it. */
  async #drive(send: () => Promise<void>): Promise<MigrationStatus> {
    const connection = this.#connection;
    const usesPath = usesReturnPath(this.#options.capabilities);
    const returnPath = usesPath ? this.#readReturnPath() : undefined;
    try {
      await send();
      await connection.end();
      await returnPath;
      if (returnPath !== undefined && connection.shut !== 0) connection.checkAborted();
      this.#succeed();
    } catch (error) {
      if (error instanceof MigrationError) connection.stopWith(error); // its own: nobody knows it better
      if (returnPath !== undefined) await connection.awaitLastWord(returnPath, this.#options.clock);
      // A destination that is done may close before this side has seen its last write through.
      if (connection.shut === 0 && this.#commitment !== 'none') this.#succeed();
      else await this.#fail(error as Error, returnPath);
    }
    await connection.close();
    await this.#ram.end();
    return this.#status;
  }

  async #setUp(): Promise<void> {
    const { guest, capabilities } = this.#options;
    checkMigratable(guest);
    checkSupported(this.#options);
    this.#bitmaps = BitmapSave.begin(this.#options);
    this.#guestWasRunning = guest.running;
    this.#ram.sender.oweAll();
    this.#frames.begin(configuredCapabilities(capabilities));
    if (usesReturnPath(capabilities)) {
      this.#frames.command({ name: 'open-return-path' });
      this.#frames.command({ name: 'ping', value: 1 });
    }
    if (usesPostcopy(capabilities)) {
      const advice = this.#isRamPostcopy ? { ram: postcopyAdvice(guest.ram) } : {};
      this.#frames.command({ name: 'postcopy-advise', ...advice });
    }
    await this.#ram.setUp(this.#output);
    this.#bitmaps?.start(this.#connection.output);
    this.#pass(0);
    await this.#connection.output.flush();
    this.#statistics.setupDone();
    this.#setStatus('active');
  }

  /** Sends rounds over what is dirty while the guest runs. @returns whether postcopy comes next */
  async #precopy(): Promise<boolean> {
    const { sender } = this.#ram;
    for (;;) {
      await this.#ram.sendPart(this.#output);
      if (this.#ram.postcopyRequested) {
        await this.#connection.openPreempt();
        return true;
      }
      const { 'downtime-limit': limitMs } = this.#options.parameters();
      const isLittle = (): boolean => sender.owedBytes <= this.#statistics.bytesWithin(limitMs);
      if (!isLittle() && !this.#ram.isSyncDue) continue;
      // What is owed looks little enough, or a round is over: see what the guest dirtied meanwhile.
      this.#pass(sender.syncDirty());
      if (isLittle()) return false;
    }
  }

  #pass(dirtyPages: number): void {
    this.#statistics.synced(dirtyPages);
    this.#ram.synced(dirtyPages, this.#streamBytes);
    this.#options.onPass?.(this.#statistics.syncCount);
  }

  async #stopGuest(): Promise<void> {
    const { guest, capabilities } = this.#options;
    this.#globalState.runState = guest.running ? 'running' : 'paused';
    this.#setStatus('device');
    this.#statistics.guestStopped();
    this.#guestStopped = true;
    if (guest.running) await guest.stop();
    this.#bitmaps?.handOver();
    guest.disks?.inactivate();
    this.#connection.checkAborted();
    if (capabilities.has('x-ignore-shared')) await guest.shared?.save();
    this.#pass(this.#ram.sender.syncDirty());
  }

  async #snapshot(): Promise<void> {
    const { output } = this.#connection;
    const saved = await saveRunningGuest({
      guest: this.#options.guest,
      isIgnoringShared: this.#options.capabilities.has('x-ignore-shared'),
      globalState: this.#globalState,
      frames: this.#frames,
      sender: this.#ram.sender,
      statistics: this.#statistics,
      sendRam: async () => {
        while (this.#ram.sender.owedPages() > 0) await this.#ram.sendPart(this.#output);
        await this.#ram.finish();
      },
    });
    this.deviceStates = saved.states;
    output.frames.raw(saved.bytes);
    await output.flush();
  }

  /** Sends the rest of RAM, the devices and the end. The point of no return is its last write. */
  async #complete(): Promise<void> {
    await this.#ram.sendEnd(this.#output);
    await this.#bitmaps?.end(this.#connection.output);
    this.#frames.devices();
    this.deviceStates = this.#frames.states;
    this.#frames.end(true);
    this.#connection.checkAborted();
    this.#commitment = 'handing-over';
    await this.#connection.output.flush();
  }

  /** Whether postcopy is of pages, or of dirty bitmaps alone. */
  get #isRamPostcopy(): boolean {
    return this.#options.capabilities.has('postcopy-ram');
  }

  /** Hands the guest over, then sends its pages, those that it waits for first, and its dirty bitmaps; or these alone. */
  async #postcopy(): Promise<void> {
    const ofRam = this.#isRamPostcopy;
    if (ofRam) {
      this.#frames.discards(this.#ram.sender.discards(), this.#options.guest.ram);
      this.#frames.command({ name: 'ping', value: 2 });
    } else {
      await this.#ram.sendEnd(this.#output);
      this.#packageLoaded = true; // nobody will tell: it counts from when it is sent
    }
    await this.#bitmaps?.endAhead(this.#connection.output);
    this.#frames.package(ofRam);
    this.deviceStates = this.#frames.states;
    if (ofRam) this.#frames.command({ name: 'ping', value: 4 });
    this.#connection.checkAborted();
    this.#commitment = 'postcopy';
    await this.#connection.output.flush();
    if (ofRam) this.#ram.enterPostcopy();
    this.#statistics.postcopyStarted();
    this.#setStatus('postcopy-active');
    await this.#sendOwed();
  }

  /** Sends what is owed in postcopy, and the end of the stream. */
  async #sendOwed(): Promise<void> {
    const { preempt, output } = this.#connection;
    if (this.#isRamPostcopy) await this.#sendOwedPages();
    await this.#bitmaps?.end(output);
    this.#frames.end(false);
    await output.flush();
    if (hasEarlyPreempt(this.#options.guest.machineType)) await preempt?.end();
  }

  async #sendOwedPages(): Promise<void> {
    const { preempt } = this.#connection;
    const { sender } = this.#ram;
    preempt?.serve(); // what was requested before
    while (sender.owedPages() > 0) {
      if (sender.hasNext) await this.#ram.sendPart(this.#output);
      else await preempt?.settled();
      this.#connection.checkAborted();
    }
    await preempt?.settled();
    await this.#ram.sendEnd(this.#output);
  }

  /** Reads the destination's messages until it is done. */
  async #readReturnPath(): Promise<void> {
    const connection = this.#connection;
    const { blocks } = this.#options.guest.ram;
    const most = recvBitmapBytes(Math.max(...blocks.map(({ pageCount }) => pageCount)));
    await connection.readMessages(most, (message, offset) => this.#handle(message, offset));
  }

  #handle(message: ReturnPathMessage, offset: number): void {
    const isRecovering = this.#status === 'postcopy-recover';
    switch (message.name) {
      case 'shut':
        // Before its ACK a destination still lacks pages: nothing has been sent of them.
        if (isRecovering && message.status === 0) throw unexpected(message);
        this.#connection.shut = message.status;
        return;
      case 'pong':
        if (message.value === 3) this.#guestHasMoved();
        this.#connection.pong();
        return;
      case 'req-pages':
        this.#requested.take(message, this.#commitment === 'postcopy', offset);
        this.#statistics.requests += 1;
        if (this.#connection.preempt === undefined) this.#ram.interrupt();
        else if (this.#status === 'postcopy-active') this.#connection.preempt.serve();
        return;
      case 'recv-bitmap':
        if (!isRecovering) throw unexpected(message);
        this.#recovery?.takeBitmap(message.block, message.bitmap);
        return;
      case 'resume-ack':
        if (!isRecovering) throw unexpected(message);
        this.#recovery?.takeAck(message.value);
        this.#setStatus('postcopy-active'); // before the requests that follow
        return;
      default: // switchover-ack was not agreed on
        throw unexpected(message);
    }
  }

  /** The destination has the package: this side does not run the guest again. */
  #guestHasMoved(): void {
    this.#packageLoaded = true;
    const isSure = this.#commitment === 'postcopy';
    if (isSure && this.#options.capabilities.has('release-ram')) this.#ram.sender.releaseSent();
  }

  #succeed(): void {
    this.#statistics.guestHandedOver();
    this.#ram.endThrottle();
    this.#bitmaps?.release();
    this.#statistics.ended();
    this.#setStatus('completed');
  }

  async #fail(thrown: Error, returnPath: Promise<void> | undefined): Promise<void> {
    const { guest } = this.#options;
    await this.#connection.close(thrown);
    await this.#ram.destroy(thrown);
    await returnPath;
    const { shut, signal } = this.#connection;
    const cause: Error = signal.reason ?? thrown;
    const destinationHasFailed = shut !== undefined && shut !== 0;
    const guestIsHere =
      this.#commitment === 'none' ||
      (destinationHasFailed && (this.#commitment === 'handing-over' || !this.#packageLoaded));
    this.#ram.endThrottle();
    if (this.#commitment === 'postcopy' && !guestIsHere && this.#isRamPostcopy) {
      this.#error = cause;
      this.#setStatus('postcopy-paused');
      return;
    }
    this.#statistics.ended();
    this.#bitmaps?.release();
    if (guestIsHere) {
      this.#error = cause;
      if (this.#guestStopped) guest.disks?.activate();
      if (this.#guestStopped && this.#guestWasRunning) guest.start();
      this.#setStatus(this.#cancelled ? 'cancelled' : 'failed');
    } else {
      this.#error = outcomeUnknown(cause);
      this.#setStatus('failed');
    }
  }

  #setStatus(status: MigrationStatus): void {
    this.#status = status;
    this.#options.onStatus?.(status);
  }
}
