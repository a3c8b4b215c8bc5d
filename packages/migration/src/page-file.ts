import type { SeekableFile } from './transport.ts';

/** Bytes that have a place in a file. */
export interface FilePiece {
  /** Views guest memory. */
  readonly bytes: Uint8Array;
  /** Offset in the file. */
  readonly offset: number;
}

/** A piece of which the file holds only the beginning. */
export interface ShortRead {
  readonly offset: number;
  readonly expectedBytes: number;
  readonly foundBytes: number;
}

/** Writes and reads pages at their places in a file; one call at a time, in whatever order within. */
export interface PageFile {
  /** Writes all of the pieces, which do not overlap. */
  write(pieces: readonly FilePiece[]): Promise<void>;
  /** Fills all of the pieces, or tells of one at which the file ends. */
  read(pieces: readonly FilePiece[]): Promise<ShortRead | undefined>;
  /** Lets go of the file, when no call is under way. */
  close(): Promise<void>;
}

/** Writes and reads one piece after the other, over the connection itself. */
export class ConnectionPageFile implements PageFile {
  readonly #file: SeekableFile;

  constructor(file: SeekableFile) {
    this.#file = file;
  }

  async write(pieces: readonly FilePiece[]): Promise<void> {
    for (const { bytes, offset } of pieces) await this.#file.writeAt(bytes, offset);
  }

  async read(pieces: readonly FilePiece[]): Promise<ShortRead | undefined> {
    for (const { bytes, offset } of pieces) {
      const foundBytes = await this.#file.readAt(bytes, offset);
      if (foundBytes < bytes.length) return { offset, expectedBytes: bytes.length, foundBytes };
    }
    return undefined;
  }

  /** Leaves the connection to its owner. */
  async close(): Promise<void> {}
}
