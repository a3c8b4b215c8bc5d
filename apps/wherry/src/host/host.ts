import {
  type Capabilities,
  type Capability,
  checkBitmaps,
  checkCanPause,
  checkCanResume,
  checkCapabilities,
  checkMigratable,
  DestinationMigration,
  defaultParameters,
  MigrationError,
  type MigrationInfo,
  type MigrationRole,
  type MigrationStatus,
  migrationBlockers,
  notSeekable,
  type OpenChannel,
  type Parameters,
  SourceMigration,
  type SourceOptions,
  type Transport,
  usesReturnPath,
} from '@wherry/migration';
import { type Listener, type MigrationUri, parseUri } from '@wherry/transport';
import { wallClock } from '../wall-clock.ts';
import { checkChannels } from './check-channels.ts';
import { openFileThreads } from './file-threads.ts';
import { acceptWelcome, HostChannels, socketAddress } from './host-channels.ts';
import { type GuestEvent, HostGuest, type HostGuestOptions } from './host-guest.ts';
import {
  acceptChannels,
  connectChannels,
  type MultifdSettings,
  usesChannels,
} from './multifd-channels.ts';
import { startPopulator } from './populator.ts';
import { checkPostcopySupported, type PostcopySupport } from './postcopy-support.ts';

/** What a host tells the outside, by QMP's event names. */
export type HostEvent =
  | GuestEvent
  | { readonly name: 'MIGRATION'; readonly status: MigrationStatus }
  | { readonly name: 'MIGRATION_PASS'; readonly pass: number };

/** What {@link Host.create} takes. */
export interface HostOptions extends HostGuestOptions {
  readonly postcopy: PostcopySupport;
  /** The guest's; zeroes unless told. */
  readonly uuid?: string;
  readonly onEvent: (event: HostEvent) => void;
  /** Is told what a migration leaves behind, in a sentence. */
  readonly onWarning: (message: string) => void;
  /** Called when an incoming migration has failed and the host is to end, as QEMU does by default. */
  readonly onIncomingFailed: (error: Error) => void;
}

/** One simulated host: a guest and its migrations, with QEMU's rules of what is allowed when. */
export class Host {
  readonly guest: HostGuest;
  readonly #postcopySupport: PostcopySupport;
  readonly #uuid: string;
  readonly #onEvent: HostOptions['onEvent'];
  readonly #onWarning: HostOptions['onWarning'];
  readonly #onIncomingFailed: HostOptions['onIncomingFailed'];
  #incoming: 'none' | 'deferred' | 'begun';
  #source: SourceMigration | undefined;
  #destination: DestinationMigration | undefined;
  #listener: Listener | undefined;
  #connecting: AbortController | undefined;
  #unconnected: { readonly status: 'failed' | 'cancelled'; readonly error: Error } | undefined;
  #exitOnError = true;
  #arrivalConfirmed = false;
  readonly #closing = new AbortController();
  capabilities: Capabilities = new Set();
  parameters: Parameters;
  readonly channels: HostChannels = new HostChannels(() => this.parameters);

  private constructor(guest: HostGuest, options: HostOptions) {
    this.guest = guest;
    this.parameters = defaultParameters(guest.machine.machineType);
    this.#uuid = options.uuid ?? '00000000-0000-0000-0000-000000000000';
    this.#postcopySupport = options.postcopy;
    this.#onEvent = options.onEvent;
    this.#onWarning = options.onWarning;
    this.#onIncomingFailed = options.onIncomingFailed;
    this.#incoming = options.machine.incoming === true ? 'deferred' : 'none';
  }

  /** Makes a host. @throws CliError as {@link HostGuest.create} */
  static async create(options: HostOptions): Promise<Host> {
    return new Host(await HostGuest.create(options), options);
  }

  /** What the host is in its next migration. */
  get role(): MigrationRole {
    return this.guest.isIncoming ? 'destination' : 'source';
  }

  /** What `query-migrate` tells: how a migration goes, and what blocks one. */
  get migrationInfo(): MigrationInfo | { 'socket-address'?: unknown } {
    const reasons = migrationBlockers(this.guest.port);
    return {
      ...this.#migrationInfo(),
      ...(reasons.length === 0 ? {} : { 'blocked-reasons': reasons }),
    };
  }

  #migrationInfo(): MigrationInfo | { 'socket-address'?: unknown } {
    const address =
      this.#listener === undefined ? {} : { 'socket-address': [socketAddress(this.#listener.uri)] };
    if (this.#source !== undefined) return this.#source.info;
    if (this.#connecting !== undefined) return { status: 'setup' };
    if (this.#unconnected !== undefined) {
      const { status, error } = this.#unconnected;
      return { status, 'error-desc': error.message };
    }
    if (this.#destination !== undefined) return { ...this.#destination.info, ...address };
    return this.#listener === undefined ? {} : { status: 'setup', ...address };
  }

  /** Pages that an incoming migration has brought. */
  get received(): { readonly normalPages: number; readonly zeroPages: number } {
    return this.#destination?.counters ?? { normalPages: 0, zeroPages: 0 };
  }

  /** State of the devices at the last hand-over, out or in. */
  get handedOver(): SourceMigration['deviceStates'] {
    return (this.#source ?? this.#destination)?.deviceStates ?? [];
  }

  get isMigrating(): boolean {
    const ended: readonly MigrationStatus[] = ['none', 'completed', 'failed', 'cancelled'];
    return (
      this.#connecting !== undefined ||
      (this.#source !== undefined && !ended.includes(this.#source.status)) ||
      (this.#destination !== undefined && !ended.includes(this.#destination.status))
    );
  }

  /**
   * Begins an outgoing migration and returns at once; `query-migrate` tells how it goes.
   *
   * @throws MigrationError `STATE`, `BLOCKED`
   */
  migrate(uri: string): void {
    if (this.guest.isIncoming) {
      throw new MigrationError('STATE', 'Guest is waiting for an incoming migration');
    }
    if (this.isMigrating)
      throw new MigrationError('STATE', "There's a migration process in progress");
    if (this.guest.isMigrated) {
      throw new MigrationError('STATE', 'The guest has been migrated: it runs at the destination');
    }
    checkMigratable(this.guest.port);
    checkBitmaps(this.guest.blocks, this.capabilities, this.parameters);
    const parsed = parseUri(uri);
    checkCapabilities(this.capabilities, 'source'); // it may have become one since they were set
    const isCompressed = this.parameters['multifd-compression'] !== 'none';
    if (isCompressed && this.capabilities.has('mapped-ram') && this.capabilities.has('multifd')) {
      throw new MigrationError('CAPABILITY_CONFLICT', 'Cannot use compression with mapped-ram');
    }
    this.#checkSeekable(parsed);
    checkChannels(this.capabilities, parsed);
    this.#source = undefined;
    this.#unconnected = undefined;
    this.#connecting = new AbortController();
    this.#setMigrationStatus('setup');
    const { signal } = this.#connecting;
    const connecting = usesChannels(this.capabilities)
      ? connectChannels(uri, this.#multifdSettings, this.channels.clientTls(), signal)
      : this.channels.connect(parsed, { signal }).then((transport) => ({ transport }));
    connecting.then(
      (connections) => {
        this.#connecting = undefined;
        return this.#runSource(connections, parsed);
      },
      (error: Error) => {
        this.#connecting = undefined;
        this.#unconnected = { status: signal.aborted ? 'cancelled' : 'failed', error };
        this.#setMigrationStatus(this.#unconnected.status);
      },
    );
  }

  /** @throws MigrationError `STATE` when `multifd` comes too late for an incoming migration */
  checkMultifd(next: Capabilities): void {
    const isNew = next.has('multifd') && !this.capabilities.has('multifd');
    if (isNew && this.#incoming === 'begun' && this.guest.isIncoming) {
      throw new MigrationError('STATE', 'Multifd must be set before incoming starts');
    }
  }

  get #multifdSettings(): MultifdSettings {
    return { ram: this.guest.machine.ram, uuid: this.#uuid, parameters: this.parameters };
  }

  async #runSource(
    connections: Pick<SourceOptions, 'transport' | 'multifd'>,
    uri: MigrationUri,
  ): Promise<void> {
    const { capabilities } = this;
    const source = new SourceMigration({
      guest: this.guest.port,
      ...connections,
      openChannel: (signal) => this.channels.connect(uri, { signal }),
      openPageFile: () => openFileThreads(uri, 'write', capabilities, this.parameters),
      clock: wallClock,
      capabilities,
      parameters: () => this.parameters,
      onWarning: this.#onWarning,
      onStatus: (status) => {
        if (status !== 'setup') this.#setMigrationStatus(status); // it was told before connecting
      },
      onPass: (pass) => {
        if (this.capabilities.has('events')) this.#onEvent({ name: 'MIGRATION_PASS', pass });
      },
    });
    this.#source = source;
    this.#arrivalConfirmed = usesReturnPath(capabilities);
    const status = await source.run();
    // A snapshot leaves the guest here.
    if (!capabilities.has('background-snapshot')) this.#sourceEnded(status);
  }

  #sourceEnded(status: MigrationStatus): void {
    this.guest.sourceEnded(status, this.#arrivalConfirmed);
  }

  /**
   * Goes on with an outgoing postcopy that is paused, and returns at once.
   *
   * @throws MigrationError `STATE`
   */
  resume(uri: string): void {
    if (this.#source?.status !== 'postcopy-paused') {
      throw new MigrationError('STATE', 'Cannot resume if there is no paused migration');
    }
    const parsed = parseUri(uri);
    checkCanResume(this.capabilities);
    checkChannels(this.capabilities, parsed);
    const connecting = this.channels.connect(parsed, { signal: this.#closing.signal });
    const openChannel: OpenChannel = (signal) => this.channels.connect(parsed, { signal });
    void this.#source.resume(connecting, openChannel).then((status) => this.#sourceEnded(status));
  }

  /** Listens for the source of an incoming postcopy that is paused; resolves once it listens. @throws MigrationError `STATE` */
  async recover(uri: string): Promise<void> {
    const destination = this.#destination;
    if (destination?.status !== 'postcopy-paused') {
      throw new MigrationError('STATE', 'Migrate recover can only be run when postcopy is paused.');
    }
    checkChannels(this.capabilities, parseUri(uri));
    await this.#listener?.close(); // the last one counts
    const listener = await this.channels.listen(uri, { signal: this.#closing.signal });
    this.#listener = listener;
    void this.#acceptRecovery(listener, destination);
  }

  async #acceptRecovery(listener: Listener, destination: DestinationMigration): Promise<void> {
    let transport: Transport;
    try {
      transport = await acceptWelcome(listener);
    } catch {
      return; // it was closed: another one listens, or the host ends
    }
    if (destination.status !== 'postcopy-paused') transport.destroy();
    else {
      const accepting = this.#acceptFurther(listener);
      this.guest.destinationEnded(await destination.recover(transport, accepting));
    }
    await listener.close();
  }

  /** Keeps listening as long as the source has connections to open: others are refused, rather than left waiting for ever. */
  #acceptFurther(listener: Listener): OpenChannel {
    if (!this.capabilities.has('postcopy-preempt')) void listener.close();
    return async (signal) => {
      const transport = await listener.accept({ signal });
      void listener.close();
      return transport;
    };
  }

  /** Drops the connection of a postcopy, out or in: it can go on over another one. @throws MigrationError `STATE` */
  pause(): void {
    const migration = this.#source ?? this.#destination;
    checkCanPause(migration?.status ?? 'none');
    migration?.pause();
  }

  /** Gives an outgoing migration up. */
  cancel(): void {
    if (this.#connecting !== undefined && !this.#connecting.signal.aborted) {
      this.#setMigrationStatus('cancelling');
      this.#connecting.abort(new MigrationError('CANCELLED', 'The migration was cancelled'));
    }
    this.#source?.cancel();
  }

  /** Refuses postcopy where it is being switched on and this host could not receive by it. @throws MigrationError */
  checkPostcopy(next: Capabilities): void {
    if (!this.guest.isIncoming) return;
    const isNew = (name: Capability): boolean => next.has(name) && !this.capabilities.has(name);
    if (isNew('postcopy-ram'))
      checkPostcopySupported(this.guest.machine.ram, this.#postcopySupport);
    if (isNew('postcopy-preempt') && this.#incoming === 'begun') {
      throw new MigrationError('STATE', 'Postcopy preempt must be set before incoming starts');
    }
  }

  startPostcopy(): void {
    if (this.#source === undefined || !this.isMigrating) {
      throw new MigrationError(
        'STATE',
        'Enable postcopy with migrate_set_capability before the start of migration',
      );
    }
    this.#source.startPostcopy();
  }

  /** Listens for an incoming migration; resolves once it listens. */
  async migrateIncoming(uri: string, exitOnError: boolean): Promise<void> {
    if (this.#incoming === 'none') {
      throw new MigrationError('STATE', "'-incoming' was not specified on the command line");
    }
    if (this.#incoming === 'begun') {
      throw new MigrationError('STATE', 'The incoming migration has already been started');
    }
    this.#checkSeekable(parseUri(uri));
    checkChannels(this.capabilities, parseUri(uri));
    this.#incoming = 'begun';
    this.#exitOnError = exitOnError;
    try {
      this.#listener = await this.channels.listen(uri);
    } catch (error) {
      this.#incoming = 'deferred';
      throw error;
    }
    this.#setMigrationStatus('setup');
    void this.#receive(this.#listener);
  }

  async #receive(listener: Listener): Promise<void> {
    const endPopulator = startPopulator(this.guest.machine.ram);
    try {
      const connections = usesChannels(this.capabilities)
        ? await acceptChannels(listener, this.#multifdSettings)
        : { transport: await listener.accept() };
      const destination = new DestinationMigration({
        guest: this.guest.port,
        ...connections,
        acceptChannel: this.#acceptFurther(listener),
        openPageFile: () =>
          openFileThreads(parseUri(listener.uri), 'read', this.capabilities, this.parameters),
        clock: wallClock,
        capabilities: this.capabilities,
        autostart: this.guest.autostart,
        bitmapMapping: this.parameters['block-bitmap-mapping'],
        onWarning: this.#onWarning,
        onStatus: (status) => {
          if (status !== 'setup') this.#setMigrationStatus(status);
        },
      });
      this.#destination = destination;
      const status = await destination.run();
      await listener.close();
      this.guest.destinationEnded(status);
      if (status === 'failed') {
        this.#incomingFailed(destination.error ?? new Error('The incoming migration failed'));
      }
    } catch (error) {
      await listener.close();
      this.#unconnected = { status: 'failed', error: error as Error };
      this.#setMigrationStatus('failed');
      this.#incomingFailed(error as Error);
    } finally {
      endPopulator();
    }
  }

  #incomingFailed(error: Error): void {
    if (this.#exitOnError && !this.#closing.signal.aborted) this.#onIncomingFailed(error);
  }

  /** Ends the host: its migration, its vCPUs, its sockets. */
  async close(): Promise<void> {
    const reason = new MigrationError('CANCELLED', 'The host ends');
    this.#closing.abort(reason);
    this.#connecting?.abort(reason);
    if (this.isMigrating) {
      try {
        this.#source?.cancel();
      } catch {
        // Too late to cancel: the destination has the guest, and learns from the closed connection.
      }
      this.#destination?.abort(reason);
    }
    await this.#listener?.close();
    await this.guest.close();
  }

  #checkSeekable({ kind }: MigrationUri): void {
    if (this.capabilities.has('mapped-ram') && kind !== 'file') throw notSeekable();
  }

  #setMigrationStatus(status: MigrationStatus): void {
    if (this.capabilities.has('events')) this.#onEvent({ name: 'MIGRATION', status });
  }
}
