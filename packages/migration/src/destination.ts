import { type ByteReader, type Parser, runParser, skip } from '@wherry/bytes';
import { RamReceiver } from '@wherry/page-engine';
import {
  type Command,
  RESUME_ACK_VALUE,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readVmdescLength,
} from '@wherry/stream';
import { type Device, DeviceRegistry } from '@wherry/vmstate';
import { BitmapLoad } from './bitmap-load.ts';
import { checkConfiguredCapabilities } from './capabilities.ts';
import { DestinationConnection } from './destination-connection.ts';
import type { DestinationOptions } from './destination-options.ts';
import { DestinationPreempt } from './destination-preempt.ts';
import { deviceError } from './device-error.ts';
import { GlobalState } from './global-state.ts';
import { type IncomingCounters, sumCounters } from './incoming-counters.ts';
import { packagedDevice, readPackage } from './incoming-package.ts';
import { IncomingPostcopy, unexpectedCommand } from './incoming-postcopy.ts';
import { type IncomingSection, IncomingSections } from './incoming-sections.ts';
import { MappedRamLoad } from './mapped-ram-load.ts';
import { MigrationError } from './migration-error.ts';
import type { MigrationInfo, MigrationStatus } from './migration-info.ts';
import { type MultifdDestination, receiveChannels } from './multifd-destination.ts';
import { PageRequests } from './page-requests.ts';
import { PostcopyBlocktime } from './postcopy-blocktime.ts';
import { checkCanPause, pausedByUser } from './postcopy-pause.ts';
import { RamLoad } from './ram-load.ts';
import { type DeviceState, encodeDevice } from './source-frames.ts';
import type { OpenChannel } from './source-options.ts';
import { checkSeekable, type Transport } from './transport.ts';

/** In postcopy: how much of the background is placed before requests and their answers have their turn. */
const POSTCOPY_READ_BYTES = 128 * 1024;

/**
 * The destination's side of one migration. {@link DestinationMigration.run} is the protocol, top to
 * bottom: header and configuration, then sections and commands to the end. The guest starts once the
 * devices are whole: after the end (precopy), or at RUN inside the package (postcopy), the point of
 * no return. Before it a failure leaves the guest to the source; after it the migration is paused,
 * and {@link DestinationMigration.recover} goes on over another connection.
 *
 * @see qemu_loadvm_state in QEMU's migration/savevm.c
 */
export class DestinationMigration {
  readonly #options: DestinationOptions;
  readonly #receiver: RamReceiver;
  readonly #ramLoad: RamLoad;
  readonly #globalState = new GlobalState();
  readonly #registry: DeviceRegistry;
  readonly #sections: IncomingSections;
  readonly #postcopy: IncomingPostcopy;
  readonly #requests: PageRequests;
  readonly #bitmaps: BitmapLoad;
  /** The channel for requested pages, with `postcopy-preempt`. */
  readonly #preempt: DestinationPreempt | undefined;
  #acceptChannel: OpenChannel | undefined;
  readonly #blocktime: PostcopyBlocktime | undefined;
  #multifd: MultifdDestination | undefined;
  #connection: DestinationConnection;
  #mapped: MappedRamLoad | undefined;
  #status: MigrationStatus = 'none';
  #error: Error | undefined;
  /** State of the devices as it was loaded, for a comparison at hand-over. */
  deviceStates: readonly DeviceState[] = [];

  /** @throws VmstateError `REGISTRATION_INVALID` when two of the guest's devices have one section */
  constructor(options: DestinationOptions) {
    this.#options = options;
    const { capabilities, clock } = options;
    const { ram } = options.guest;
    this.#registry = new DeviceRegistry([this.#globalState.device, ...options.guest.devices]);
    this.#sections = new IncomingSections(this.#registry);
    this.#receiver = new RamReceiver(ram);
    this.#postcopy = new IncomingPostcopy(ram, capabilities);
    if (capabilities.has('postcopy-blocktime')) {
      this.#blocktime = new PostcopyBlocktime(clock, options.guest.faults, ram.vcpus);
    }
    const onPlaced = (): void => this.#blocktime?.end();
    this.#ramLoad = new RamLoad(options.guest, this.#receiver, capabilities, {
      onDecoded: onPlaced,
    });
    this.#requests = new PageRequests(options.guest.faults, () => this.#blocktime?.begin());
    this.#bitmaps = new BitmapLoad(options);
    this.#acceptChannel = options.acceptChannel;
    if (capabilities.has('postcopy-preempt')) {
      this.#preempt = new DestinationPreempt({
        ram,
        clock,
        onPlaced,
        onBroken: (error) => this.abort(error),
      });
    }
    this.#connection = this.#connect(options.transport);
  }

  get status(): MigrationStatus {
    return this.#status;
  }
  /** Why it failed or is paused. */
  get error(): Error | undefined {
    return this.#error;
  }
  get info(): MigrationInfo {
    const { message } = this.#error ?? {};
    return {
      status: this.#status,
      ...(this.#postcopy.hasBegun ? this.#blocktime?.statistics : {}),
      ...(message === undefined ? {} : { 'error-desc': message }),
    };
  }
  /** Pages that were received and requests that were sent. */
  get counters(): IncomingCounters {
    const mappedPages = this.#mapped?.pages ?? 0;
    return sumCounters(
      this.#receiver.counters,
      [this.#preempt?.counters, this.#multifd?.received],
      this.#requests.count,
      mappedPages,
    );
  }

  /** Gives up: the connection is dropped, and what is under way fails with `reason`. */
  abort(reason: Error): void {
    this.#connection.destroy(reason);
    void this.#preempt?.stop(reason);
  }

  /** Drops the connection of a postcopy: {@link DestinationMigration.recover} goes on. @throws MigrationError `STATE` */
  pause(): void {
    checkCanPause(this.#status);
    this.abort(pausedByUser());
  }

  /** Runs the migration to its end, or to a pause; never rejects. The status says how it ended. */
  run(): Promise<MigrationStatus> {
    this.#setStatus('setup');
    return this.#drive(async () => {
      this.#multifd = receiveChannels(this.#options, (error) => this.#connection.destroy(error));
      await this.#readBeginning();
      this.#setStatus('active');
      await this.#readItems();
      if (this.#loadsBehind) await this.#loadBehind();
    });
  }

  /**
   * Goes on with a paused postcopy over a new connection, to its end or to the next pause: the source
   * asks for what is here before it sends the rest.
   *
   * @param transport owned by the migration from now on
   * @param acceptChannel waits for the source's next connection; default the one from the beginning
   * @throws MigrationError `STATE` when the migration is not paused
   */
  async recover(
    transport: Transport,
    acceptChannel: OpenChannel | undefined = this.#options.acceptChannel,
  ): Promise<MigrationStatus> {
    if (this.#status !== 'postcopy-paused') {
      throw new MigrationError('STATE', 'Migrate recover can only be run when postcopy is paused.');
    }
    this.#error = undefined;
    this.#receiver.reset(); // a host page of which a part came comes again
    this.#connection = this.#connect(transport);
    this.#acceptChannel = acceptChannel;
    this.#connection.input.maxReadBytes = POSTCOPY_READ_BYTES;
    this.#connection.returnPathOpen = true;
    this.#setStatus('postcopy-recover');
    const mapped = this.#mapped;
    if (mapped === undefined) return this.#drive(() => this.#readItems());
    return this.#drive(async () => {
      mapped.file = checkSeekable(transport);
      this.#setStatus('postcopy-active');
      await mapped.loadMissing(this.#options.guest);
    });
  }

  #connect(transport: Transport): DestinationConnection {
    return new DestinationConnection(transport, this.#receiver.input.bytes);
  }

  /** Reads from the connection, sees how it ends, and lets go of it. */
  async #drive(read: () => Promise<void>): Promise<MigrationStatus> {
    const connection = this.#connection;
    try {
      await read();
      this.#bitmaps.finish();
      if (this.#postcopy.isRunning) {
        await this.#preempt?.drained();
        this.#ramLoad.checkAllPlaced(this.#connection.input.reader.offset);
      } else await this.#finishPrecopy();
      // The guest is whole: it starts even when the source can no longer be told.
      await connection.answer({ name: 'shut', status: 0 }).catch(() => {});
      await this.#multifd?.destroy(); // whatever may still come, a guest that runs keeps its pages
      if (!this.#postcopy.isRunning) {
        this.#keepDeviceStates(); // behind SHUT: the source need not wait for it
        this.#startGuest();
      }
      this.#setStatus('completed');
    } catch (error) {
      if (this.#postcopy.isRunning && !this.#postcopy.isOfRam) {
        // The guest is whole, and runs: a backup can begin anew.
        this.#bitmaps.cancel((error as Error).message);
        await connection.close();
        this.#setStatus('completed');
        return this.#status;
      }
      this.#error = error as Error;
      if (this.#postcopy.isRunning) {
        connection.destroy(this.#error);
        await this.#preempt?.stop(this.#error);
        await this.#requests.stop();
        this.#setStatus('postcopy-paused');
        return this.#status;
      }
      this.#bitmaps.fail();
      await connection.tellFailure(this.#options.clock);
      await this.#multifd?.destroy();
      this.#setStatus('failed');
    }
    await connection.close();
    await this.#preempt?.stop(new MigrationError('STATE', 'The migration is over'));
    await this.#requests.stop();
    return this.#status;
  }

  async #readBeginning(): Promise<void> {
    const { guest, transport, capabilities } = this.#options;
    const { machineType } = guest;
    if (capabilities.has('mapped-ram')) {
      this.#mapped = new MappedRamLoad(checkSeekable(transport));
    }
    const { reader } = this.#connection.input;
    await this.#connection.input.parse(readHeader(reader));
    const configuration = await this.#connection.input.parse(readConfiguration(reader));
    // QEMU compares the received length only; so does this, to accept what QEMU accepts.
    if (!machineType.startsWith(configuration.machineType)) {
      throw new MigrationError(
        'MACHINE_MISMATCH',
        `Machine type received is '${configuration.machineType}' and local is '${machineType}'`,
        {
          path: ['configuration'],
          likely: 'Start both sides with the same versioned machine type',
        },
      );
    }
    checkConfiguredCapabilities(configuration.capabilities ?? [], capabilities);
  }

  /** Reads items until the end of the stream. */
  async #readItems(): Promise<void> {
    const { input } = this.#connection;
    const { reader } = input;
    for (;;) {
      const item = await input.parse(readItem(reader));
      if (item.type === 'eof') return;
      if (item.type === 'command') {
        await this.#command(await input.parse(readCommand(reader)), item.offset);
      } else {
        const { start, device } = this.#sections.resolve(item.head, item.offset);
        if (device === 'ram') await this.#loadRam(reader);
        else if (device === 'dirty-bitmap') await input.parse(this.#bitmaps.loadBody(reader));
        else await input.parse(this.#loadDevice(reader, start, device, item.offset));
        await input.parse(readFooter(reader, item.head.sectionId, start.idstr));
        await this.#loadMapped();
      }
    }
  }

  /** Loads pages that lie elsewhere in the file. */
  async #loadMapped(): Promise<void> {
    const places = this.#ramLoad.takeMapped();
    if (places.length === 0) return;
    for (const { block, place } of places) await this.#mapped!.addBlock(block, place);
    if (this.#loadsBehind) return;
    const pages = await this.#options.openPageFile?.();
    try {
      await this.#mapped!.loadAll(pages);
    } finally {
      await pages?.close();
    }
  }

  /** Whether the guest is to run before its pages are loaded from the file. */
  get #loadsBehind(): boolean {
    const { capabilities } = this.#options;
    return capabilities.has('mapped-ram') && capabilities.has('postcopy-ram');
  }

  /** Starts the guest with the pages that are zero, and loads the others behind it. @see QEMU's docs/devel/migration/fast-snapshot-load.rst, of releases after 11.1 */
  async #loadBehind(): Promise<void> {
    await this.#finishPrecopy();
    this.#mapped!.placeZeroPages(this.#options.guest.ram);
    this.#postcopy.runFromFile();
    this.#keepDeviceStates();
    this.#setStatus('postcopy-active');
    this.#startGuest();
    await this.#mapped!.loadMissing(this.#options.guest);
  }

  /** Loads a section of RAM; where the stream says so, it goes on once the channels have got there. */
  async #loadRam(reader: ByteReader): Promise<void> {
    const { input } = this.#connection;
    for (;;) {
      const end = await input.parse(this.#ramLoad.loadBody(reader, this.#postcopy.isAdvised));
      const isMark = (end === 'eos') === this.#multifd?.flushAfterEachSection;
      if (isMark) await this.#multifd?.sync();
      if (end === 'eos') return;
    }
  }

  *#loadDevice(
    reader: ByteReader,
    section: IncomingSection['start'],
    device: Device,
    offset: number,
  ): Parser<void> {
    try {
      yield* device.load(reader, section.version);
    } catch (cause) {
      throw deviceError('loading', section, cause, offset);
    }
  }

  async #command(command: Command, offset: number): Promise<void> {
    switch (command.name) {
      case 'open-return-path':
        this.#connection.returnPathOpen = true;
        return;
      case 'ping':
        return this.#connection.answer({ name: 'pong', value: command.value });
      case 'postcopy-advise':
        return this.#postcopy.advise(command, offset);
      case 'postcopy-ram-discard':
        return this.#postcopy.discard(command, offset);
      case 'postcopy-listen':
        this.#postcopy.listen(command, offset);
        if (!this.#postcopy.isOfRam) return;
        this.#receiver.enterPostcopy();
        this.#connection.input.maxReadBytes = POSTCOPY_READ_BYTES;
        await this.#preempt?.open(this.#acceptChannel);
        this.#requests.start(this.#connection);
        return;
      case 'postcopy-run':
        this.#postcopy.run(command, offset);
        this.#keepDeviceStates();
        this.#setStatus('postcopy-active');
        this.#startGuest();
        return;
      case 'packaged':
        return this.#package(command.lengthBytes, offset);
      case 'recv-bitmap':
        return this.#sendBitmap(command, offset);
      case 'postcopy-resume':
        return this.#resume(command, offset);
      case 'switchover-start': // news only: the devices follow
        return;
      default:
        throw unexpectedCommand(command, 'it was not agreed on', offset);
    }
  }

  /** Runs what is in a package, whole as it is; the stream goes on behind it. */
  async #package(lengthBytes: number, offset: number): Promise<void> {
    const { input } = this.#connection;
    const reader = await input.parse(readPackage(input.reader, lengthBytes, offset));
    while (reader.available > 0) {
      const item = runParser(readItem(reader), reader);
      if (item.type === 'eof') return;
      if (item.type === 'section') {
        const section = this.#sections.resolve(item.head, item.offset);
        const device = packagedDevice(item.head, section, item.offset);
        runParser(this.#loadDevice(reader, section.start, device, item.offset), reader);
        runParser(readFooter(reader, item.head.sectionId, section.start.idstr), reader);
      } else {
        const command = runParser(readCommand(reader), reader);
        if (command.name === 'packaged')
          throw unexpectedCommand(command, 'it is inside a package', item.offset);
        await this.#command(command, item.offset);
      }
    }
  }

  /** Tells the source which pages of a block are here. */
  #sendBitmap(command: Command & { name: 'recv-bitmap' }, offset: number): Promise<void> {
    this.#expectRecovery(command, offset);
    const bitmap = this.#postcopy.received(command, offset);
    return this.#connection.answer({ name: 'recv-bitmap', block: command.block, bitmap });
  }

  /** The source knows what is missing: it may be asked for pages again. */
  async #resume(command: Command, offset: number): Promise<void> {
    this.#expectRecovery(command, offset);
    await this.#preempt?.open(this.#acceptChannel);
    this.#setStatus('postcopy-active');
    await this.#connection.answer({ name: 'resume-ack', value: RESUME_ACK_VALUE });
    this.#requests.start(this.#connection);
  }

  #expectRecovery(command: Command, offset: number): void {
    if (this.#status === 'postcopy-recover') return;
    throw unexpectedCommand(command, `${command.name} outside of a recovery`, offset);
  }

  async #finishPrecopy(): Promise<void> {
    const { reader } = this.#connection.input;
    // Discarded pages are stale: only RUN, and the pages behind it, make the guest whole again.
    if (this.#postcopy.isBetween) {
      throw new MigrationError('COMMAND_UNEXPECTED', 'The stream ends in the middle of postcopy', {
        expected: 'POSTCOPY_RUN',
        found: 'the end of the stream',
        offset: reader.offset,
        likely: 'The source gave up its switch to postcopy: its guest runs on',
      });
    }
    // Without a return path the source may close right behind EOF; with one it waits for SHUT.
    const length = await this.#connection.input.parse(readVmdescLength(reader));
    if (length !== undefined) await this.#connection.input.parse(skip(reader, length));
    const { guest, capabilities } = this.#options;
    this.#ramLoad.checkAllCame();
    if (capabilities.has('x-ignore-shared')) await guest.shared?.load();
  }

  /** Encodes the devices anew, for a comparison; nothing that goes wrong with it may keep the guest from running. */
  #keepDeviceStates(): void {
    try {
      this.deviceStates = this.#registry
        .inSectionOrder()
        .filter((device) => device.isNeeded())
        .map(encodeDevice);
    } catch {
      this.deviceStates = []; // no state equals what was sent: the comparison says that it differs
    }
  }

  #startGuest(): void {
    const { guest, autostart = true, onWarning } = this.#options;
    // In precopy whatever did not come is zero; in postcopy missing pages are waited for.
    if (!this.#postcopy.isRunning || !this.#postcopy.isOfRam) guest.ram.setAllReceived(true);
    this.#bitmaps.beforeStart();
    try {
      guest.disks?.activate();
    } catch (error) {
      // Too late for the source to take the guest back.
      onWarning?.(`The guest stays paused, its disks cannot be used: ${(error as Error).message}`);
      return;
    }
    if (autostart && this.#globalState.runState === 'running') guest.start();
  }

  #setStatus(status: MigrationStatus): void {
    this.#status = status;
    this.#options.onStatus?.(status);
  }
}
