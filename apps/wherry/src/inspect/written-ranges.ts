/** The smallest target page that any guest has. */
const GRANULE_BYTES = 1024;
const GRANULES_A_CHUNK = 8192;

/** Remembers which parts of a block were written, in memory that grows with what was. */
export class WrittenRanges {
  readonly #chunks = new Map<number, Uint8Array>();

  /** Adds the half-open range `[start, end)`. */
  add(start: number, end: number): void {
    const last = Math.ceil(end / GRANULE_BYTES);
    for (let granule = Math.floor(start / GRANULE_BYTES); granule < last; granule++) {
      const index = Math.floor(granule / GRANULES_A_CHUNK);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) this.#chunks.set(index, (chunk = new Uint8Array(GRANULES_A_CHUNK)));
      chunk[granule % GRANULES_A_CHUNK] = 1;
    }
  }

  /** Lists what was written of `[start, end)` in order, as half-open ranges that do not touch. */
  *within(start: number, end: number): Generator<readonly [start: number, end: number]> {
    let from: number | undefined;
    const last = Math.ceil(end / GRANULE_BYTES);
    for (let granule = Math.floor(start / GRANULE_BYTES); granule < last; granule++) {
      const chunk = this.#chunks.get(Math.floor(granule / GRANULES_A_CHUNK));
      const offset = granule * GRANULE_BYTES;
      if (chunk === undefined) {
        // Nothing is written in all of this chunk.
        granule += GRANULES_A_CHUNK - (granule % GRANULES_A_CHUNK) - 1;
      }
      if (chunk?.[granule % GRANULES_A_CHUNK] === 1) {
        from ??= Math.max(start, offset);
      } else if (from !== undefined) {
        yield [from, offset];
        from = undefined;
      }
    }
    if (from !== undefined) yield [from, end];
  }
}
