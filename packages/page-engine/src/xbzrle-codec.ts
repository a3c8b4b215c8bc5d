import { type Engine, engineModule, instantiateEngine } from './engine-module.ts';
import { PageEngineError } from './errors.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';

const OLD_PTR = 4096;
const PAGE_PTR = 8192;
const ENCODING_PTR = 12_288;
const EDGES_PTR = 16_384;

/**
 * Tells two pages apart as XBZRLE does, without a guest around them: runs of unchanged bytes, and runs
 * of changed ones with their new content.
 * @see QEMU migration/xbzrle.c
 */
export class XbzrleCodec {
  readonly #bytes: Uint8Array;
  readonly #engine: Engine;

  private constructor(bytes: Uint8Array, engine: Engine) {
    this.#bytes = bytes;
    this.#engine = engine;
  }

  static async create(): Promise<XbzrleCodec> {
    const memory = new WebAssembly.Memory({ initial: 1 });
    const engine = await instantiateEngine(await engineModule(false), memory);
    return new XbzrleCodec(new Uint8Array(memory.buffer), engine);
  }

  /**
   * Encodes how a page of 4096 bytes differs from what it was.
   * @returns the encoding, empty for equal pages; undefined where it would be longer than a page
   * @throws PageEngineError RANGE
   */
  encode(old: Uint8Array, page: Uint8Array): Uint8Array | undefined {
    this.#put(OLD_PTR, old);
    this.#put(PAGE_PTR, page);
    const lengthBytes = this.#engine.encodeXbzrle(OLD_PTR, PAGE_PTR, ENCODING_PTR, EDGES_PTR);
    if (lengthBytes < 0) return undefined;
    return this.#bytes.slice(ENCODING_PTR, ENCODING_PTR + lengthBytes);
  }

  /**
   * Changes a page of 4096 bytes as an encoding says; one that is wrong changes nothing.
   * @throws PageEngineError RANGE; XBZRLE_INVALID, with the position in the encoding
   */
  decode(encoding: Uint8Array, page: Uint8Array): void {
    this.#put(OLD_PTR, page);
    const fits = encoding.length <= TARGET_PAGE_BYTES;
    if (fits) this.#bytes.set(encoding, ENCODING_PTR);
    const position = fits ? this.#engine.checkXbzrle(ENCODING_PTR, encoding.length) : 0;
    if (position >= 0) {
      throw new PageEngineError(
        'XBZRLE_INVALID',
        fits
          ? `XBZRLE data that fit no page, from byte ${position} of ${encoding.length}`
          : `XBZRLE data of ${encoding.length} bytes, longer than a page`,
        { position, lengthBytes: encoding.length },
      );
    }
    this.#engine.applyXbzrle(ENCODING_PTR, encoding.length, OLD_PTR);
    page.set(this.#bytes.subarray(OLD_PTR, OLD_PTR + TARGET_PAGE_BYTES));
  }

  #put(ptr: number, page: Uint8Array): void {
    if (page.length !== TARGET_PAGE_BYTES) {
      throw new PageEngineError('RANGE', `a page of ${page.length} bytes, not 4096`, {
        lengthBytes: page.length,
      });
    }
    this.#bytes.set(page, ptr);
  }
}
