import { BytesError } from './wherry-error.ts';

const encoder = new TextEncoder();

/**
 * Appends big-endian values to a buffer that grows as needed.
 *
 * The writer owns the buffer: {@link ByteWriter.bytes} is a view that later writes may invalidate,
 * {@link ByteWriter.finish} a copy that belongs to the caller.
 */
export class ByteWriter {
  #buffer: Uint8Array<ArrayBuffer>;
  #view: DataView<ArrayBuffer>;
  #length = 0;

  constructor(initialBytes = 1024) {
    this.#buffer = new Uint8Array(initialBytes);
    this.#view = new DataView(this.#buffer.buffer);
  }

  /** Number of bytes written so far. */
  get length(): number {
    return this.#length;
  }

  #grow(bytes: number): number {
    const at = this.#length;
    const end = at + bytes;
    if (end > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(end, this.#buffer.length * 2));
      larger.set(this.#buffer.subarray(0, at));
      this.#buffer = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = end;
    return at;
  }

  /** Appends the low 8 bits. */
  u8(value: number): this {
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
    return this;
  }

  /** Appends the low 16 bits, big-endian. */
  u16(value: number): this {
    const at = this.#grow(2);
    this.#view.setUint16(at, value);
    return this;
  }

  /** Appends the low 32 bits, big-endian. */
  u32(value: number): this {
    const at = this.#grow(4);
    this.#view.setUint32(at, value);
    return this;
  }

  /** Appends the low 64 bits, big-endian; negative values in two's complement. */
  u64(value: bigint): this {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt.asUintN(64, value));
    return this;
  }

  /** Appends bytes as they are (copied). */
  raw(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length);
    this.#buffer.set(bytes, at);
    return this;
  }

  /** Appends `count` zero bytes. */
  zeros(count: number): this {
    const at = this.#grow(count);
    this.#buffer.fill(0, at, at + count);
    return this;
  }

  /**
   * Appends a counted string: one length byte, then UTF-8 bytes without a terminator.
   *
   * @throws BytesError `VALUE_OUT_OF_RANGE` when the text takes more than 255 bytes.
   * @see qemu_put_counted_string in QEMU's migration/qemu-file.c
   */
  counted(text: string): this {
    const bytes = encoder.encode(text);
    if (bytes.length > 255) {
      throw new BytesError('VALUE_OUT_OF_RANGE', 'A counted string is too long', {
        expected: 'at most 255 bytes',
        found: `${bytes.length} bytes of ${JSON.stringify(text.slice(0, 40))}`,
      });
    }
    return this.u8(bytes.length).raw(bytes);
  }

  /** Appends the UTF-8 bytes of a text, without length or terminator. */
  text(text: string): this {
    return this.raw(encoder.encode(text));
  }

  /** Overwrites two bytes at `at` (a length known only later) with a big-endian value. */
  patchU16(at: number, value: number): this {
    this.#view.setUint16(at, value);
    return this;
  }

  /** Overwrites four bytes at `at` (a length known only later) with a big-endian value. */
  patchU32(at: number, value: number): this {
    this.#view.setUint32(at, value);
    return this;
  }

  /**
   * Appends `count` bytes that the caller fills, all of them, in {@link ByteWriter.storage} or through
   * {@link ByteWriter.dataView} before it writes anything else.
   *
   * @returns index of the first
   */
  claim(count: number): number {
    return this.#grow(count);
  }

  /** The buffer that holds what was written; valid until the next write. */
  get storage(): Uint8Array<ArrayBuffer> {
    return this.#buffer;
  }

  /** A view of {@link ByteWriter.storage}; valid until the next write. */
  get dataView(): DataView<ArrayBuffer> {
    return this.#view;
  }

  /** Views what was written; valid until the next write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(0, this.#length);
  }

  /** Copies what was written and starts over at length 0, keeping the capacity. */
  finish(): Uint8Array<ArrayBuffer> {
    const copy = this.#buffer.slice(0, this.#length);
    this.#length = 0;
    return copy;
  }
}
