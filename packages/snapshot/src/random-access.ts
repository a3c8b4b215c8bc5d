/** A file that is read at any place, without waiting; a `FileSystemSyncAccessHandle` in a browser, a descriptor in Node. */
export interface RandomAccess {
  readonly sizeBytes: number;
  /** Reads from `offset` on; gives the count, less than asked for at the end only. */
  read(into: Uint8Array, offset: number): number;
}

/** Room of its own for pages that a file holds in pieces. */
export interface Scratch extends RandomAccess {
  /** Writes all of `bytes`, which may be changed afterwards. */
  write(bytes: Uint8Array, offset: number): void;
}
