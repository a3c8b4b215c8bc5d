import type { Bank } from './bank.ts';
import type { SegmentPlan } from './layout.ts';
import type { PageList } from './page-list.ts';
import type { RamBlock } from './ram-block.ts';

export interface RamSenderOptions {
  /** Limits the chunks that are out at a time; at most the guest memory's ioBuffers. */
  readonly buffers?: number;
  /** Sends zero pages as ZERO records. Default true. */
  readonly zeroPages?: boolean;
  /**
   * Answers requests over a channel of their own in postcopy, through {@link RamSender.nextRequested}.
   * Default false: {@link RamSender.next} puts them before the background.
   */
  readonly preempt?: boolean;
  /**
   * Sends the changes of pages that were sent before, from the second round of precopy on, as XBZRLE
   * records, and keeps so many bytes of pages for it: a power of two, at most the guest memory's
   * xbzrleCacheBytes. Default 0: no XBZRLE.
   */
  readonly xbzrleCacheBytes?: number;
  /**
   * Lists the pages with content, for others to send, rather than writing records of them: so many
   * lists at a time, at most two for each of the guest memory's multifdChannels. Default 0: no lists.
   */
  readonly pageLists?: number;
  /** Gives runs of pages as they lie in guest memory, instead of records in a buffer. Default false. */
  readonly runs?: boolean;
  /** Leaves these RAM blocks out. Default none. */
  readonly ignored?: ReadonlySet<RamBlock>;
}

/** Names pages of a block that follow each other, in one segment of it. */
export interface RamRun {
  readonly block: RamBlock;
  /** Counts target pages from the block's first. */
  readonly firstPage: number;
  readonly pages: number;
  /** Tells that the pages hold nothing but zeroes. */
  readonly isZero: boolean;
  /** Views the pages in guest memory: the guest may go on writing them. */
  readonly bytes: Uint8Array;
}

/** Holds encoded page records in a buffer that is the caller's until it is released. */
export interface RamChunk {
  /** Views guest-side memory: valid until release. Empty with `runs`. */
  readonly bytes: Uint8Array;
  /** With {@link RamSenderOptions.runs}: what goes out instead. */
  readonly runs: readonly RamRun[];
  /** Counts the bytes that go out. */
  readonly lengthBytes: number;
  /** Lists pages that are in no record: valid until RamSender.releaseList. */
  readonly list: PageList | undefined;
  readonly normalPages: number;
  readonly zeroPages: number;
  readonly xbzrlePages: number;
  /** Tells that the chunk answers requests of the destination. */
  readonly requested: boolean;
  /** Tells that nothing is owed any more behind this chunk's last page. */
  readonly endOfRound: boolean;
  /** Gives the buffer back, and its pages to the guest of a snapshot; once is enough, more does nothing. */
  release(): void;
}

export interface SenderSegment {
  readonly block: RamBlock;
  readonly bank: Bank;
  readonly plan: SegmentPlan;
  /** Counts the target pages of a host page. */
  readonly perHost: number;
}

/** A run of pages within one segment. */
export interface Run {
  readonly segment: SenderSegment;
  page: number;
  readonly end: number;
}

/** What a channel to the destination needs to know of what went over it before. */
export interface Channel {
  /** The block that a record with CONTINUE would mean. */
  named: RamBlock | undefined;
  /** Postcopy: the rest of the host page of which a part is on its way. */
  unfinished: Run | undefined;
}

export interface OpenChunk {
  readonly channel: Channel;
  readonly buffer: number;
  readonly limitBytes: number;
  bank: Bank | undefined;
  bytes: number;
  normalPages: number;
  zeroPages: number;
  xbzrlePages: number;
  requested: boolean;
  readonly listRoom: number;
  list: PageList | undefined;
  readonly runs: RamRun[];
  /** What a snapshot has looked at of each segment: nothing of it is owed any more. */
  readonly passed: {
    readonly segment: SenderSegment;
    readonly from: number;
    readonly to: number;
  }[];
}
