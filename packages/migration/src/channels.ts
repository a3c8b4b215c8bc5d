import { ByteReader, ByteWriter, type Parser } from '@wherry/bytes';
import type { Clock } from './clock.ts';
import { MigrationError } from './migration-error.ts';
import type { Transport } from './transport.ts';

/** The receiving direction of a connection: runs parsers over what arrives. */
export class InputChannel {
  readonly reader: ByteReader;
  /** Bytes of a read at most: what one step has to deal with before something else has its turn. */
  maxReadBytes: number = Number.POSITIVE_INFINITY;
  readonly #transport: Transport;
  readonly #name: string;

  /**
   * @param name what is read, for messages
   * @param storage where to keep unread bytes, such as WebAssembly memory; a buffer of its own by default
   */
  constructor(transport: Transport, name: string, storage?: Uint8Array) {
    this.#transport = transport;
    this.#name = name;
    this.reader = new ByteReader({
      ...(storage === undefined ? {} : { storage }),
      offset: transport.file?.position ?? 0,
    });
  }

  /** Runs a parser to its end, reading from the connection whenever it wants more bytes. */
  async parse<T>(parser: Parser<T>): Promise<T> {
    const { reader } = this;
    let step = parser.next();
    while (!step.done) {
      const { file } = this.#transport;
      const { unwantedBytes } = reader;
      if (unwantedBytes > 0 && file !== undefined) {
        file.seek(file.position + unwantedBytes);
        reader.jump(unwantedBytes);
        step = parser.next();
        continue;
      }
      const room = reader.space(Math.max(1, step.value - reader.available));
      const count = await this.#read(room.subarray(0, this.maxReadBytes));
      if (count === 0) reader.finish();
      else reader.commit(count);
      step = parser.next();
    }
    return step.value;
  }

  async #read(room: Uint8Array): Promise<number> {
    try {
      return await this.#transport.read(room);
    } catch (cause) {
      if (cause instanceof MigrationError) throw cause; // this side gave up
      throw new MigrationError('CONNECTION_LOST', 'The connection broke', {
        found: cause instanceof Error ? cause.message : String(cause),
        offset: this.reader.offset + this.reader.available,
        path: [this.#name],
        likely: 'The other side died, or the network between the two failed',
        cause,
      });
    }
  }
}

/** Bytes that were encoded elsewhere; `release` says that their buffer may be used again. */
export interface Chunk {
  readonly bytes: Uint8Array;
  release(): void;
}

/** Has the rest of what is gathered go elsewhere in the file. */
interface Jump {
  /** Where it begins, in what is gathered. */
  readonly at: number;
  /** Offset in the file. */
  readonly to: number;
}

/**
 * The sending direction of a connection: frames are gathered and go out before the next chunk, and
 * one chunk is on its way while the caller encodes the next.
 */
export class OutputChannel {
  /** Frames (section heads, commands, footers) that the next flush sends. */
  readonly frames: ByteWriter = new ByteWriter();
  readonly #transport: Transport;
  #sent = 0;
  #underWay: Promise<void> = Promise.resolve();
  #jumps: Jump[] = [];

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Offset in the file of the next byte that is gathered. */
  get position(): number {
    const { at, to } = this.#jumps.at(-1) ?? { at: 0, to: this.#transport.file?.position ?? 0 };
    return to + this.frames.length - at;
  }

  /** Has what is gathered from here on go to another offset of the file. */
  jump(to: number): void {
    this.#jumps.push({ at: this.frames.length, to });
  }

  /** Bytes handed to the connection or gathered for it. */
  get bytes(): number {
    return this.#sent + this.frames.length;
  }

  /** Sends what was gathered; resolves when the connection has taken all of it. */
  async flush(): Promise<void> {
    await this.#underWay;
    if (this.frames.length === 0 && this.#jumps.length === 0) return;
    const jumps = this.#jumps;
    this.#jumps = [];
    const bytes = this.frames.finish();
    for (const [i, at] of [0, ...jumps.map((jump) => jump.at)].entries()) {
      if (i > 0) this.#transport.file?.seek(jumps[i - 1]!.to);
      const piece = bytes.subarray(at, jumps[i]?.at);
      if (piece.length > 0) await this.#write(piece);
    }
  }

  /** Sends what was gathered, then a chunk; resolves when the chunk is on its way. */
  sendChunk(chunk: Chunk): Promise<void> {
    return this.bringOut(chunk, () => this.#write(chunk.bytes));
  }

  /** Sends what was gathered, then has `write` bring out a chunk; resolves when that is under way. */
  async bringOut(chunk: Pick<Chunk, 'release'>, write: () => Promise<void>): Promise<void> {
    try {
      await this.flush();
    } catch (error) {
      chunk.release();
      throw error;
    }
    const underWay = write().finally(() => chunk.release());
    this.#underWay = underWay;
    underWay.catch(() => {}); // the next flush reports it
  }

  /** Counts bytes that go out beside the stream. */
  count(bytes: number): void {
    this.#sent += bytes;
  }

  /** Resolves when no chunk is on its way any more, sent or failed. */
  settled(): Promise<void> {
    return this.#underWay.catch(() => {});
  }

  #write(bytes: Uint8Array): Promise<void> {
    this.#sent += bytes.length;
    return this.#transport.write(bytes);
  }
}

/** How much may go out at once, in time at the rate. @see BUFFER_DELAY in QEMU's migration/migration.c */
const WINDOW_MS = 100;

/** Holds a sender back to a rate. */
export class RateLimit {
  readonly #clock: Clock;
  #freeAt = 0;
  #nap: AbortController | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Bytes that may go out at once at `bytesPerSecond`; unlimited at 0. */
  burst(bytesPerSecond: number): number {
    return bytesPerSecond === 0
      ? Number.POSITIVE_INFINITY
      : Math.ceil((bytesPerSecond * WINDOW_MS) / 1000);
  }

  /** Accounts for `bytes` that were sent at `bytesPerSecond` (0 is unlimited). */
  spend(bytes: number, bytesPerSecond: number): void {
    if (bytesPerSecond === 0) return;
    this.#freeAt = Math.max(this.#freeAt, this.#clock.now()) + (bytes / bytesPerSecond) * 1000;
  }

  /** Sleeps while what was sent is ahead of its rate. */
  async wait(signal: AbortSignal): Promise<void> {
    const ms = this.#freeAt - this.#clock.now();
    if (ms < 2) return; // timers are no finer than about a millisecond
    const nap = new AbortController();
    this.#nap = nap;
    try {
      await this.#clock.sleep(ms, AbortSignal.any([signal, nap.signal]));
    } catch (error) {
      if (!nap.signal.aborted) throw error;
    }
  }

  /** Ends a sleep that is under way: something has become urgent. What was sent still counts. */
  interrupt(): void {
    this.#nap?.abort();
  }
}
