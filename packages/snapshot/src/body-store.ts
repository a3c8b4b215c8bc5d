/** Keeps the bodies of sections, up to a limit on all of them together. */
export class BodyStore {
  readonly #maxBytes: number;
  #keptBytes = 0;
  #body = new Uint8Array(1024);
  #length = 0;
  #isWhole = true;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Begins a body. */
  begin(): void {
    this.#length = 0;
    this.#isWhole = true;
    // One large section must not hold its room for the rest of the stream.
    if (this.#body.length > 1024 * 1024) this.#body = new Uint8Array(1024);
  }

  /** Adds a piece to the body, unless that passes the limit: then none of it is kept. */
  add(piece: Uint8Array): void {
    const length = this.#length + piece.length;
    if (this.#keptBytes + length > this.#maxBytes) this.#isWhole = false;
    if (!this.#isWhole) return;
    if (length > this.#body.length) {
      const larger = new Uint8Array(Math.max(length, this.#body.length * 2));
      larger.set(this.#body.subarray(0, this.#length));
      this.#body = larger;
    }
    this.#body.set(piece, this.#length);
    this.#length = length;
  }

  /** Gives a copy of what was added since {@link BodyStore.begin}; undefined when it passed the limit. */
  end(): Uint8Array | undefined {
    if (!this.#isWhole) return undefined;
    this.#keptBytes += this.#length;
    return this.#body.slice(0, this.#length);
  }
}
