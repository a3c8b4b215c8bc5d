/** Pages a table tells of: 4 KiB of table for the 2 MiB of guest that their records hold at least once. */
const CHUNK_PAGES = 512;

/**
 * Says for each page of a RAM block where its bytes are, 8 bytes of memory a page that is not zero:
 * a non-negative number is an offset in the file, a negative one is `-1 - offset` in the scratch room,
 * `undefined` is a page of zeros.
 */
export class PagePlaces {
  // Not an array: the length of a block is what a file claims, the pages are what it holds.
  readonly #chunks = new Map<number, Float64Array>();

  get(page: number): number | undefined {
    const place = this.#chunks.get(Math.floor(page / CHUNK_PAGES))?.[page % CHUNK_PAGES];
    return place === undefined || Number.isNaN(place) ? undefined : place;
  }

  set(page: number, place: number | undefined): void {
    const index = Math.floor(page / CHUNK_PAGES);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      if (place === undefined) return;
      chunk = new Float64Array(CHUNK_PAGES).fill(Number.NaN);
      this.#chunks.set(index, chunk);
    }
    chunk[page % CHUNK_PAGES] = place ?? Number.NaN;
  }

  /** Counts the pages from `first` on, at most `max`, that are zeros. */
  zeros(first: number, max: number): number {
    const end = first + max;
    for (let page = first; page < end; ) {
      const index = Math.floor(page / CHUNK_PAGES);
      const chunk = this.#chunks.get(index);
      const chunkEnd = Math.min(end, (index + 1) * CHUNK_PAGES);
      if (chunk === undefined) {
        page = chunkEnd;
        continue;
      }
      for (; page < chunkEnd; page++) {
        if (!Number.isNaN(chunk[page % CHUNK_PAGES]!)) return page - first;
      }
    }
    return max;
  }

  /** Counts the pages from `first` on, at most `max`, whose places are `stepBytes` apart. */
  steps(first: number, max: number, stepBytes: number): number {
    let place = this.get(first);
    if (place === undefined) return 0;
    const step = place < 0 ? -stepBytes : stepBytes;
    let count = 1;
    while (count < max) {
      place += step;
      if (this.get(first + count) !== place) break;
      count++;
    }
    return count;
  }
}
