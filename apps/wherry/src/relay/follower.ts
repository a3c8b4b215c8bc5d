import { ByteReader, more, type Parser, WherryError } from '@wherry/bytes';

/**
 * Follows one direction of a connection while it passes: a parser runs over the bytes in the buffer that
 * they are relayed from. What cannot be parsed is passed on unread.
 */
export class Follower {
  readonly #storage: Uint8Array;
  readonly #reader: ByteReader;
  #parser: Parser<void> | undefined;
  #bytes = 0;
  #problem: WherryError | undefined;

  /**
   * @param storage where the bytes pass through
   * @param parse gets the reader; places are told by its offset
   */
  constructor(storage: Uint8Array, parse: (reader: ByteReader) => Parser<void>) {
    this.#storage = storage;
    this.#reader = new ByteReader({ storage });
    this.#parser = parse(this.#reader);
    this.#run(); // to its first wait
  }

  /** Bytes that have passed. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Why the parser gave up; undefined while it follows. */
  get problem(): WherryError | undefined {
    return this.#problem;
  }

  /** Gives room for the next bytes; what was there before may be overwritten. */
  room(): Uint8Array {
    if (this.#parser === undefined) return this.#storage;
    try {
      return this.#reader.space();
    } catch (error) {
      this.#giveUp(error);
      return this.#storage;
    }
  }

  /** Says that `count` bytes came into the room; parses them. */
  heard(count: number): void {
    this.#bytes += count;
    if (this.#parser === undefined) return;
    this.#reader.commit(count);
    this.#run();
  }

  /** Says that no more will come. */
  finish(): void {
    this.#reader.finish();
    this.#run();
  }

  #run(): void {
    try {
      if (this.#parser?.next().done === true) this.#parser = undefined;
    } catch (error) {
      this.#giveUp(error);
    }
  }

  #giveUp(error: unknown): void {
    this.#parser = undefined;
    if (!(error instanceof WherryError)) throw error;
    this.#problem = error;
  }
}

/** Passes over all that comes. */
export function* passAll(reader: ByteReader): Parser<void> {
  while (yield* more(reader)) reader.skip(reader.available);
}
