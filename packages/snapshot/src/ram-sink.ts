import type { MappedRamPlace } from '@wherry/stream';
import type { RamBlockModel } from './stream-model.ts';

/**
 * Takes the contents of RAM while a stream is walked.
 *
 * Offsets count in the block; `at` is the absolute offset of the data in the input, for messages. Views
 * are valid during the call only. A page may come any number of times: the last one counts. What never
 * comes is zero.
 */
export interface RamSink {
  /** Hears of a block before anything of it. */
  begin(block: RamBlockModel): void;
  /** Takes a target page, or from a mapped-ram file a run of bytes of any length. */
  page(block: RamBlockModel, offset: number, bytes: Uint8Array, at: number): void;
  /** Where it is there, takes which pages a mapped-ram file holds, and no pages of that block. */
  mapped?(block: RamBlockModel, place: MappedRamPlace, held: MappedRuns): void;
  /** Hears that a page is zero. */
  zero(block: RamBlockModel, offset: number, lengthBytes: number, at: number): void;
  /** Takes a valid XBZRLE encoding against the page as it came before: `applyXbzrle` lays it over. */
  xbzrle(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    encoded: Uint8Array,
    at: number,
  ): void;
  /** Takes a page of `lengthBytes` as a zlib stream. */
  compressed(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    packed: Uint8Array,
    at: number,
  ): void;
}

/** Which pages of a block a mapped-ram file holds. */
export interface MappedRuns {
  /** Counts the pages from `page` on, at most `max`, that are in the file (positive) or are not (negative). */
  runLength(page: number, max: number): number;
}
