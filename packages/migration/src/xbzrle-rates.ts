import { TARGET_PAGE_BYTES, type XbzrleStatistics } from '@wherry/page-engine';
import type { XbzrleCacheStatistics } from './migration-info.ts';

/** Tells XBZRLE's counts, and its rates between two synchronisations of the dirty log. */
export class XbzrleRates {
  readonly #cacheBytes: number;
  #pagesSent = 0;
  #last: Pick<XbzrleStatistics, 'pages' | 'bytes' | 'cacheMiss'> = {
    pages: 0,
    bytes: 0,
    cacheMiss: 0,
  };
  #missRate = 0;
  #encodingRate = 0;

  /** @param cacheBytes what the user asked for: a small guest has no use for all of it */
  constructor(cacheBytes: number) {
    this.#cacheBytes = cacheBytes;
  }

  /**
   * Takes new rates.
   *
   * @param pagesSent pages looked at so far, unchanged ones too
   * @see migration_update_rates in QEMU's migration/ram.c
   */
  update(counts: XbzrleStatistics, pagesSent: number): void {
    const sent = pagesSent - this.#pagesSent;
    if (sent === 0) return;
    const pages = counts.pages - this.#last.pages;
    const bytes = counts.bytes - this.#last.bytes;
    this.#missRate = (counts.cacheMiss - this.#last.cacheMiss) / sent;
    this.#encodingRate = bytes === 0 ? 0 : (pages * TARGET_PAGE_BYTES) / bytes;
    this.#pagesSent = pagesSent;
    this.#last = counts;
  }

  info({ bytes, pages, cacheMiss, overflow }: XbzrleStatistics): XbzrleCacheStatistics {
    return {
      'cache-size': this.#cacheBytes,
      bytes,
      pages,
      'cache-miss': cacheMiss,
      'cache-miss-rate': this.#missRate,
      'encoding-rate': this.#encodingRate,
      overflow,
    };
  }
}
