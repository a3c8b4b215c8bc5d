import { setTimeout as sleep } from 'node:timers/promises';
import { ByteReader, ByteWriter, type Parser } from '@wherry/bytes';
import {
  flushesAfterEachSection,
  type MultifdDestination,
  type Transport,
} from '@wherry/migration';
import { type RamSink, StreamWalk } from '@wherry/snapshot';
import {
  type Command,
  type Configuration,
  RESUME_ACK_VALUE,
  type ReturnPathMessage,
  writeReturnPathMessage,
} from '@wherry/stream';
import type { MultifdChannels } from './multifd-channels.ts';
import { ReceiveError } from './receive-error.ts';
import { SectionCopier } from './section-copier.ts';

const CHUNK_BYTES = 1024 * 1024;

/** Where the guest goes. */
export interface GuestSink extends RamSink {
  /** Begins, when the source has said what it is. */
  start(configuration: Configuration | undefined, pageBytes: number): void;
  /** Hears that the `ram` section begins, before its blocks. */
  beginRam(sectionId: number): void;
  /** Hears that the list of blocks is over; pages still come. */
  endRam(): void;
  /** Takes sections other than `ram`, the end and the vmdesc, byte for byte; a view valid during the call. */
  append(bytes: Uint8Array): void;
  /** Hears that what was appended is a whole section. */
  endSection(): void;
  /** Forgets the part of a section that was appended when the connection broke. */
  dropPart(): void;
  /** Hears that pages are stale: they come again. */
  discard(block: string, start: number, lengthBytes: number): void;
  /** Gives a bit for each page of a block that came, least significant first, in whole words of 8 bytes. */
  received(block: string): Uint8Array | undefined;
  /** Resolves when everything is safe. */
  finish(): Promise<void>;
}

/** How long a receiver waits for what may not come, and what ends it. */
export interface ReceiverOptions {
  /** Ends it before the source is told that all is well; whoever aborts also destroys the transport. */
  readonly signal?: AbortSignal | undefined;
  /** Whether to acknowledge the switchover, which a source with `switchover-ack` on waits for (from 8.1 on). */
  readonly acknowledgesSwitchover?: boolean;
  /** The channels over which pages come, too. */
  readonly multifd?: MultifdChannels | undefined;
  /**
   * Waits for the connection over which a source goes on with a postcopy whose link broke; without it
   * a break ends the migration.
   */
  readonly reconnect?: (why: Error) => Promise<Transport>;
  /** Is waited for when the stream is over; what it throws ends the migration. */
  readonly beforeEnd?: () => Promise<void>;
  /** For the first byte of a connection (default 30 s). */
  readonly firstByteMs?: number;
  /** For a vmdesc behind the end, with an open return path (default 2 s). */
  readonly vmdescMs?: number;
  /** For the source to close the connection when all has been said (default 10 s). */
  readonly closeMs?: number;
}

/** A connection, and how far its bytes are read. */
interface Connection {
  readonly transport: Transport;
  readonly walk: StreamWalk;
  readonly parser: Parser<void>;
  readonly reader: ByteReader;
  readonly copier: SectionCopier;
  receivedBytes: number;
}

/**
 * Receives one migration as a destination that only keeps the guest.
 *
 * The end of a precopy, step by step:
 * - The source writes EOF and the vmdesc together. Without a return path it then closes the connection.
 * - With one it waits for SHUT 0 first. SHUT goes out when the vmdesc is read and everything is on the
 *   disk: from then on the source holds the guest no more.
 * - A machine type may suppress the vmdesc, and nothing in the stream says so. With a return path
 *   neither side would ever move then, so a quiet time behind EOF counts as "no vmdesc"; it is long
 *   against the gap inside the one write that carries both. A stream without a vmdesc loads as well.
 * - A source that is gone before it got its SHUT changes nothing: as for QEMU's own destination, the
 *   guest is whole and may live here alone.
 *
 * In postcopy no page is asked for: nobody runs the guest, and the source sends them all. From RUN on
 * the guest is neither here nor there whole, so that a lost connection does not end the migration: the
 * source goes on over another one.
 */
export class StreamReceiver {
  /** The walk of the first connection, which tells what the guest is. */
  readonly walk: StreamWalk;
  readonly #sink: GuestSink;
  readonly #times: Required<Pick<ReceiverOptions, 'firstByteMs' | 'vmdescMs' | 'closeMs'>>;
  readonly #options: ReceiverOptions;
  #connection: Connection;
  #receivedBytes = 0;
  #returnPath = false;
  #replies = new ByteWriter();
  #hasStarted = false;
  #targetPageBytes: bigint | undefined;
  #isRunning = false;
  #multifd: MultifdDestination | undefined;
  #marks = 0;
  #trailingBytes = 0;
  #confirmed = false;

  constructor(transport: Transport, sink: GuestSink, options: ReceiverOptions = {}) {
    this.#sink = sink;
    this.#options = options;
    const { firstByteMs = 30_000, vmdescMs = 2_000, closeMs = 10_000 } = options;
    this.#times = { firstByteMs, vmdescMs, closeMs };
    this.#connection = this.#open(transport, (walk, reader) => walk.walk(reader));
    this.walk = this.#connection.walk;
  }

  /** Bytes received so far over all connections; without those behind the end once all is received. */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** Bytes that came behind the end of the stream; they were dropped. */
  get trailingBytes(): number {
    return this.#trailingBytes;
  }

  /** Whether the source has opened a return path. */
  get hasReturnPath(): boolean {
    return this.#returnPath;
  }

  /** Whether the source may switch to postcopy. */
  get isPostcopy(): boolean {
    return this.#targetPageBytes !== undefined;
  }

  /** Whether the source has given its guest away in postcopy: what is missing of it exists there only. */
  get isRunning(): boolean {
    return this.#isRunning;
  }

  /**
   * Receives to the end; the source has been told by then if it listens.
   *
   * @throws StreamError, BytesError, TransportError, ReceiveError, or an error of the sink; a source that listens was told of it
   */
  async receive(): Promise<void> {
    for (;;) {
      try {
        await this.#receive();
        return;
      } catch (error) {
        const { reconnect, signal } = this.#options;
        if (this.#isRunning && !this.#confirmed && reconnect !== undefined && !signal?.aborted) {
          // The source learns of the break from the connection's end: it must not take it for a failure.
          this.#connection.transport.destroy();
          this.#sink.dropPart();
          this.#connection = this.#open(await reconnect(error as Error), (walk, reader) =>
            walk.walkFile(reader),
          );
          continue;
        }
        // From 10.0 on a destination says that it failed; the source then reports a failure at once.
        if (this.#returnPath && !this.#confirmed) {
          await within(this.#send({ name: 'shut', status: 1 }), 1000).catch(() => {});
        }
        throw error;
      }
    }
  }

  /** Drops the connection: what is under way fails with `reason`. */
  destroy(reason?: Error): void {
    this.#options.multifd?.destroy();
    this.#connection.transport.destroy(reason);
  }

  #open(
    transport: Transport,
    parse: (walk: StreamWalk, reader: ByteReader) => Parser<void>,
  ): Connection {
    const copier = new SectionCopier((bytes) => this.#sink.append(bytes));
    let isList = false;
    const walk: StreamWalk = new StreamWalk({
      keepBodies: false,
      ramSink: this.#sink,
      onCommand: (command) => this.#obey(command),
      onSection: (kind, { idstr, sectionId }, offset) => {
        this.#start(walk);
        copier.begin(offset, idstr !== 'ram');
        isList = idstr === 'ram' && kind === 'start';
        if (isList) this.#sink.beginRam(sectionId);
      },
      onRamMark: (mark) => this.#mark(mark),
      onSectionEnd: (offset) => {
        copier.end(offset);
        if (isList) this.#sink.endRam();
        else this.#sink.endSection();
        isList = false;
      },
      onEof: () => {
        this.#start(walk);
        copier.begin(walk.model.eofOffset!, true);
      },
    });
    const reader = new ByteReader({ storage: new Uint8Array(CHUNK_BYTES) });
    return { transport, walk, reader, parser: parse(walk, reader), copier, receivedBytes: 0 };
  }

  #start({ model: { configuration } }: StreamWalk): void {
    if (this.#hasStarted) return;
    this.#hasStarted = true;
    const flushesEach = flushesAfterEachSection(configuration?.machineType ?? '');
    this.#multifd = this.#options.multifd?.start(flushesEach, (error) => this.destroy(error));
    const bits = configuration?.targetPageBits ?? 12;
    this.#sink.start(configuration, Number(this.#targetPageBytes ?? 2 ** bits));
  }

  /** Hears of a mark for the channels. @returns whether they are to be waited for */
  #mark(mark: 'eos' | 'flush'): boolean {
    const multifd = this.#multifd;
    if (multifd === undefined) {
      if (mark === 'flush') throw refused('multifd');
      return false;
    }
    // In postcopy pages come through the main connection alone, and no packet follows.
    if (this.#isRunning || multifd.flushAfterEachSection !== (mark === 'eos')) return false;
    this.#marks++;
    return true;
  }

  async #receive(): Promise<void> {
    const connection = this.#connection;
    const { parser, reader, copier, walk } = connection;
    for (let step = parser.next(); step.done !== true; step = parser.next()) {
      await this.#flushReplies();
      if (this.#marks > 0) {
        this.#marks--;
        await this.#multifd!.sync();
        continue;
      }
      if (walk.model.vmdesc !== undefined) break;
      copier.settle(reader.offset);
      const room = reader.space();
      const count = await this.#read(room);
      if (count === undefined && walk.model.eofOffset !== undefined) break;
      if (!count) {
        reader.finish();
      } else {
        this.#receivedBytes += count;
        connection.receivedBytes += count;
        reader.commit(count);
        copier.take(room.subarray(0, count));
      }
    }
    const { eofOffset = 0, vmdesc } = walk.model;
    const end = vmdesc === undefined ? eofOffset + 1 : vmdesc.offset + 5 + vmdesc.lengthBytes;
    copier.end(end);
    await this.#options.beforeEnd?.();
    await this.#sink.finish();
    this.#options.signal?.throwIfAborted();
    // The point of no return: the source gives its guest up. Nothing below may fail.
    this.#confirmed = true;
    this.#trailingBytes = connection.receivedBytes - end;
    this.#receivedBytes -= this.#trailingBytes;
    if (this.#returnPath) await this.#send({ name: 'shut', status: 0 }).catch(() => {});
    await this.#drain();
  }

  /** Reads; undefined when the source waits for SHUT, so that nothing more will come. */
  async #read(into: Uint8Array): Promise<number | undefined> {
    const { transport, receivedBytes, walk, reader } = this.#connection;
    const { firstByteMs, vmdescMs } = this.#times;
    const { eofOffset } = walk.model;
    const isAtEof = eofOffset === undefined ? reader.mayBeOver : receivedBytes === eofOffset + 1;
    if (isAtEof && this.#isRunning) return undefined; // no vmdesc follows a postcopy
    const read = transport.read(into);
    if (receivedBytes === 0) {
      const count = await within(read, firstByteMs);
      if (count !== undefined) return count;
      throw new ReceiveError('NOTHING_SENT', 'The connection stays silent', {
        expected: 'a migration stream',
        found: `no byte within ${firstByteMs / 1000} s`,
        offset: 0,
        likely: 'Something other than a migration source connected: look at what uses this address',
      });
    }
    return isAtEof && this.#returnPath ? within(read, vmdescMs) : read;
  }

  /** Waits for the source to close; what it sends still does not belong to the stream. */
  async #drain(): Promise<void> {
    const deadline = performance.now() + this.#times.closeMs;
    const scrap = new Uint8Array(4096);
    const { transport } = this.#connection;
    try {
      for (let count: number | undefined = 1; count; ) {
        count = await within(transport.read(scrap), deadline - performance.now());
        this.#trailingBytes += count ?? 0;
        if (performance.now() > deadline) return;
      }
    } catch {
      // Dropped or closed: either way it has gone.
    }
  }

  #obey(command: Command): void {
    switch (command.name) {
      case 'open-return-path':
        this.#returnPath = true;
        if (this.#options.acknowledgesSwitchover) this.#reply({ name: 'switchover-ack' });
        return;
      case 'ping':
        if (!this.#returnPath) {
          throw new ReceiveError('UNSUPPORTED', 'A ping came before the return path was opened', {
            likely: 'The stream is damaged, or something other than a migration source sent it',
          });
        }
        this.#reply({ name: 'pong', value: command.value });
        return;
      case 'postcopy-advise':
        this.#targetPageBytes = command.ram?.targetPageBytes;
        return;
      case 'postcopy-ram-discard':
        for (const { start, length } of command.ranges) {
          this.#sink.discard(command.block, start, length);
        }
        return;
      case 'postcopy-run':
        this.#isRunning = true;
        return;
      case 'recv-bitmap':
        this.#sendBitmap(command.block);
        return;
      case 'postcopy-resume':
        this.#reply({ name: 'resume-ack', value: RESUME_ACK_VALUE });
        return;
      case 'switchover-start':
      case 'postcopy-listen':
      case 'packaged':
        return;
      default:
        throw refused('x-colo');
    }
  }

  /** Tells a source that goes on what is here of a block. */
  #sendBitmap(block: string): void {
    const bitmap = this.#sink.received(block);
    if (bitmap === undefined) {
      throw new ReceiveError(
        'UNSUPPORTED',
        `The source asks for a RAM block that was never listed`,
        {
          found: JSON.stringify(block),
          likely: 'It goes on with another migration than the one that broke',
        },
      );
    }
    this.#reply({ name: 'recv-bitmap', block, bitmap });
  }

  #reply(message: ReturnPathMessage): void {
    writeReturnPathMessage(this.#replies, message);
  }

  async #flushReplies(): Promise<void> {
    if (this.#replies.length === 0) return;
    const replies = this.#replies.finish();
    this.#replies = new ByteWriter();
    await this.#connection.transport.write(replies);
  }

  async #send(message: ReturnPathMessage): Promise<void> {
    const writer = new ByteWriter();
    writeReturnPathMessage(writer, message);
    await this.#connection.transport.write(writer.finish());
  }
}

function refused(capability: string): ReceiveError {
  return new ReceiveError('UNSUPPORTED', `The source migrates with ${capability}`, {
    likely: `Switch ${capability} off at the source and migrate again; its guest runs on`,
  });
}

/** Waits for a promise so long; undefined when the time is over, and the promise is still under way. */
async function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  const timer = new AbortController();
  promise.catch(() => {}); // whoever awaits it later gets the error
  try {
    return await Promise.race([
      promise,
      sleep(timeoutMs, undefined, { signal: timer.signal }).catch(() => undefined),
    ]);
  } finally {
    timer.abort();
  }
}
