import { setTimeout as sleep } from 'node:timers/promises';
import { ByteReader, ByteWriter } from '@wherry/bytes';
import type { Transport } from '@wherry/migration';
import { StreamWalk } from '@wherry/snapshot';
import { type Command, type ReturnPathMessage, writeReturnPathMessage } from '@wherry/stream';
import { ReceiveError } from './receive-error.ts';

const CHUNK_BYTES = 1024 * 1024;

/** Where the received bytes go. */
export interface StreamSink {
  /** Appends bytes, which may be changed once this has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** Drops what was written beyond this length, and waits until the rest is safe. */
  finish(lengthBytes: number): Promise<void>;
}

/** How long a receiver waits for what may not come, and what ends it. */
export interface ReceiverOptions {
  /** Ends it before the source is told that all is well; whoever aborts also destroys the transport. */
  readonly signal?: AbortSignal | undefined;
  /** For the first byte of a connection (default 30 s). */
  readonly firstByteMs?: number;
  /** For a vmdesc behind the end, with an open return path (default 2 s). */
  readonly vmdescMs?: number;
  /** For the source to close the connection when all has been said (default 10 s). */
  readonly closeMs?: number;
}

/**
 * Receives one precopy migration as a destination that only keeps the stream.
 *
 * The end, step by step:
 * - The source writes EOF and the vmdesc together. Without a return path it then closes the connection.
 * - With one it waits for SHUT 0 first. SHUT goes out when the vmdesc is read and everything is on the
 *   disk: from then on the source holds the guest no more.
 * - A machine type may suppress the vmdesc, and nothing in the stream says so. With a return path
 *   neither side would ever move then, so a quiet time behind EOF counts as "no vmdesc"; it is long
 *   against the gap inside the one write that carries both. A stream without a vmdesc loads as well.
 * - A source that is gone before it got its SHUT changes nothing: as for QEMU's own destination, the
 *   stream is whole and the guest may live in it alone.
 */
export class StreamReceiver {
  readonly walk: StreamWalk;
  readonly #transport: Transport;
  readonly #sink: StreamSink;
  readonly #times: Required<Omit<ReceiverOptions, 'signal'>>;
  readonly #signal: AbortSignal | undefined;
  #receivedBytes = 0;
  #returnPath = false;
  #replies = new ByteWriter();
  #isWhole = false;
  #trailingBytes = 0;
  #confirmed = false;

  constructor(transport: Transport, sink: StreamSink, options: ReceiverOptions = {}) {
    this.#transport = transport;
    this.#sink = sink;
    const { signal, ...times } = options;
    this.#signal = signal;
    this.#times = { firstByteMs: 30_000, vmdescMs: 2_000, closeMs: 10_000, ...times };
    this.walk = new StreamWalk({
      keepBodies: false,
      onCommand: (command) => this.#obey(command),
      onVmdesc: () => {
        this.#isWhole = true;
      },
    });
  }

  /** Bytes received so far; those behind the end of the stream are not among them when it was received. */
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

  /**
   * Receives to the end; the source has been told by then if it listens.
   *
   * @throws StreamError, BytesError, TransportError, ReceiveError; a source that listens was told of it
   */
  async receive(): Promise<void> {
    try {
      await this.#receive();
    } catch (error) {
      // From 10.0 on a destination says that it failed; the source then reports a failure at once.
      if (this.#returnPath && !this.#confirmed) {
        await within(this.#send({ name: 'shut', status: 1 }), 1000).catch(() => {});
      }
      throw error;
    }
  }

  async #receive(): Promise<void> {
    const reader = new ByteReader({ storage: new Uint8Array(CHUNK_BYTES) });
    const parser = this.walk.walk(reader);
    for (let step = parser.next(); step.done !== true; step = parser.next()) {
      await this.#flushReplies();
      if (this.walk.model.ram?.multifdFlushes) throw refused('multifd');
      if (this.#isWhole) break;
      const room = reader.space();
      const count = await this.#read(room);
      if (count === undefined) break;
      if (count === 0) {
        reader.finish();
      } else {
        this.#receivedBytes += count;
        reader.commit(count);
        await this.#sink.write(room.subarray(0, count));
      }
    }
    const { eofOffset = 0, endOffset = eofOffset + 1 } = this.walk.model;
    await this.#sink.finish(endOffset);
    this.#signal?.throwIfAborted();
    // The point of no return: the source gives its guest up. Nothing below may fail.
    this.#confirmed = true;
    this.#trailingBytes = this.#receivedBytes - endOffset;
    this.#receivedBytes = endOffset;
    if (this.#returnPath) await this.#send({ name: 'shut', status: 0 }).catch(() => {});
    await this.#drain();
  }

  /** Reads; undefined when the source waits for SHUT, so that nothing more will come. */
  async #read(into: Uint8Array): Promise<number | undefined> {
    const { firstByteMs, vmdescMs } = this.#times;
    const read = this.#transport.read(into);
    if (this.#receivedBytes === 0) {
      const count = await within(read, firstByteMs);
      if (count !== undefined) return count;
      throw new ReceiveError('NOTHING_SENT', 'The connection stays silent', {
        expected: 'a migration stream',
        found: `no byte within ${firstByteMs / 1000} s`,
        offset: 0,
        likely: 'Something other than a migration source connected: look at what uses this address',
      });
    }
    const { eofOffset } = this.walk.model;
    const isAtEof = eofOffset !== undefined && this.#receivedBytes === eofOffset + 1;
    return isAtEof && this.#returnPath ? within(read, vmdescMs) : read;
  }

  /** Waits for the source to close; what it sends still does not belong to the stream. */
  async #drain(): Promise<void> {
    const deadline = performance.now() + this.#times.closeMs;
    const scrap = new Uint8Array(4096);
    try {
      for (let count: number | undefined = 1; count; ) {
        count = await within(this.#transport.read(scrap), deadline - performance.now());
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
        return;
      case 'ping':
        if (!this.#returnPath) {
          throw new ReceiveError('UNSUPPORTED', 'A ping came before the return path was opened', {
            likely: 'The stream is damaged, or something other than a migration source sent it',
          });
        }
        writeReturnPathMessage(this.#replies, { name: 'pong', value: command.value });
        return;
      case 'switchover-start':
        return;
      case 'postcopy-advise':
        // Dirty bitmaps alone are sent before the end when nobody starts postcopy.
        if (command.ram === undefined) return;
        throw refused('postcopy-ram');
      case 'enable-colo':
        throw refused('x-colo');
      default:
        throw refused('postcopy-ram or dirty-bitmaps');
    }
  }

  async #flushReplies(): Promise<void> {
    if (this.#replies.length === 0) return;
    const replies = this.#replies.finish();
    this.#replies = new ByteWriter();
    await this.#transport.write(replies);
  }

  async #send(message: ReturnPathMessage): Promise<void> {
    const writer = new ByteWriter();
    writeReturnPathMessage(writer, message);
    await this.#transport.write(writer.finish());
  }
}

function refused(capability: string): ReceiveError {
  return new ReceiveError('UNSUPPORTED', `The source migrates with ${capability}`, {
    likely: `A file keeps a precopy migration over one connection: switch ${capability} off at the source and migrate again; its guest runs on`,
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
