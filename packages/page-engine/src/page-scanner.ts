import { type Engine, engineModule, instantiateEngine } from './engine-module.ts';
import { PageEngineError } from './errors.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';

const WASM_PAGE_BYTES = 65536;
/** Keeps the bitmap off the null pointer. */
const BITMAP_PTR = 64;
const MAX_CAPACITY_BYTES: number = 2 ** 30;

/** Finds the zero pages of any bytes, without a guest around them. */
export class PageScanner {
  /** Takes the bytes to scan. */
  readonly buffer: Uint8Array;
  readonly #bytes: Uint8Array;
  readonly #engine: Engine;
  readonly #bufferPtr: number;

  private constructor(memory: WebAssembly.Memory, engine: Engine, capacityBytes: number) {
    this.#bytes = new Uint8Array(memory.buffer);
    this.#engine = engine;
    this.#bufferPtr = this.#bytes.length - capacityBytes;
    this.buffer = this.#bytes.subarray(this.#bufferPtr);
  }

  /**
   * Makes a scanner.
   * @param capacityBytes a multiple of 4096, at most 1 GiB
   * @throws PageEngineError BAD_OPTION
   */
  static async create(capacityBytes: number = 2 ** 20): Promise<PageScanner> {
    if (
      !Number.isInteger(capacityBytes) ||
      capacityBytes <= 0 ||
      capacityBytes > MAX_CAPACITY_BYTES ||
      capacityBytes % TARGET_PAGE_BYTES !== 0
    ) {
      throw new PageEngineError(
        'BAD_OPTION',
        `capacityBytes is ${capacityBytes}, not a multiple of 4096 up to 1 GiB`,
      );
    }
    const bitmapBytes = BITMAP_PTR + capacityBytes / TARGET_PAGE_BYTES / 8 + 8;
    const memory = new WebAssembly.Memory({
      initial: Math.ceil((bitmapBytes + capacityBytes) / WASM_PAGE_BYTES),
    });
    const engine = await instantiateEngine(await engineModule(false), memory);
    return new PageScanner(memory, engine, capacityBytes);
  }

  /**
   * Scans the first bytes of the buffer.
   * @param lengthBytes a multiple of 4096
   * @returns the count of zero pages and a bitmap of them, bit i for page i, lowest bit first
   * @throws PageEngineError RANGE
   */
  scan(lengthBytes: number = this.buffer.length): { zeroPages: number; bitmap: Uint8Array } {
    if (
      !Number.isInteger(lengthBytes) ||
      lengthBytes < 0 ||
      lengthBytes > this.buffer.length ||
      lengthBytes % TARGET_PAGE_BYTES !== 0
    ) {
      throw new PageEngineError(
        'RANGE',
        `${lengthBytes} bytes, not a multiple of 4096 up to ${this.buffer.length}`,
        { lengthBytes },
      );
    }
    const pages = lengthBytes / TARGET_PAGE_BYTES;
    const bitmapEnd = BITMAP_PTR + Math.ceil(pages / 64) * 8;
    this.#bytes.fill(0, BITMAP_PTR, bitmapEnd);
    const zeroPages = this.#engine.markZeroPages(this.#bufferPtr, pages, BITMAP_PTR);
    return {
      zeroPages,
      bitmap: this.#bytes.slice(BITMAP_PTR, BITMAP_PTR + Math.ceil(pages / 8)),
    };
  }
}
