import { BytesError, ByteWriter } from '@wherry/bytes';
import {
  type Command,
  RAM_SECTION,
  RamFlag,
  type ReturnPathMessage,
  SectionType,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamList,
  writeRamWord,
  writeSectionHead,
} from '@wherry/stream';
import type { Clock } from './clock.ts';
import { MigrationError } from './migration-error.ts';
import type { MigrationStatus } from './migration-info.ts';
import { SourceConnection, unexpected } from './source-connection.ts';
import type { OpenChannel } from './source-options.ts';
import { hasEarlyPreempt } from './source-preempt.ts';
import { recvBitmapBytes, SourceRecovery } from './source-recovery.ts';
import { outcomeUnknown, shorter } from './stored-errors.ts';
import type { StoredGuestPort, StoredRange } from './stored-guest-port.ts';
import { BEGIN_MS, noBegin, type StoredChannels, StoredMultifd } from './stored-multifd.ts';
import { StoredPages } from './stored-pages.ts';
import type { Transport } from './transport.ts';

/** Bytes of page records in one PART section of precopy, as a live source has. */
const PART_BYTES = 8 * 1024 * 1024;
/** Bytes of a range that are read at once. */
const COPY_BYTES = 1024 * 1024;
/** Target pages in one section of postcopy's background. */
const POSTCOPY_PART_PAGES = 128;
/**
 * Target pages that may be on their way to a destination whose guest asks for pages, and to one that has
 * not for a while: an answer waits until the destination has placed all of them.
 */
const WINDOW_PAGES = { asking: 256, quiet: 2048 } as const;
/** 11.1 sees only when something comes that its devices failed to load. */
const REMIND_EVERY_MS = 100;
const QUIET_AFTER_MS = 100;
/** Numbers of the pings that mark phases, as a live source has them. */
const PING = { begin: 1, ready: 2, loaded: 3, packaged: 4 } as const;
/** Pings from this number on tell what the destination has placed. */
const FIRST_WINDOW_PING = 16;

/** What {@link StoredSource} needs. */
export interface StoredSourceOptions {
  readonly guest: StoredGuestPort;
  /** A connection to the destination, owned by the source from now on. */
  readonly transport: Transport;
  readonly clock: Clock;
  /** Whether the destination is to say how it ended; postcopy always has it. */
  readonly returnPath: boolean;
  readonly postcopy: boolean;
  /** Tells a block's host page size at the destination; postcopy alone needs it. */
  readonly hostPageBytes?: (block: string) => number;
  /** With the capability `multifd`, in precopy: what the pages go through. */
  readonly multifd?: StoredChannels;
  /** With `postcopy-preempt`, in postcopy: opens a connection more to the destination. */
  readonly openPreempt?: OpenChannel;
  readonly onStatus?: (status: MigrationStatus) => void;
}

/** How a {@link StoredSource} is doing. */
export interface StoredProgress {
  readonly status: MigrationStatus;
  /** Bytes handed to the connection. */
  readonly streamBytes: number;
  readonly zeroPages: number;
  readonly normalPages: number;
  readonly owedPages: number;
  /** Requests of the destination. */
  readonly requests: number;
}

/**
 * Sends a guest that stands still in a file: in precopy all pages, then the devices; in postcopy the
 * devices, then the pages, those that the destination asks for first.
 *
 * The guest stays in the file whatever happens. Between the last write of precopy, or the package of
 * postcopy, and the destination's answer nobody here can know whether it runs there: `OUTCOME_UNKNOWN`.
 * A postcopy that breaks behind that is `postcopy-paused`: the file and
 * {@link StoredSource.recover} over another connection are all that it takes to go on, also in another
 * process.
 *
 * @see migration_thread in QEMU's migration/migration.c
 */
export class StoredSource {
  readonly #options: StoredSourceOptions;
  readonly #connection: SourceConnection;
  readonly #pages: StoredPages;
  readonly #multifd: StoredMultifd | undefined;
  readonly #recovery: SourceRecovery<{ readonly name: string; readonly pageCount: number }>;
  #status: MigrationStatus = 'none';
  #error: Error | undefined;
  #commitment: 'none' | 'handing-over' | 'postcopy' = 'none';
  /** Whether the destination has loaded the devices: behind that, in postcopy, its guest runs. */
  #isLoaded = false;
  #requests = 0;
  #requestBlock: string | undefined;
  /** What went out with each ping, by its number from {@link FIRST_WINDOW_PING} on. */
  readonly #underWay: number[] = [];
  #oldestPing = FIRST_WINDOW_PING;
  #lastRequestMs = 0;
  #wake = Promise.withResolvers<void>();
  /** The ping whose answer is waited for. */
  #awaited: { readonly value: number; readonly answered: () => void } | undefined;

  /** @throws MigrationError `PAGE_SIZE_MISMATCH` */
  constructor(options: StoredSourceOptions) {
    this.#options = options;
    const { guest, postcopy, hostPageBytes, multifd, openPreempt: open } = options;
    const pageBytes = (postcopy ? hostPageBytes : undefined) ?? (() => guest.targetPageBytes);
    this.#pages = new StoredPages(guest, pageBytes, open !== undefined);
    this.#recovery = new SourceRecovery(this.#pages, this.#pages);
    const preempt = open && { sender: this.#pages, open, onAwaited: () => {} };
    this.#connection = new SourceConnection(options.transport, preempt);
    if (this.#hasEarlyPreempt) this.#connection.preempt?.connect();
    const { signal, output } = this.#connection;
    this.#multifd = multifd && new StoredMultifd(guest, this.#pages, multifd, output);
    signal.addEventListener('abort', () => {
      void this.#multifd?.destroy(signal.reason);
      this.#wake.resolve();
      this.#awaited?.answered();
    });
  }

  get status(): MigrationStatus {
    return this.#status;
  }
  /** Why it failed or is paused. */
  get error(): Error | undefined {
    return this.#error;
  }
  get progress(): StoredProgress {
    const { zeroPages, normalPages, owedPages } = this.#pages;
    const packets = this.#multifd?.sent ?? { bytes: 0, zeroPages: 0, normalPages: 0 };
    return {
      status: this.#status,
      streamBytes: this.#bytes,
      zeroPages: zeroPages + packets.zeroPages,
      normalPages: normalPages + packets.normalPages,
      owedPages,
      requests: this.#requests,
    };
  }

  /** A guest without a configuration is of a machine type before 2.4. */
  get #hasEarlyPreempt(): boolean {
    const { configuration } = this.#options.guest;
    return configuration === undefined || hasEarlyPreempt(configuration.machineType);
  }

  get #bytes(): number {
    return this.#connection.bytes + (this.#multifd?.sent.bytes ?? 0);
  }

  /** Ends it with a reason: a precopy fails, a postcopy whose guest may run is paused. */
  stopWith(reason: MigrationError): void {
    this.#connection.stopWith(reason);
  }

  /** Sends the guest; never rejects. The status says how it ended. */
  run(): Promise<MigrationStatus> {
    return this.#drive(async () => {
      await this.#setUp();
      if (this.#options.postcopy) await this.#postcopy();
      else await this.#precopy();
    });
  }

  /** Goes on with a postcopy that was broken, over a new connection: the destination tells what it has. */
  recover(): Promise<MigrationStatus> {
    this.#commitment = 'postcopy';
    this.#isLoaded = true; // whoever waits for a recovery runs the guest
    return this.#drive(async () => {
      this.#setStatus('postcopy-recover');
      await this.#recovery.run(this.#connection, { command: (command) => this.#command(command) });
      await this.#sendOwed();
    });
  }

  async #drive(send: () => Promise<void>): Promise<MigrationStatus> {
    const connection = this.#connection;
    const { returnPath, postcopy, clock } = this.#options;
    const replies = returnPath || postcopy ? this.#readReturnPath() : undefined;
    try {
      await send();
      await connection.end();
      await replies;
      if (replies !== undefined && connection.shut !== 0) connection.checkAborted();
      this.#setStatus('completed');
    } catch (error) {
      if (error instanceof MigrationError) connection.stopWith(error);
      if (replies !== undefined) await connection.awaitLastWord(replies, clock);
      if (connection.shut === 0 && this.#commitment !== 'none') this.#setStatus('completed');
      else await this.#fail(error as Error, replies);
    }
    await connection.close();
    return this.#status;
  }

  async #fail(thrown: Error, replies: Promise<void> | undefined): Promise<void> {
    await this.#connection.close(thrown);
    await this.#multifd?.destroy(thrown);
    await replies;
    const { shut, signal } = this.#connection;
    const cause: Error = signal.reason ?? thrown;
    const isPaused = this.#commitment === 'postcopy' && this.#isLoaded;
    // It closed behind all of its answers, and that it has loaded the devices was not among them.
    const hasRefused = cause.cause instanceof BytesError && !this.#isLoaded;
    const hasFailed = hasRefused || (shut !== undefined && shut !== 0);
    const isUnknown = !isPaused && this.#commitment !== 'none' && !hasFailed;
    this.#error = isUnknown ? outcomeUnknown(cause) : cause;
    this.#setStatus(isPaused ? 'postcopy-paused' : 'failed');
  }

  async #setUp(): Promise<void> {
    const { guest, postcopy, returnPath } = this.#options;
    const { output } = this.#connection;
    this.#setStatus('setup');
    writeHeader(output.frames);
    if (guest.configuration !== undefined) writeConfiguration(output.frames, guest.configuration);
    if (returnPath || postcopy) {
      this.#command({ name: 'open-return-path' });
      if (this.#multifd === undefined) this.#command({ name: 'ping', value: PING.begin });
      else await this.#awaitBegin();
    }
    if (postcopy) {
      const sizes = guest.blocks.map(({ name }) => this.#hostPageBytes(name));
      const pageSizesSummary = sizes.reduce((sum, size) => sum | BigInt(size), 0n);
      const targetPageBytes = BigInt(guest.targetPageBytes);
      this.#command({ name: 'postcopy-advise', ram: { pageSizesSummary, targetPageBytes } });
    }
    await this.#copy(guest.beforeRam);
    const head = { sectionId: guest.ramSectionId, ...RAM_SECTION };
    writeSectionHead(output.frames, { kind: 'start', ...head });
    const entries = guest.blocks.map(({ name, usedBytes }) => {
      const pageBytes = this.#hostPageBytes(name);
      const isStated = postcopy && pageBytes !== guest.targetPageBytes;
      return { name, usedBytes, ...(isStated ? { pageBytes } : {}) };
    });
    writeRamList(output.frames, entries);
    await this.#multifd?.start();
    this.#ramEnd();
    await this.#copy(guest.beforePages);
    await output.flush();
    this.#setStatus('active');
  }

  #hostPageBytes(block: string): number {
    const { guest, hostPageBytes } = this.#options;
    return hostPageBytes?.(block) ?? guest.targetPageBytes;
  }

  /** Sends all pages, the devices and the end. The point of no return is its last write. */
  async #precopy(): Promise<void> {
    const { output } = this.#connection;
    const { guest, clock } = this.#options;
    while (this.#pages.owedPages > 0) {
      const until = this.#bytes + PART_BYTES;
      this.#ramHead('part');
      while (this.#bytes < until && this.#pages.owedPages > 0) {
        if (this.#multifd === undefined) await this.#sendPages(Number.POSITIVE_INFINITY);
        else await this.#multifd.sendNext();
        await clock.yield(); // writes that succeed at once would keep everything else waiting
      }
      await this.#multifd?.endSection(false);
      this.#ramEnd();
    }
    if (guest.announcesSwitchover) this.#command({ name: 'switchover-start' });
    this.#ramHead('end');
    await this.#multifd?.endSection(true);
    this.#ramEnd();
    await this.#copy(guest.behindPages);
    // Whoever does not load the devices says so here, while it surely has no guest.
    if (this.#options.returnPath) await this.#answerTo(PING.loaded);
    await output.flush();
    this.#connection.checkAborted();
    this.#commitment = 'handing-over';
    output.frames.u8(SectionType.eof);
    if (guest.vmdesc !== undefined) await this.#copy([guest.vmdesc]);
    await output.flush();
    await this.#multifd?.end();
  }

  /** Hands the guest over, then sends its pages. */
  async #postcopy(): Promise<void> {
    const { output } = this.#connection;
    const { guest } = this.#options;
    await this.#connection.openPreempt();
    if (guest.announcesSwitchover) this.#command({ name: 'switchover-start' });
    for (const { name: block, usedBytes: length } of guest.blocks) {
      this.#command({ name: 'postcopy-ram-discard', block, ranges: [{ start: 0, length }] });
    }
    // Whoever refuses the machine or its RAM says so here.
    await this.#answerTo(PING.ready);
    this.#connection.preempt?.checkOpen();
    const before = new ByteWriter();
    writeCommand(before, { name: 'postcopy-listen' });
    const behind = new ByteWriter();
    writeCommand(behind, { name: 'ping', value: PING.loaded });
    writeCommand(behind, { name: 'postcopy-run' });
    const sections = guest.behindPages.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    const lengthBytes = before.length + sections + behind.length;
    this.#command({ name: 'packaged', lengthBytes });
    output.frames.raw(before.bytes);
    await this.#copy(guest.behindPages);
    this.#connection.checkAborted();
    this.#commitment = 'postcopy';
    output.frames.raw(behind.bytes);
    this.#command({ name: 'ping', value: PING.packaged });
    await output.flush();
    await this.#sendOwed();
  }

  /** Sends what is owed in postcopy, and the end of the stream. */
  async #sendOwed(): Promise<void> {
    const { output, preempt } = this.#connection;
    const { clock } = this.#options;
    this.#setStatus('postcopy-active');
    this.#lastRequestMs = clock.now();
    preempt?.serve(); // what was requested before
    while (this.#pages.owedPages > 0) {
      if (!this.#pages.hasNext) {
        await preempt?.settled();
        this.#connection.checkAborted();
        continue;
      }
      await this.#awaitWindow();
      this.#ramHead('part');
      let pages = 0;
      // Older destinations lose a host page that two sections share.
      do pages += await this.#sendPages(POSTCOPY_PART_PAGES);
      while (this.#pages.insideHostPage);
      this.#ramEnd();
      this.#command({ name: 'ping', value: this.#oldestPing + this.#underWay.length });
      this.#underWay.push(pages);
      await output.flush();
      await clock.yield();
    }
    await preempt?.settled();
    preempt?.checkOpen();
    this.#ramHead('end');
    this.#ramEnd();
    output.frames.u8(SectionType.eof);
    await output.flush();
    // Who has all pages may have closed it already: how that went it says over the main connection.
    if (this.#hasEarlyPreempt) await preempt?.end().catch(() => {});
  }

  /** Waits for the first answer: a destination says nothing before it has all the channels that it expects. */
  async #awaitBegin(): Promise<void> {
    const given = new AbortController();
    this.#options.clock.sleep(BEGIN_MS, given.signal).then(
      () => this.stopWith(noBegin()),
      () => {},
    );
    try {
      await this.#answerTo(PING.begin);
    } finally {
      given.abort();
    }
  }

  /** Pings the destination, and waits until it has read so far. */
  async #answerTo(value: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#awaited = { value, answered: resolve };
    this.#command({ name: 'ping', value });
    await this.#connection.output.flush();
    await promise;
    this.#connection.checkAborted();
  }

  /** Waits until little enough is on its way, or a page is asked for. */
  async #awaitWindow(): Promise<void> {
    const { clock } = this.#options;
    for (;;) {
      this.#connection.checkAborted();
      if (this.#connection.preempt === undefined && this.#pages.hasRequests) return;
      if (this.#isLoaded) {
        const isAsking = clock.now() - this.#lastRequestMs < QUIET_AFTER_MS;
        const window = isAsking ? WINDOW_PAGES.asking : WINDOW_PAGES.quiet;
        if (this.#underWay.reduce((sum, pages) => sum + pages, 0) < window) return;
        this.#wake = Promise.withResolvers();
        await this.#wake.promise;
      } else {
        // While it loads the devices it gets the pages alone that they read.
        this.#wake = Promise.withResolvers();
        const given = new AbortController();
        const waited = clock.sleep(REMIND_EVERY_MS, given.signal).catch(() => {});
        await Promise.race([this.#wake.promise, waited]);
        given.abort();
        if (!this.#isLoaded) this.#command({ name: 'ping', value: PING.packaged });
        await this.#connection.output.flush();
      }
    }
  }

  /** Sends one chunk of records; gives its target pages. */
  async #sendPages(maxPages: number): Promise<number> {
    this.#connection.checkAborted();
    const chunk = this.#pages.next(maxPages);
    if (chunk === undefined) return 0;
    await this.#connection.output.sendChunk(chunk);
    return chunk.pages;
  }

  #ramHead(kind: 'part' | 'end'): void {
    const { ramSectionId: sectionId } = this.#options.guest;
    writeSectionHead(this.#connection.output.frames, { kind, sectionId });
  }

  #ramEnd(): void {
    const { frames } = this.#connection.output;
    writeRamWord(frames, 0, RamFlag.eos);
    const { hasFooters, ramSectionId } = this.#options.guest;
    if (hasFooters) writeFooter(frames, ramSectionId);
  }

  #command(command: Command): void {
    writeCommand(this.#connection.output.frames, command);
  }

  /** Sends ranges of the file as they are. */
  async #copy(ranges: readonly StoredRange[]): Promise<void> {
    const { guest } = this.#options;
    const { output } = this.#connection;
    for (const { offset, lengthBytes } of ranges) {
      for (let at = 0; at < lengthBytes; ) {
        const piece = new Uint8Array(Math.min(COPY_BYTES, lengthBytes - at));
        const count = guest.readBytes(piece, offset + at);
        if (count === 0) throw shorter(offset + at);
        output.frames.raw(piece.subarray(0, count));
        at += count;
        if (output.frames.length >= COPY_BYTES) await output.flush();
      }
    }
  }

  /** Reads the destination's messages until it is done. */
  async #readReturnPath(): Promise<void> {
    const connection = this.#connection;
    const largest = Math.max(...this.#pages.blocks.map(({ pageCount }) => pageCount));
    await connection.readMessages(recvBitmapBytes(largest), (message) => this.#handle(message));
  }

  #handle(message: ReturnPathMessage): void {
    const isRecovering = this.#status === 'postcopy-recover';
    switch (message.name) {
      case 'shut':
        // Before its ACK a destination still lacks pages: nothing has been sent of them.
        if (isRecovering && message.status === 0) throw unexpected(message);
        this.#connection.shut = message.status;
        return;
      case 'pong':
        this.#connection.pong();
        if (message.value === PING.loaded) this.#isLoaded = true;
        if (message.value === this.#awaited?.value) this.#awaited.answered();
        while (this.#underWay.length > 0 && this.#oldestPing <= message.value) {
          this.#underWay.shift();
          this.#oldestPing += 1;
        }
        this.#wake.resolve();
        return;
      case 'req-pages': {
        if (this.#commitment !== 'postcopy') throw unexpected(message);
        const { block = this.#requestBlock ?? '', start, length } = message;
        this.#requestBlock = block;
        this.#requests += 1;
        this.#lastRequestMs = this.#options.clock.now();
        this.#pages.request(block, start, length);
        if (this.#status === 'postcopy-active') this.#connection.preempt?.serve();
        this.#wake.resolve();
        return;
      }
      case 'recv-bitmap':
        if (!isRecovering) throw unexpected(message);
        this.#recovery.takeBitmap(message.block, message.bitmap);
        return;
      case 'resume-ack':
        if (!isRecovering) throw unexpected(message);
        this.#recovery.takeAck(message.value);
        this.#setStatus('postcopy-active'); // before the requests that follow
        return;
      case 'switchover-ack': // nothing waits for it: the guest stands still from the beginning
        return;
    }
  }

  #setStatus(status: MigrationStatus): void {
    if (this.#status === status) return;
    this.#status = status;
    this.#options.onStatus?.(status);
  }
}
