import type { LocatedModel } from './stream-model.ts';

/** A piece of a stream: its length, what it is, and its value where it is one. */
export type Piece = readonly [lengthBytes: number, what: string, value?: LocatedModel['value']];

/** Waits for one byte of a stream and remembers what it was. */
export class Locator {
  readonly #at: number;
  #found: LocatedModel | undefined;

  /** @param at absolute offset of the byte; undefined when none is asked for */
  constructor(at?: number) {
    this.#at = at ?? -1;
  }

  get found(): LocatedModel | undefined {
    return this.#found;
  }

  /** Absolute offset of the byte; −1 when none is asked for. */
  get at(): number {
    return this.#at;
  }

  /** Tells whether the byte lies in the half-open range `[start, end)`. */
  covers(start: number, end: number): boolean {
    return this.#at >= start && this.#at < end;
  }

  /** Says what the bytes from `start` on are, one piece behind the other. */
  pieces(start: number, path: readonly string[], pieces: Iterable<Piece>): void {
    if (this.#at < start || this.#found !== undefined) return;
    let offset = start;
    for (const [lengthBytes, what, value] of pieces) {
      if (this.covers(offset, offset + lengthBytes)) {
        this.#found = {
          offset: this.#at,
          path,
          what,
          range: { offset, lengthBytes },
          ...(value === undefined ? {} : { value }),
        };
        return;
      }
      offset += lengthBytes;
    }
  }
}
