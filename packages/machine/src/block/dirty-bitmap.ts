import { MachineError } from '../machine-error.ts';

/** As many bytes as a migration sends at a time. @see CHUNK_SIZE in QEMU's migration/block-dirty-bitmap.c */
const CHUNK_BYTES = 1024;
const MIN_GRANULARITY = 512;
const MAX_GRANULARITY = 2 ** 31;
const MAX_NAME_BYTES = 1023;

/**
 * One bit for each granule of a disk that was written to, LSB first. Only parts with set bits take memory,
 * so that a bitmap costs whoever sends it its own bytes.
 *
 * @see QEMU's block/dirty-bitmap.c and util/hbitmap.c
 */
export class DirtyBitmap {
  /** Undefined for one that belongs to an operation. */
  readonly name: string | undefined;
  /** Size of the disk. */
  readonly sizeBytes: number;
  /** A power of two from 512. */
  readonly granularityBytes: number;
  /** Whether writes are recorded. */
  enabled = true;
  /** Whether it is kept in the image when that is closed. */
  persistent = false;
  /** An operation has it: others may not touch it. */
  busy = false;
  /** It was not saved when its image was last used: only its removal is allowed. */
  inconsistent = false;
  /** Its image cannot be written. */
  readOnly = false;
  /** Has gone to another host, which saves it. */
  skipStore = false;
  #successor: DirtyBitmap | undefined;
  readonly #chunks = new Map<number, Uint8Array<ArrayBuffer>>();

  /** @throws MachineError `BITMAP_INVALID`, in QEMU's words */
  constructor(name: string | undefined, sizeBytes: number, granularityBytes: number) {
    if (
      !(granularityBytes >= MIN_GRANULARITY && granularityBytes <= MAX_GRANULARITY) ||
      !Number.isInteger(Math.log2(granularityBytes))
    ) {
      throw new MachineError('BITMAP_INVALID', 'Granularity must be power of 2 and at least 512');
    }
    if (name !== undefined && new TextEncoder().encode(name).length > MAX_NAME_BYTES) {
      throw new MachineError('BITMAP_INVALID', `Bitmap name too long: ${name}`);
    }
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.granularityBytes = granularityBytes;
  }

  /** Bytes that hold all bits. */
  get lengthBytes(): number {
    return Math.ceil(this.#bitCount / 8);
  }

  get #bitCount(): number {
    return Math.ceil(this.sizeBytes / this.granularityBytes);
  }

  /** Whether writes are recorded, here or until an operation is over in its successor. */
  get recording(): boolean {
    return this.enabled || this.#successor?.enabled === true;
  }

  /** Bytes of the disk under set bits, in whole granules. */
  get dirtyBytes(): number {
    let bits = 0;
    for (const chunk of this.#chunks.values()) {
      for (const byte of chunk) bits += ONES[byte]!;
    }
    return bits * this.granularityBytes;
  }

  /** Records a write, if it is to be recorded. */
  written(offset: number, length: number): void {
    if (this.#successor?.enabled === true) this.#successor.set(offset, length);
    if (this.enabled) this.set(offset, length);
  }

  /** Sets the bits of all granules that a range touches. */
  set(offset: number, length: number): void {
    if (length === 0) return;
    const first = Math.floor(offset / this.granularityBytes);
    const end = Math.min(Math.ceil((offset + length) / this.granularityBytes), this.#bitCount);
    for (let bit = first; bit < end; ) {
      const byte = Math.floor(bit / 8);
      const chunk = this.#chunk(byte);
      const until = Math.min(end, (byte + 1) * 8);
      chunk[byte % CHUNK_BYTES]! |= maskOf(bit % 8, until - byte * 8);
      bit = until;
    }
  }

  /** Tells whether the granule that holds a byte is dirty. */
  isDirty(offset: number): boolean {
    const bit = Math.floor(offset / this.granularityBytes);
    const byte = Math.floor(bit / 8);
    const chunk = this.#chunks.get(Math.floor(byte / CHUNK_BYTES));
    return ((chunk?.[byte % CHUNK_BYTES] ?? 0) & (1 << (bit % 8))) !== 0;
  }

  /** Gives the dirty ranges of the disk, `[offset, end)`, in order. */
  *dirtyRanges(): Generator<readonly [offset: number, end: number]> {
    const { granularityBytes } = this;
    let start: number | undefined;
    let next = 0;
    for (const index of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.#chunks.get(index)!;
      for (let bit = 0; bit < CHUNK_BYTES * 8; bit++) {
        if ((chunk[bit >> 3]! & (1 << (bit & 7))) === 0) continue;
        const at = index * CHUNK_BYTES * 8 + bit;
        if (at !== next || start === undefined) {
          if (start !== undefined) yield [start * granularityBytes, next * granularityBytes];
          start = at;
        }
        next = at + 1;
      }
    }
    if (start !== undefined) {
      yield [start * granularityBytes, Math.min(next * granularityBytes, this.sizeBytes)];
    }
  }

  clear(): void {
    this.#chunks.clear();
  }

  /** Adds another one's bits, of whatever granularity. @throws MachineError `BITMAP_INVALID` when the disks differ in size */
  merge(other: DirtyBitmap): void {
    if (other.sizeBytes !== this.sizeBytes) {
      throw new MachineError(
        'BITMAP_INVALID',
        `Bitmaps are of different sizes (destination size is ${this.sizeBytes}, source size is ${other.sizeBytes}) and can't be merged`,
      );
    }
    for (const [offset, end] of other.dirtyRanges()) this.set(offset, end - offset);
  }

  /** Makes a copy of the bits, to go back to with {@link DirtyBitmap.restore}. */
  backup(): DirtyBitmap {
    const copy = new DirtyBitmap(undefined, this.sizeBytes, this.granularityBytes);
    for (const [index, chunk] of this.#chunks) copy.#chunks.set(index, chunk.slice());
    return copy;
  }

  restore(backup: DirtyBitmap): void {
    this.#chunks.clear();
    for (const [index, chunk] of backup.#chunks) this.#chunks.set(index, chunk);
  }

  /** Copies `length` bytes of bits from byte `at` on; undefined where no bit is set. */
  bytesAt(at: number, length: number): Uint8Array<ArrayBuffer> | undefined {
    let bytes: Uint8Array<ArrayBuffer> | undefined;
    for (const [start, end, index] of chunksOf(at, length)) {
      const piece = this.#chunks
        .get(index)
        ?.subarray(start % CHUNK_BYTES, (start % CHUNK_BYTES) + end - start);
      if (piece === undefined || piece.every((byte) => byte === 0)) continue;
      bytes ??= new Uint8Array(length);
      bytes.set(piece, start - at);
    }
    return bytes;
  }

  /** Replaces the bits from byte `at` on; undefined clears `length` bytes of them. Bits behind the disk's end are dropped. */
  setBytes(at: number, length: number, bytes?: Uint8Array): void {
    for (const [start, end, index] of chunksOf(at, Math.min(length, this.lengthBytes - at))) {
      const piece = bytes?.subarray(start - at, end - at);
      if (piece === undefined || piece.every((byte) => byte === 0)) {
        if (end - start === CHUNK_BYTES) this.#chunks.delete(index);
        else
          this.#chunks
            .get(index)
            ?.fill(0, start % CHUNK_BYTES, (start % CHUNK_BYTES) + end - start);
      } else this.#chunk(start).set(piece, start % CHUNK_BYTES);
    }
    const tail = this.#bitCount % 8;
    const last = this.lengthBytes - 1;
    const chunk = tail === 0 ? undefined : this.#chunks.get(Math.floor(last / CHUNK_BYTES));
    if (chunk !== undefined) chunk[last % CHUNK_BYTES]! &= maskOf(0, tail);
  }

  /** Has another bitmap, off until {@link DirtyBitmap.enableSuccessor}, record in this one's place: this one is busy. */
  createSuccessor(): void {
    this.#successor = new DirtyBitmap(undefined, this.sizeBytes, this.granularityBytes);
    this.#successor.enabled = false;
    this.enabled = false;
    this.busy = true;
  }

  /** Has the successor record from now on. */
  enableSuccessor(): void {
    if (this.#successor !== undefined) this.#successor.enabled = true;
  }

  /** Takes in what the successor recorded, and records on in its place; nothing without one. */
  reclaimSuccessor(): void {
    this.busy = false;
    if (this.#successor === undefined) return;
    this.merge(this.#successor);
    this.enabled = this.#successor.enabled;
    this.#successor = undefined;
  }

  #chunk(byte: number): Uint8Array<ArrayBuffer> {
    const index = Math.floor(byte / CHUNK_BYTES);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BYTES);
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }
}

/** How many bits are set in each byte. */
const ONES = Uint8Array.from({ length: 256 }, (_, byte) =>
  [0, 1, 2, 3, 4, 5, 6, 7].reduce((sum, bit) => sum + ((byte >> bit) & 1), 0),
);

/** Bits `[from, to)` of a byte. */
function maskOf(from: number, to: number): number {
  return ((1 << to) - 1) & ~((1 << from) - 1);
}

/** Cuts bytes `[at, at + length)` at the borders of chunks. */
function* chunksOf(at: number, length: number): Generator<readonly [number, number, number]> {
  for (let start = at; start < at + length; ) {
    const index = Math.floor(start / CHUNK_BYTES);
    const end = Math.min(at + length, (index + 1) * CHUNK_BYTES);
    yield [start, end, index];
    start = end;
  }
}
