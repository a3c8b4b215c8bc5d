import type { Bank } from './bank.ts';
import {
  SENDER_PTR,
  TARGET_PAGE_BYTES,
  TX_CACHE,
  TX_CACHE_AGE,
  TX_CACHE_MISS,
  TX_CACHE_SLOTS,
  TX_EDGES,
  TX_OVERFLOW,
  TX_UNCHANGED,
  TX_XBZRLE,
  TX_XBZRLE_BYTES,
} from './layout.ts';

/** Counts what XBZRLE did, as QEMU's query-migrate does; rates are of the caller's own interval. */
export interface XbzrleStatistics {
  readonly cacheBytes: number;
  /** Bytes of the records, each without its first 8, and of the pages that overflowed. */
  readonly bytes: number;
  /** Pages found in the cache; their 4096 bytes each, to `bytes`, are the encoding rate. */
  readonly pages: number;
  readonly cacheMiss: number;
  /** Pages whose encoding would have been longer than a page, sent as they are. */
  readonly overflow: number;
  /** Pages that were as they had been sent, so that nothing was. */
  readonly unchanged: number;
}

/**
 * Switches the sender's XBZRLE and its cache, which the banks share evenly, each for its own pages.
 * @see QEMU migration/page_cache.c
 */
export class XbzrleCache {
  readonly #banks: readonly Bank[];
  readonly #edgesPtr: number;
  readonly #cacheBytes: number;
  #age = 0;
  #isOn = false;
  #bytes = 0;
  #pages = 0;
  #cacheMiss = 0;
  #overflow = 0;
  #unchanged = 0;

  /**
   * @param edgesPtr where each bank has EDGES_BYTES of room
   * @param cacheBytes a power of two, or 0 for no XBZRLE
   */
  constructor(banks: readonly Bank[], edgesPtr: number, cacheBytes: number) {
    this.#banks = banks;
    this.#edgesPtr = edgesPtr;
    this.#cacheBytes = cacheBytes;
    this.stop();
  }

  get statistics(): XbzrleStatistics | undefined {
    if (this.#cacheBytes === 0) return undefined;
    return {
      cacheBytes: this.#cacheBytes,
      bytes: this.#bytes,
      pages: this.#pages,
      cacheMiss: this.#cacheMiss,
      overflow: this.#overflow,
      unchanged: this.#unchanged,
    };
  }

  /** Begins to use the cache, empty, unless that is so already. */
  start(): void {
    if (this.#isOn || this.#cacheBytes === 0) return;
    this.#isOn = true;
    const share = 2 ** Math.ceil(Math.log2(this.#banks.length));
    const slots = Math.max(1, this.#cacheBytes / TARGET_PAGE_BYTES / share);
    for (const bank of this.#banks) {
      bank.engine.clearCache(bank.plan.cachePtr, slots);
      bank.setU32(SENDER_PTR + TX_CACHE, bank.plan.cachePtr);
      bank.setU32(SENDER_PTR + TX_CACHE_SLOTS, slots);
      bank.setU32(SENDER_PTR + TX_CACHE_AGE, this.#age);
      bank.setU32(SENDER_PTR + TX_EDGES, this.#edgesPtr);
    }
  }

  /** Uses the cache no more, and forgets what is in it. */
  stop(): void {
    this.#isOn = false;
    for (const bank of this.#banks) bank.setU32(SENDER_PTR + TX_CACHE_SLOTS, 0);
  }

  /** Makes what is cached older by a sync. */
  grow(): void {
    this.#age++;
    for (const bank of this.#banks) bank.setU32(SENDER_PTR + TX_CACHE_AGE, this.#age);
  }

  /** Counts what the last call of encode did. */
  count(bank: Bank): void {
    if (!this.#isOn) return;
    const overflow = bank.getU32(SENDER_PTR + TX_OVERFLOW);
    const unchanged = bank.getU32(SENDER_PTR + TX_UNCHANGED);
    this.#pages += bank.getU32(SENDER_PTR + TX_XBZRLE) + overflow + unchanged;
    this.#bytes += bank.getU32(SENDER_PTR + TX_XBZRLE_BYTES);
    this.#cacheMiss += bank.getU32(SENDER_PTR + TX_CACHE_MISS);
    this.#overflow += overflow;
    this.#unchanged += unchanged;
  }
}
