/**
 * Copies the sections that are wanted out of a stream that passes in chunks. Whoever parses the stream
 * says where sections begin and end; what is between them is left out.
 */
export class SectionCopier {
  readonly #append: (bytes: Uint8Array) => void;
  #chunk: Uint8Array = new Uint8Array();
  #chunkOffset = 0;
  /** What of earlier chunks is not decided on; it ends where the chunk begins. */
  #held: Uint8Array = new Uint8Array();
  /** Everything before this offset is decided on. */
  #from = 0;
  #state: 'between' | 'copies' | 'leaves out' = 'between';

  /** @param append takes what is copied, in order; a view that is valid during the call */
  constructor(append: (bytes: Uint8Array) => void) {
    this.#append = append;
  }

  /** Takes the next chunk, before it is parsed. It must stay as it is until {@link SectionCopier.settle}. */
  take(chunk: Uint8Array): void {
    this.#chunkOffset += this.#chunk.length;
    this.#chunk = chunk;
  }

  /** Hears that a section begins at this offset. */
  begin(offset: number, isWanted: boolean): void {
    this.#from = offset;
    this.#state = isWanted ? 'copies' : 'leaves out';
  }

  /** Hears that the section ends before this offset. */
  end(offset: number): void {
    if (this.#state === 'copies') this.#copy(offset);
    this.#from = offset;
    this.#state = 'between';
  }

  /** Copies what is parsed, before this offset, and keeps what is not decided on: the chunk may then change. */
  settle(parsed: number): void {
    if (this.#state === 'copies') this.#copy(parsed);
    if (this.#state !== 'between') this.#from = parsed;
    const end = this.#chunkOffset + this.#chunk.length;
    this.#held = Buffer.concat(this.#pieces(this.#from, end));
  }

  #copy(end: number): void {
    for (const piece of this.#pieces(this.#from, end)) this.#append(piece);
  }

  #pieces(from: number, end: number): Uint8Array[] {
    const heldOffset = this.#chunkOffset - this.#held.length;
    const cut = (bytes: Uint8Array, offset: number): Uint8Array =>
      bytes.subarray(Math.max(0, from - offset), Math.max(0, end - offset));
    const pieces = [cut(this.#held, heldOffset), cut(this.#chunk, this.#chunkOffset)];
    return pieces.filter(({ length }) => length > 0);
  }
}
