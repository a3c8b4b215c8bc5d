import type { Configuration } from '@wherry/stream';

/** A RAM block of a guest that stands still in a file. */
export interface StoredBlock {
  readonly name: string;
  readonly usedBytes: number;
}

/** A half-open range of bytes of the file. */
export interface StoredRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A guest that stands still in a file, as a migration sees it; `@wherry/snapshot` has one. */
export interface StoredGuestPort {
  /** In the order of the list that is sent. */
  readonly blocks: readonly StoredBlock[];
  readonly targetPageBytes: number;
  readonly ram: {
    /** Counts the pages from `page` on, at most `max`, that are alike: positive with contents, negative zeros. */
    runLength(block: number, page: number, max: number): number;
    /** Reads `count` pages with contents, page i to `i * strideBytes`; may overwrite what lies between. */
    read(block: number, page: number, count: number, into: Uint8Array, strideBytes: number): void;
  };
  readonly configuration: Configuration | undefined;
  readonly ramSectionId: number;
  readonly hasFooters: boolean;
  readonly announcesSwitchover: boolean;
  /** Whole sections as they were written: ahead of the RAM list, behind it, and behind all pages. */
  readonly beforeRam: readonly StoredRange[];
  readonly beforePages: readonly StoredRange[];
  readonly behindPages: readonly StoredRange[];
  readonly vmdesc: StoredRange | undefined;
  /** Reads bytes of the file; gives the count, less than asked for at its end only. */
  readBytes(into: Uint8Array, offset: number): number;
}
