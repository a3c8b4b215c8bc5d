import { BytesError } from '@wherry/bytes';
import { applyXbzrle, type MappedRamPlace, StreamError } from '@wherry/stream';
import { PagePlaces } from './page-places.ts';
import type { MappedRuns, RamSink } from './ram-sink.ts';
import type { RandomAccess, Scratch } from './random-access.ts';
import type { RamBlockModel } from './stream-model.ts';

/** The word before a page in a stream, where its record continues the block of the one before. */
const WORD_BYTES = 8;

/** What an index needs besides the file. */
export interface RamIndexOptions {
  /** Makes the room for pages that have to be put together (XBZRLE, zlib); called once at most. */
  readonly scratch: () => Scratch;
  /** Unpacks a zlib stream of at most `maxBytes`; whatever it throws means that the data is damaged. */
  readonly inflate: (packed: Uint8Array, maxBytes: number) => Uint8Array;
}

/** A block as it is read by page. */
interface IndexedBlock {
  readonly model: RamBlockModel;
  readonly places: PagePlaces;
  mapped?: { readonly pagesOffset: number; readonly runs: MappedRuns };
}

/**
 * Reads a guest's RAM by page out of the file that its stream was written to. Give it to a walk as its
 * `ramSink`; afterwards each page is where its last record is.
 *
 * Takes 8 bytes of memory a page of a stream that is not zero, and 1 bit a page of a mapped-ram file, whose
 * pages the walk does not read.
 */
export class RamIndex implements RamSink {
  readonly #file: RandomAccess;
  readonly #options: RamIndexOptions;
  readonly #blocks: IndexedBlock[] = [];
  readonly #byName = new Map<string, number>();
  #pageBytes = 0;
  #scratch: Scratch | undefined;
  #scratchBytes = 0;
  #row = new Uint8Array(0);

  constructor(file: RandomAccess, options: RamIndexOptions) {
    this.#file = file;
    this.#options = options;
  }

  begin(block: RamBlockModel): void {
    const indexed = { model: block, places: new PagePlaces() };
    const known = this.#byName.get(block.name); // the same stream is walked once more
    if (known !== undefined) this.#blocks[known] = indexed;
    else this.#byName.set(block.name, this.#blocks.push(indexed) - 1);
  }

  mapped(
    block: RamBlockModel,
    { pageBytes, pagesOffset }: MappedRamPlace,
    bitmap: MappedRuns,
  ): void {
    this.#pageBytes = pageBytes;
    this.#of(block).mapped = { pagesOffset, runs: bitmap };
  }

  page(block: RamBlockModel, offset: number, bytes: Uint8Array, at: number): void {
    this.#pageBytes = bytes.length;
    this.#of(block).places.set(offset / bytes.length, at);
  }

  zero(block: RamBlockModel, offset: number, lengthBytes: number): void {
    this.#of(block).places.set(Math.floor(offset / lengthBytes), undefined);
  }

  xbzrle(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    encoded: Uint8Array,
    at: number,
  ): void {
    const page = new Uint8Array(lengthBytes);
    this.#readPlace(this.#of(block).places.get(offset / lengthBytes), page);
    applyXbzrle(page, encoded, lengthBytes, { offset: at, path: ['ram', block.name] });
    this.#keep(block, offset, page);
  }

  compressed(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    packed: Uint8Array,
    at: number,
  ): void {
    const fail = (found: string, cause?: unknown): StreamError =>
      new StreamError('RAM_RECORD_INVALID', 'A compressed page cannot be expanded', {
        expected: `a zlib stream of ${lengthBytes} bytes`,
        found,
        offset: at,
        path: ['ram', block.name, `page 0x${offset.toString(16)}`],
        likely: 'The stream is damaged here',
        cause,
      });
    let page: Uint8Array;
    try {
      page = this.#options.inflate(packed, lengthBytes);
    } catch (cause) {
      throw fail(cause instanceof Error ? cause.message : String(cause), cause);
    }
    if (page.length !== lengthBytes) throw fail(`${page.length} bytes`);
    this.#keep(block, offset, page);
  }

  /**
   * Counts the pages of a block from `page` on, at most `max`, that are alike: a positive count of pages
   * with contents that one {@link RamIndex.read} gets fast, a negative one of zeros.
   *
   * @param block index in the stream's list of RAM blocks
   */
  runLength(block: number, page: number, max: number): number {
    const { places, mapped } = this.#blocks[block]!;
    if (mapped !== undefined) return mapped.runs.runLength(page, max);
    const zeros = places.zeros(page, max);
    if (zeros > 0) return -zeros;
    const place = places.get(page)!;
    return places.steps(page, max, place < 0 ? this.#pageBytes : this.#pageBytes + WORD_BYTES);
  }

  /**
   * Reads pages that {@link RamIndex.runLength} counted, with contents.
   *
   * @param into gets page i at `i * strideBytes`; what lies between the pages is overwritten, too
   * @param strideBytes at least a page
   * @throws BytesError `UNEXPECTED_END` when the file has become shorter
   */
  read(block: number, page: number, count: number, into: Uint8Array, strideBytes: number): void {
    const pageBytes = this.#pageBytes;
    const { places, mapped, model } = this.#blocks[block]!;
    const place = mapped === undefined ? places.get(page)! : mapped.pagesOffset + page * pageBytes;
    const step = mapped === undefined && place >= 0 ? pageBytes + WORD_BYTES : pageBytes;
    const [file, from] = place < 0 ? [this.#scratch!, -1 - place] : [this.#file, place];
    const lengthBytes = (count - 1) * step + pageBytes;
    if (step === strideBytes) {
      readAll(file, into.subarray(0, lengthBytes), from, model.name);
      return;
    }
    if (this.#row.length < lengthBytes) this.#row = new Uint8Array(lengthBytes);
    readAll(file, this.#row.subarray(0, lengthBytes), from, model.name);
    for (let i = 0; i < count; i++) {
      into.set(this.#row.subarray(i * step, i * step + pageBytes), i * strideBytes);
    }
  }

  #of(block: RamBlockModel): IndexedBlock {
    return this.#blocks[this.#byName.get(block.name)!]!;
  }

  /** Reads a page as it came so far. */
  #readPlace(place: number | undefined, into: Uint8Array): void {
    if (place === undefined) return;
    if (place < 0) readAll(this.#scratch!, into, -1 - place, 'ram');
    else readAll(this.#file, into, place, 'ram');
  }

  /** Keeps a page that was put together, in the place of an older one of its kind. */
  #keep(block: RamBlockModel, offset: number, bytes: Uint8Array): void {
    const { places } = this.#of(block);
    const page = offset / bytes.length;
    this.#pageBytes = bytes.length;
    this.#scratch ??= this.#options.scratch();
    const old = places.get(page);
    let at = this.#scratchBytes;
    if (old !== undefined && old < 0) at = -1 - old;
    else this.#scratchBytes += bytes.length;
    this.#scratch.write(bytes, at);
    places.set(page, -1 - at);
  }
}

function readAll(file: RandomAccess, into: Uint8Array, offset: number, block: string): void {
  for (let have = 0; have < into.length; ) {
    const count = file.read(into.subarray(have), offset + have);
    if (count === 0) {
      throw new BytesError('UNEXPECTED_END', 'The file has become shorter', {
        expected: `${into.length - have} more bytes`,
        found: 'its end',
        offset: offset + have,
        path: ['ram', block],
        likely: 'Something has changed the file since it was opened',
      });
    }
    have += count;
  }
}
