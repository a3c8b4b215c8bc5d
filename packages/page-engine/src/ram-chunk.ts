import type { PageList } from './page-list.ts';

/** Holds encoded page records in a buffer that is the caller's until it is released. */
export interface RamChunk {
  /** Views guest-side memory: valid until release. */
  readonly bytes: Uint8Array;
  /** Lists pages that are in no record: valid until RamSender.releaseList. */
  readonly list: PageList | undefined;
  readonly normalPages: number;
  readonly zeroPages: number;
  readonly xbzrlePages: number;
  /** Tells that the chunk answers requests of the destination. */
  readonly requested: boolean;
  /** Tells that nothing is owed any more behind this chunk's last page. */
  readonly endOfRound: boolean;
  /** Gives the buffer back; once is enough, more does nothing. */
  release(): void;
}
