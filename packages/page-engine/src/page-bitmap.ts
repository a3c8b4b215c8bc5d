import { type Engine, engineModule, instantiateEngine } from './engine-module.ts';
import { PageEngineError } from './errors.ts';
import { MAX_RUNS, RUN_BYTES } from './layout.ts';
import { listRuns } from './runs.ts';

const WASM_PAGE_BYTES = 65_536;
const RUNS_PTR = 64;
const BITMAP_PTR: number = RUNS_PTR + MAX_RUNS * RUN_BYTES;
const LINE_PAGES = 512;
const MAX_PAGES: number = 2 ** 31;

/** Keeps one bit a page, without a guest around it; ranges are half-open. */
export class PageBitmap {
  readonly pages: number;
  /** Views the bits: bit 0 of byte 0 is the first page. Those behind the last page stay clear. */
  readonly bytes: Uint8Array;
  readonly #engine: Engine;
  readonly #u32: Uint32Array;
  readonly #other: Uint8Array;

  private constructor(memory: WebAssembly.Memory, engine: Engine, pages: number) {
    this.pages = pages;
    this.#engine = engine;
    this.#u32 = new Uint32Array(memory.buffer);
    const lengthBytes = Math.ceil(pages / 8);
    this.bytes = new Uint8Array(memory.buffer, BITMAP_PTR, lengthBytes);
    this.#other = new Uint8Array(memory.buffer, BITMAP_PTR + linesOf(pages), lengthBytes);
  }

  /**
   * Makes a bitmap of clear bits.
   * @param pages at most 2^31
   * @throws PageEngineError BAD_OPTION
   */
  static async create(pages: number): Promise<PageBitmap> {
    if (!Number.isInteger(pages) || pages < 1 || pages > MAX_PAGES) {
      throw new PageEngineError('BAD_OPTION', `${pages} pages, not 1 to ${MAX_PAGES}`);
    }
    const memory = new WebAssembly.Memory({
      initial: Math.ceil((BITMAP_PTR + 2 * linesOf(pages)) / WASM_PAGE_BYTES),
    });
    const engine = await instantiateEngine(await engineModule(false), memory);
    return new PageBitmap(memory, engine, pages);
  }

  /** Tells whether a page's bit is set. @throws PageEngineError RANGE */
  has(page: number): boolean {
    return this.count(page, page + 1) === 1;
  }

  /** Sets the bits of a range, of one page by default. @throws PageEngineError RANGE */
  set(from: number, to: number = from + 1): void {
    this.#check(from, to);
    this.#engine.setRange(BITMAP_PTR, from, to);
  }

  /**
   * Clears the bits of a range, of one page by default.
   * @returns how many of them were set
   * @throws PageEngineError RANGE
   */
  clear(from: number, to: number = from + 1): number {
    this.#check(from, to);
    return this.#engine.clearRange(BITMAP_PTR, from, to) >>> 0;
  }

  /** Counts the bits that are set. @throws PageEngineError RANGE */
  count(from = 0, to: number = this.pages): number {
    this.#check(from, to);
    return this.#engine.countSet(BITMAP_PTR, from, to) >>> 0;
  }

  /** Finds the first page whose bit is set, or `to`. @throws PageEngineError RANGE */
  nextSet(from = 0, to: number = this.pages): number {
    this.#check(from, to);
    return this.#engine.nextSet(BITMAP_PTR, from, to) >>> 0;
  }

  /** Finds the first page whose bit is clear, or `to`. @throws PageEngineError RANGE */
  nextClear(from = 0, to: number = this.pages): number {
    this.#check(from, to);
    return this.#engine.nextClear(BITMAP_PTR, from, to) >>> 0;
  }

  /**
   * Lists the runs of set bits, ascending: first page and end. What changes meanwhile may be seen or not.
   * @throws PageEngineError RANGE
   */
  runs(from = 0, to: number = this.pages): Iterable<[first: number, end: number]> {
    this.#check(from, to);
    return listRuns(this.#engine, this.#u32, RUNS_PTR, BITMAP_PTR, from, to);
  }

  /**
   * Sets the bits that are set in another bitmap, as long as `bytes` and in its order.
   * @returns how many were not set before
   * @throws PageEngineError RANGE
   */
  add(bitmap: Uint8Array): number {
    if (bitmap.length !== this.bytes.length) {
      throw new PageEngineError(
        'RANGE',
        `a bitmap of ${bitmap.length} bytes, not ${this.bytes.length}`,
        { lengthBytes: bitmap.length },
      );
    }
    this.#other.set(bitmap);
    const otherPtr = this.#other.byteOffset;
    this.#engine.clearRange(otherPtr, this.pages, bitmap.length * 8);
    return this.#engine.addNew(BITMAP_PTR, otherPtr, this.pages) >>> 0;
  }

  #check(from: number, to: number): void {
    if (!(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to)) {
      throw new PageEngineError('RANGE', `pages ${from} to ${to} are no range`);
    }
    if (to > this.pages) {
      throw new PageEngineError('RANGE', `pages ${from} to ${to} of a bitmap of ${this.pages}`);
    }
  }
}

/** Counts the bytes of the cache lines that hold so many pages' bits. */
function linesOf(pages: number): number {
  return Math.ceil(pages / LINE_PAGES) * (LINE_PAGES / 8);
}
