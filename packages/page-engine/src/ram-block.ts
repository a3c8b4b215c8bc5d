import type { Bank } from './bank.ts';
import { PageEngineError } from './errors.ts';
import { type RamBlockSpec, type SegmentPlan, TARGET_PAGE_BYTES } from './layout.ts';

/** Locates the part of a RAM block that lies in one bank, for a module that works on that memory. */
export interface RamSegment extends SegmentPlan {
  readonly memory: WebAssembly.Memory;
}

interface Piece {
  readonly bank: Bank;
  readonly segment: RamSegment;
  /** Pages within the segment. */
  readonly from: number;
  readonly to: number;
}

/**
 * Gives access to one RAM block: contents by byte offset within the block, bitmaps by target page.
 * Reads see a missing page's memory as it is: ask {@link isRangeReceived} first on a destination.
 */
export class RamBlock {
  readonly name: string;
  readonly index: number;
  readonly lengthBytes: number;
  readonly hostPageBytes: number;
  /** Counts target pages. */
  readonly pageCount: number;
  /** Lists the segments in block order; their page numbers are those of the block. */
  readonly segments: readonly RamSegment[];
  readonly #banks: readonly Bank[];

  constructor(spec: RamBlockSpec, index: number, banks: readonly Bank[]) {
    this.name = spec.name;
    this.index = index;
    this.lengthBytes = spec.lengthBytes;
    this.hostPageBytes = spec.hostPageBytes;
    this.pageCount = spec.lengthBytes / TARGET_PAGE_BYTES;
    this.#banks = banks;
    this.segments = banks.flatMap((bank) =>
      bank.plan.segments
        .filter((segment) => segment.block === index)
        .map((segment) => ({ ...segment, memory: bank.memory })),
    );
  }

  /**
   * Copies bytes out of the block.
   * @throws PageEngineError RANGE
   */
  read(offsetBytes: number, lengthBytes: number): Uint8Array {
    this.#checkRange(offsetBytes, lengthBytes);
    const out = new Uint8Array(lengthBytes);
    this.#eachSpan(offsetBytes, lengthBytes, (bank, ptr, length, done) => {
      out.set(bank.bytes.subarray(ptr, ptr + length), done);
    });
    return out;
  }

  /**
   * Writes bytes as a device does: the pages become dirty.
   * @throws PageEngineError RANGE
   */
  write(offsetBytes: number, bytes: Uint8Array): void {
    this.#checkRange(offsetBytes, bytes.length);
    if (bytes.length === 0) return;
    this.#eachSpan(offsetBytes, bytes.length, (bank, ptr, length, done) => {
      bank.bytes.set(bytes.subarray(done, done + length), ptr);
    });
    for (const { bank, segment, from, to } of this.#pieces(...pagesOf(offsetBytes, bytes.length))) {
      bank.engine.setRange(segment.writtenPtr, from, to);
      // After the bytes: see markDirty in assembly/guest-access.ts.
      bank.engine.setRange(segment.dirtyPtr, from, to);
    }
  }

  /**
   * Returns a view of bytes that lie in one segment. Writes through it do not mark pages dirty, so
   * take it, write and drop it while nothing migrates.
   * @throws PageEngineError RANGE, also when the range crosses segments
   */
  view(offsetBytes: number, lengthBytes: number): Uint8Array {
    this.#checkRange(offsetBytes, lengthBytes);
    const page = Math.floor(offsetBytes / TARGET_PAGE_BYTES);
    const segment = this.segments.findLast((s) => s.firstPage <= page)!;
    const offset = offsetBytes - segment.firstPage * TARGET_PAGE_BYTES;
    if (offset + lengthBytes > segment.pages * TARGET_PAGE_BYTES) {
      throw this.#rangeError(offsetBytes, lengthBytes, 'the range crosses two banks');
    }
    const [from, to] = pagesOf(offset, lengthBytes);
    this.#banks[segment.bank]!.engine.setRange(segment.writtenPtr, from, to);
    const ptr = segment.ptr + offset;
    return this.#banks[segment.bank]!.bytes.subarray(ptr, ptr + lengthBytes);
  }

  /**
   * Views the memory of target pages that are about to be filled from elsewhere, a view a segment: they
   * count as written. The receiver's side: nothing becomes dirty, and nothing present.
   * @throws PageEngineError RANGE
   */
  fillable(fromPage: number, toPage: number): { firstPage: number; bytes: Uint8Array }[] {
    return this.#pieces(fromPage, toPage).map(({ bank, segment, from, to }) => {
      bank.engine.setRange(segment.writtenPtr, from, to);
      return {
        firstPage: segment.firstPage + from,
        bytes: bank.bytes.subarray(
          segment.ptr + from * TARGET_PAGE_BYTES,
          segment.ptr + to * TARGET_PAGE_BYTES,
        ),
      };
    });
  }

  /** Finds the first pages of a range that are missing and lie in one segment; undefined if none is. @throws PageEngineError RANGE */
  nextMissing(fromPage: number, toPage: number): { from: number; to: number } | undefined {
    for (const { bank, segment, from, to } of this.#pieces(fromPage, toPage)) {
      const first = bank.engine.nextClear(segment.receivedPtr, from, to) >>> 0;
      if (first === to) continue;
      const end = bank.engine.nextSet(segment.receivedPtr, first, to) >>> 0;
      return { from: segment.firstPage + first, to: segment.firstPage + end };
    }
    return undefined;
  }

  /** Makes target pages present; vCPUs that wait learn of it through {@link FaultPort.wakeAll}. @throws PageEngineError RANGE */
  markReceived(fromPage: number, toPage: number): void {
    for (const { bank, segment, from, to } of this.#pieces(fromPage, toPage)) {
      bank.engine.setRange(segment.receivedPtr, from, to);
    }
  }

  /** Tells whether a target page is present. */
  isReceived(page: number): boolean {
    return this.receivedCount(page, page + 1) === 1;
  }

  /**
   * Tells whether every page that the bytes touch is present.
   * @throws PageEngineError RANGE
   */
  isRangeReceived(offsetBytes: number, lengthBytes: number): boolean {
    this.#checkRange(offsetBytes, lengthBytes);
    if (lengthBytes === 0) return true;
    const [from, to] = pagesOf(offsetBytes, lengthBytes);
    return this.receivedCount(from, to) === to - from;
  }

  /**
   * Makes whole host pages missing, whatever they hold: a vCPU that touches one waits until it comes
   * anew. Memory that was touched stays with the process, since WebAssembly cannot give it back.
   * @throws PageEngineError DISCARD_OUT_OF_RANGE, DISCARD_UNALIGNED
   * @see QEMU system/physmem.c: ram_block_discard_range
   */
  discardRange(startBytes: number, lengthBytes: number): void {
    const refuse = (code: 'DISCARD_OUT_OF_RANGE' | 'DISCARD_UNALIGNED', problem: string): never => {
      throw new PageEngineError(
        code,
        `discard of ${lengthBytes} bytes at ${startBytes} of RAM block ${this.name}: ${problem}`,
        { block: this.name, offsetBytes: startBytes, lengthBytes },
      );
    };
    if (!this.#holds(startBytes, lengthBytes)) {
      refuse('DISCARD_OUT_OF_RANGE', `the block has ${this.lengthBytes} bytes`);
    }
    if (startBytes % this.hostPageBytes !== 0 || lengthBytes % this.hostPageBytes !== 0) {
      refuse('DISCARD_UNALIGNED', `its host pages have ${this.hostPageBytes} bytes`);
    }
    const pages = pagesOf(startBytes, lengthBytes);
    for (const { bank, segment, from, to } of this.#pieces(...pages)) {
      // A vCPU may have written what was present: it counts as written from here on.
      bank.engine.addRange(segment.writtenPtr, segment.receivedPtr, from, to);
      bank.engine.clearRange(segment.receivedPtr, from, to);
    }
  }

  /** Has the system give memory to every page of the block that has none, as QEMU's `prealloc=on`. */
  populate(): void {
    for (const { bank, segment, from, to } of this.#pieces(0, this.pageCount)) {
      bank.engine.populate(segment.ptr, segment.writtenPtr, from, to);
    }
  }

  /** Copies the dirty log: one bit a target page, bit 0 of byte 0 first. */
  dirtyBitmap(): Uint8Array<ArrayBuffer> {
    return this.#copyBitmap(({ dirtyPtr }) => dirtyPtr);
  }

  /** Copies which pages are present: one bit a target page, bit 0 of byte 0 first. */
  receivedBitmap(): Uint8Array<ArrayBuffer> {
    return this.#copyBitmap(({ receivedPtr }) => receivedPtr);
  }

  #copyBitmap(ptrOf: (segment: RamSegment) => number): Uint8Array<ArrayBuffer> {
    const bitmap = new Uint8Array(Math.ceil(this.pageCount / 8));
    for (const segment of this.segments) {
      const { memory, firstPage, pages } = segment;
      // Segments part at whole words of the bitmap.
      const bits = new Uint8Array(memory.buffer, ptrOf(segment), Math.ceil(pages / 8));
      bitmap.set(bits, firstPage / 8);
    }
    return bitmap;
  }

  /** Counts the dirty pages of a range of target pages, of all by default. */
  dirtyCount(fromPage = 0, toPage: number = this.pageCount): number {
    return this.#sum(fromPage, toPage, ({ bank, segment, from, to }) =>
      bank.engine.countSet(segment.dirtyPtr, from, to),
    );
  }

  /** Counts the pages of a range of target pages that are present. */
  receivedCount(fromPage = 0, toPage: number = this.pageCount): number {
    return this.#sum(fromPage, toPage, ({ bank, segment, from, to }) =>
      bank.engine.countSet(segment.receivedPtr, from, to),
    );
  }

  /** Counts the pages of a range of target pages that the sender still owes. */
  owedCount(fromPage = 0, toPage: number = this.pageCount): number {
    return this.#sum(fromPage, toPage, ({ bank, segment, from, to }) =>
      bank.engine.countSet(segment.owedPtr, from, to),
    );
  }

  /** Counts the pages of a range of target pages that hold nothing but zeroes. */
  zeroScan(fromPage = 0, toPage: number = this.pageCount): number {
    return this.#sum(fromPage, toPage, ({ bank, segment, from, to }) =>
      bank.engine.countZeroPages(segment.ptr + from * TARGET_PAGE_BYTES, to - from),
    );
  }

  /**
   * Hashes the content of a range of target pages: XXH64 of each page, folded in order. A long block
   * is hashed in steps by handing each result on as `previous`; the steps do not change the result.
   * @returns 64 bits
   * @throws PageEngineError RANGE
   */
  checksum(fromPage = 0, toPage: number = this.pageCount, previous = 0n): bigint {
    let folded = previous;
    for (const { bank, segment, from, to } of this.#pieces(fromPage, toPage)) {
      const ptr = segment.ptr + from * TARGET_PAGE_BYTES;
      folded = bank.engine.hashPages(ptr, to - from, folded);
    }
    return BigInt.asUintN(64, folded);
  }

  #sum(fromPage: number, toPage: number, count: (piece: Piece) => number): number {
    let total = 0;
    for (const piece of this.#pieces(fromPage, toPage)) total += count(piece);
    return total;
  }

  /** Cuts a range of target pages by segments. */
  #pieces(fromPage: number, toPage: number): Piece[] {
    if (
      !Number.isInteger(fromPage) ||
      !Number.isInteger(toPage) ||
      fromPage < 0 ||
      fromPage > toPage ||
      toPage > this.pageCount
    ) {
      throw new PageEngineError(
        'RANGE',
        `pages ${fromPage} to ${toPage} of RAM block ${this.name}, which has ${this.pageCount}`,
        { block: this.name },
      );
    }
    const pieces: Piece[] = [];
    for (const segment of this.segments) {
      const from = Math.max(fromPage - segment.firstPage, 0);
      const to = Math.min(toPage - segment.firstPage, segment.pages);
      if (from < to) pieces.push({ bank: this.#banks[segment.bank]!, segment, from, to });
    }
    return pieces;
  }

  #eachSpan(
    offsetBytes: number,
    lengthBytes: number,
    visit: (bank: Bank, ptr: number, length: number, done: number) => void,
  ): void {
    for (const segment of this.segments) {
      const start = segment.firstPage * TARGET_PAGE_BYTES;
      const from = Math.max(offsetBytes, start);
      const to = Math.min(offsetBytes + lengthBytes, start + segment.pages * TARGET_PAGE_BYTES);
      if (from >= to) continue;
      const ptr = segment.ptr + (from - start);
      visit(this.#banks[segment.bank]!, ptr, to - from, from - offsetBytes);
    }
  }

  #holds(offsetBytes: number, lengthBytes: number): boolean {
    return (
      Number.isSafeInteger(offsetBytes) &&
      Number.isSafeInteger(lengthBytes) &&
      offsetBytes >= 0 &&
      lengthBytes >= 0 &&
      offsetBytes + lengthBytes <= this.lengthBytes
    );
  }

  #checkRange(offsetBytes: number, lengthBytes: number): void {
    if (!this.#holds(offsetBytes, lengthBytes)) {
      throw this.#rangeError(offsetBytes, lengthBytes, `the block has ${this.lengthBytes} bytes`);
    }
  }

  #rangeError(offsetBytes: number, lengthBytes: number, problem: string): PageEngineError {
    return new PageEngineError(
      'RANGE',
      `${lengthBytes} bytes at ${offsetBytes} of RAM block ${this.name}: ${problem}`,
      { block: this.name, offsetBytes, lengthBytes },
    );
  }
}

function pagesOf(offsetBytes: number, lengthBytes: number): [number, number] {
  return [
    Math.floor(offsetBytes / TARGET_PAGE_BYTES),
    Math.ceil((offsetBytes + lengthBytes) / TARGET_PAGE_BYTES),
  ];
}
