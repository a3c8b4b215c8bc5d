import { BytesError } from './wherry-error.ts';

const decoder = new TextDecoder('utf-8', { fatal: true });

/** Where a {@link ByteReader} keeps its bytes, and how far it may grow. */
export interface ByteReaderOptions {
  /** A buffer of fixed size to read from, such as one in WebAssembly memory; owned by the reader meanwhile. */
  readonly storage?: Uint8Array;
  /** The most bytes that may wait unread (default 64 MiB); a fixed storage bounds it too. */
  readonly maxBytes?: number;
  /** Absolute offset of the first byte (default 0), for messages. */
  readonly offset?: number;
}

/**
 * Holds the unread part of an input that arrives in chunks, and reads big-endian values from it.
 *
 * The value methods need their bytes to be there (`available`); parsers make sure of it by yielding
 * from {@link need}. Views returned by {@link ByteReader.view} are valid until the next fill.
 */
export class ByteReader {
  #storage: Uint8Array;
  #view: DataView;
  readonly #fixed: boolean;
  readonly #maxBytes: number;
  #start = 0;
  #end = 0;
  #base: number;
  #ended = false;
  /**
   * How many of the next bytes the parser passes over unread, while it waits with none at hand; 0 where
   * it wants them. Who reads a file can {@link ByteReader.jump} over them instead of reading.
   */
  unwantedBytes = 0;
  /**
   * Whether the bytes at hand may be the last ones, while the parser waits to know: who reads from a
   * peer that may have fallen silent can then call {@link ByteReader.finish}.
   */
  mayBeOver = false;

  constructor(options: ByteReaderOptions = {}) {
    this.#fixed = options.storage !== undefined;
    this.#storage = options.storage ?? new Uint8Array(4096);
    this.#view = viewOf(this.#storage);
    this.#maxBytes = Math.min(
      options.maxBytes ?? 64 * 1024 * 1024,
      this.#fixed ? this.#storage.length : Number.POSITIVE_INFINITY,
    );
    this.#base = options.offset ?? 0;
  }

  /** Makes a reader over a whole input: nothing will be added. The bytes are used in place. */
  static over(bytes: Uint8Array, offset = 0): ByteReader {
    const reader = new ByteReader({ storage: bytes, offset });
    reader.#end = bytes.length;
    reader.#ended = true;
    return reader;
  }

  /** Absolute offset of the next unread byte. */
  get offset(): number {
    return this.#base + this.#start;
  }

  /** Number of unread bytes at hand. */
  get available(): number {
    return this.#end - this.#start;
  }

  /** Whether {@link ByteReader.end} was called: no byte will follow those at hand. */
  get ended(): boolean {
    return this.#ended;
  }

  /** The most bytes that can be at hand at once. */
  get capacityBytes(): number {
    return this.#maxBytes;
  }

  /** Says that the input goes on `count` bytes further, at most {@link ByteReader.unwantedBytes}. */
  jump(count: number): void {
    this.#base += count;
    this.unwantedBytes -= count;
  }

  /** The buffer that holds the unread bytes, `[start, end)` of it; for decoders that work in place. */
  get storage(): Uint8Array {
    return this.#storage;
  }
  /** A view of {@link ByteReader.storage}. */
  get dataView(): DataView {
    return this.#view;
  }
  /** Index in {@link ByteReader.storage} of the next unread byte. */
  get start(): number {
    return this.#start;
  }
  /** Index in {@link ByteReader.storage} behind the last unread byte. */
  get end(): number {
    return this.#end;
  }

  /**
   * Gives free room behind the unread bytes to write new input into; {@link ByteReader.commit} adds it.
   *
   * @param minBytes least size of the room, default 1
   * @throws BytesError `LIMIT_EXCEEDED` when unread bytes and room would pass the limit.
   */
  space(minBytes = 1): Uint8Array {
    if (this.#start === this.#end) {
      this.#base += this.#start;
      this.#start = this.#end = 0;
    }
    const needed = this.available + minBytes;
    if (needed > this.#maxBytes) {
      throw new BytesError('LIMIT_EXCEEDED', 'An item is larger than the input buffer may grow', {
        expected: `at most ${this.#maxBytes} bytes`,
        found: `${needed} bytes`,
        offset: this.offset,
        likely: 'A length in the input is corrupt, or the input is not what it is taken for',
      });
    }
    // Compacting costs a copy of the unread rest: worth it once little room is left behind it.
    const room = this.#storage.length - this.#end;
    if (room < minBytes || (this.#start > 0 && room < this.#storage.length / 4)) {
      if (needed > this.#storage.length) {
        const larger = new Uint8Array(
          Math.min(this.#maxBytes, Math.max(needed, this.#storage.length * 2)),
        );
        larger.set(this.#storage.subarray(this.#start, this.#end));
        this.#storage = larger;
        this.#view = viewOf(larger);
      } else {
        this.#storage.copyWithin(0, this.#start, this.#end);
      }
      this.#base += this.#start;
      this.#end -= this.#start;
      this.#start = 0;
    }
    return this.#storage.subarray(this.#end);
  }

  /**
   * Goes on in another buffer, no smaller, with the unread bytes; the one before is the caller's again.
   *
   * @param storage owned by the reader meanwhile, and of fixed size as the one before
   */
  moveTo(storage: Uint8Array): void {
    storage.set(this.#storage.subarray(this.#start, this.#end));
    this.#storage = storage;
    this.#view = viewOf(storage);
    this.#base += this.#start;
    this.#end -= this.#start;
    this.#start = 0;
  }

  /** Says that `count` bytes were written into the room from {@link ByteReader.space}. */
  commit(count: number): void {
    this.#end += count;
  }

  /** Adds a chunk of input (copied). */
  push(chunk: Uint8Array): void {
    this.space(chunk.length).set(chunk);
    this.commit(chunk.length);
  }

  /** Says that the input is over. */
  finish(): void {
    this.#ended = true;
  }

  /** Passes over `count` bytes at hand. */
  skip(count: number): void {
    this.#start += count;
  }

  /** Reads 8 bits, `at` bytes ahead, without consuming them. */
  peekU8(at = 0): number {
    return this.#view.getUint8(this.#start + at);
  }
  /** Reads 16 bits, big-endian, `at` bytes ahead, without consuming them. */
  peekU16(at = 0): number {
    return this.#view.getUint16(this.#start + at);
  }
  /** Reads 32 bits, big-endian, `at` bytes ahead, without consuming them. */
  peekU32(at = 0): number {
    return this.#view.getUint32(this.#start + at);
  }

  /** Reads 8 bits. */
  u8(): number {
    const value = this.#view.getUint8(this.#start);
    this.#start += 1;
    return value;
  }
  /** Reads 16 bits, big-endian. */
  u16(): number {
    const value = this.#view.getUint16(this.#start);
    this.#start += 2;
    return value;
  }
  /** Reads 32 bits, big-endian. */
  u32(): number {
    const value = this.#view.getUint32(this.#start);
    this.#start += 4;
    return value;
  }
  /** Reads 64 bits, big-endian. */
  u64(): bigint {
    const value = this.#view.getBigUint64(this.#start);
    this.#start += 8;
    return value;
  }
  /** Reads 8 bits in two's complement. */
  i8(): number {
    return (this.u8() << 24) >> 24;
  }
  /** Reads 16 bits, big-endian, in two's complement. */
  i16(): number {
    return (this.u16() << 16) >> 16;
  }
  /** Reads 32 bits, big-endian, in two's complement. */
  i32(): number {
    return this.u32() | 0;
  }
  /** Reads 64 bits, big-endian, in two's complement. */
  i64(): bigint {
    return BigInt.asIntN(64, this.u64());
  }

  /**
   * Reads 64 bits, big-endian, that must be a safe integer (an offset or a length).
   *
   * @throws BytesError `VALUE_OUT_OF_RANGE` at 2^53 and above.
   */
  size(): number {
    const offset = this.offset;
    const value = this.u64();
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new BytesError('VALUE_OUT_OF_RANGE', 'A 64-bit size is too large', {
        expected: 'less than 2^53',
        found: `0x${value.toString(16)}`,
        offset,
      });
    }
    return Number(value);
  }

  /** Views `count` bytes and consumes them; valid until the next fill. */
  view(count: number): Uint8Array {
    const bytes = this.#storage.subarray(this.#start, this.#start + count);
    this.#start += count;
    return bytes;
  }

  /** Copies `count` bytes and consumes them; the copy belongs to the caller. */
  copy(count: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.view(count));
  }

  /**
   * Reads `count` bytes as UTF-8 text.
   *
   * @throws BytesError `NOT_TEXT` when they are not valid UTF-8.
   */
  text(count: number): string {
    const offset = this.offset;
    const bytes = this.copy(count); // TextDecoder refuses views on shared memory
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw new BytesError('NOT_TEXT', 'A name is not valid text', {
        expected: 'UTF-8',
        found: [...bytes.subarray(0, 16)].map((b) => b.toString(16).padStart(2, '0')).join(' '),
        offset,
        cause,
      });
    }
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
