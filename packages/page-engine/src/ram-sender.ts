import { collectRuns } from './collect-runs.ts';
import { listDiscards, type RamDiscard } from './discards.ts';
import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import {
  checkedCacheBytes,
  ENTRY_BYTES,
  MAX_RECORD_BYTES,
  SENDER_PTR,
  TARGET_PAGE_BYTES,
  TX_NEXT_PAGE,
  TX_NORMAL,
  TX_UNCHANGED,
  TX_XBZRLE,
  TX_ZERO,
} from './layout.ts';
import { OwedPages } from './owed-pages.ts';
import { type PageList, PageLists } from './page-list.ts';
import type { RamBlock } from './ram-block.ts';
import type { Channel, OpenChunk, RamChunk, RamSenderOptions, Run } from './ram-chunk.ts';
import { releasePages, releaseSent } from './release-sent.ts';
import { RequestQueue } from './request-queue.ts';
import { XbzrleCache, type XbzrleStatistics } from './xbzrle-cache.ts';

/**
 * Encodes a guest's pages for a migration: what is owed, in rounds (precopy) or by whole host pages
 * with requests first (postcopy). A guest memory has one sender at a time.
 * @see QEMU migration/ram.c: ram_find_and_save_block, ram_save_host_page
 */
export class RamSender {
  readonly #ram: GuestRam;
  readonly #owed: OwedPages;
  readonly #freeBuffers: number[];
  readonly #lists: PageLists;
  readonly #findZeroPages: boolean;
  readonly #givesRuns: boolean;
  /** Pages that were not yet sent are kept from the guest. */
  #isSnapshot = false;
  #roundComplete = false;
  #postcopy = false;
  #releases = false;
  readonly #main: Channel = { named: undefined, unfinished: undefined };
  /** Where requests are answered: the main channel too, unless they have one of their own. */
  readonly #urgent: Channel;
  /** The destination waits for the host page that the main channel is inside of. */
  #mainIsAwaited = false;
  readonly #xbzrle: XbzrleCache;
  readonly #requests = new RequestQueue();
  #normalPages = 0;
  #zeroPages = 0;
  #bytes = 0;

  /** @throws PageEngineError BAD_OPTION */
  constructor(ram: GuestRam, options: RamSenderOptions = {}) {
    const { ioBuffers } = ram.plan.options;
    const buffers = options.buffers ?? ioBuffers;
    if (!Number.isInteger(buffers) || buffers < 1 || buffers > ioBuffers) {
      throw new PageEngineError('BAD_OPTION', `buffers is ${buffers}, not in 1 to ${ioBuffers}`);
    }
    this.#ram = ram;
    this.#xbzrle = new XbzrleCache(
      ram.banks,
      ram.plan.edgesPtr,
      checkedCacheBytes(options.xbzrleCacheBytes, ram.plan.options.xbzrleCacheBytes),
    );
    this.#freeBuffers = Array.from({ length: buffers }, (_, i) => i);
    this.#lists = new PageLists(ram, options.pageLists ?? 0);
    this.#findZeroPages = options.zeroPages ?? true;
    this.#urgent =
      options.preempt === true ? { named: undefined, unfinished: undefined } : this.#main;
    this.#givesRuns = options.runs ?? false;
    this.#owed = new OwedPages(
      ram,
      ram.blocks.filter((block) => options.ignored?.has(block) !== true),
    );
  }

  /** Counts what was encoded since the sender was made. */
  get counters(): {
    readonly normalPages: number;
    readonly zeroPages: number;
    readonly bytes: number;
  } {
    return { normalPages: this.#normalPages, zeroPages: this.#zeroPages, bytes: this.#bytes };
  }

  /** Counts what XBZRLE did since the sender was made; undefined without it. */
  get xbzrle(): XbzrleStatistics | undefined {
    return this.#xbzrle.statistics;
  }

  /** Counts the target pages that are still to be sent. */
  owedPages(): number {
    return this.#owed.count;
  }

  /** Counts the bytes of the blocks that are sent. */
  get totalBytes(): number {
    return this.#owed.totalPages * TARGET_PAGE_BYTES;
  }

  get owedBytes(): number {
    return this.#owed.count * TARGET_PAGE_BYTES;
  }

  /** Tells that the sweep has passed the last owed page; the next one starts by itself. */
  get roundComplete(): boolean {
    return this.#roundComplete;
  }

  /** Tells that the next chunk goes on inside a host page: what is sent between must not part it. */
  get insideHostPage(): boolean {
    return this.#main.unfinished !== undefined;
  }

  /** Tells that the destination waits for pages of the {@link next} chunk, which holds them first. */
  get hasRequests(): boolean {
    return (
      this.#mainIsAwaited || (this.#urgent === this.#main && this.#requests.first !== undefined)
    );
  }

  /** Owes every page and begins the first round. */
  oweAll(): void {
    this.#xbzrle.stop();
    this.#owed.setAll();
    this.startRound();
  }

  /**
   * Owes what the dirty log holds. A page's mark stays there until the page is sent.
   * @returns the pages that were not owed before
   * @see QEMU include/system/ram_addr.h: cpu_physical_memory_sync_dirty_bitmap
   */
  syncDirty(): number {
    this.#xbzrle.grow();
    return this.#owed.addDirty();
  }

  /** Begins a sweep at the first page of the first block. */
  startRound(): void {
    this.#owed.restart();
    this.#roundComplete = this.#owed.count === 0;
  }

  /**
   * Begins anew on another connection: the next record names its block, requests and a host page that
   * is on its way are forgotten. Call it when no chunk is out, then {@link oweMissing} for each block.
   */
  reconnect(): void {
    for (const channel of [this.#main, this.#urgent]) {
      channel.named = undefined;
      channel.unfinished = undefined;
    }
    this.#mainIsAwaited = false;
    this.#requests.clear();
    this.startRound();
  }

  /**
   * Owes of a block what the destination lacks, and nothing else; a host page that it has in part is
   * owed whole.
   * @param received one bit a target page, bit 0 of byte 0 first; what lies behind the block is ignored
   * @throws PageEngineError RANGE when the bitmap is too short
   * @see QEMU migration/ram.c: ram_dirty_bitmap_reload
   */
  oweMissing(block: RamBlock, received: Uint8Array): void {
    this.#owed.setMissing(block, received);
    this.startRound();
  }

  /**
   * Forgets each host page from now on once it was encoded in postcopy, and those that were before: they
   * read as missing, and cannot be sent again.
   * @see QEMU migration/ram.c: ram_release_page
   */
  releaseSent(): void {
    this.#releases = true;
    releaseSent(this.#ram);
  }

  /** Sends whole host pages from now on, requested ones first. */
  enterPostcopy(): void {
    this.#owed.widen();
    this.#xbzrle.stop();
    this.#postcopy = true;
    this.startRound();
  }

  /**
   * Has the guest, which stands still, wait for each page until it was sent: it runs on, and what is
   * sent is what it is now. Its vCPUs ask for their pages as for missing ones. Call
   * `setAllReceived(true)` at the end, however it ends.
   */
  enterSnapshot(): void {
    for (const { bank, plan } of this.#owed.segments) {
      bank.engine.clearRange(plan.receivedPtr, 0, plan.pages);
    }
    this.#isSnapshot = true;
    this.enterPostcopy();
  }

  /**
   * Widens what is owed to whole host pages and lists it, for the destination to forget.
   * @see QEMU migration/ram.c: postcopy_each_ram_send_discard, postcopy_chunk_hostpages_pass
   */
  discards(): Iterable<RamDiscard> {
    this.#owed.widen();
    return listDiscards(this.#ram);
  }

  /**
   * Queues a request of the destination; pages that are no longer owed are passed over.
   * @throws PageEngineError REQUEST_OUT_OF_RANGE, REQUEST_UNALIGNED
   */
  request(block: RamBlock, startBytes: number, lengthBytes: number): void {
    this.#requests.push(block, startBytes, lengthBytes);
  }

  /** Tells that {@link next} has something to encode: not all that is owed is on its way as an answer. */
  get hasNext(): boolean {
    return this.#owed.count > this.#claimedPages;
  }

  /** Owed pages that are not the background's: the rest of a host page that answers a request. */
  get #claimedPages(): number {
    const { unfinished } = this.#urgent;
    return unfinished === undefined || this.#urgent === this.#main
      ? 0
      : unfinished.end - unfinished.page;
  }

  /**
   * Encodes the next owed pages into a free buffer and owes them no more.
   * @param maxBytes limits the chunk; at least one record is encoded
   * @returns undefined when nothing is owed, also for the reason that XBZRLE found the rest unchanged,
   * or when every buffer or list is out
   * @throws PageEngineError BAD_OPTION
   */
  next(maxBytes: number = this.#ram.plan.options.ioBufferBytes): RamChunk | undefined {
    const chunk = this.hasNext ? this.#open(this.#main, maxBytes) : undefined;
    if (chunk === undefined) return undefined;
    do {
      const isFull = this.#postcopy && (!this.#endHostPage(chunk) || this.#encodeRequests(chunk));
      if (!isFull) this.#encodeBackground(chunk);
      // All that this sweep met may be unchanged.
    } while (chunk.bank === undefined && this.hasNext);
    return this.#close(chunk);
  }

  /**
   * Encodes host pages that were requested, for the channel of requests: the main one may be inside
   * another host page meanwhile. The one that it is inside of is left to it.
   * @returns undefined when no request is left, or when every buffer is out
   * @throws PageEngineError BAD_OPTION
   */
  nextRequested(maxBytes: number = this.#ram.plan.options.ioBufferBytes): RamChunk | undefined {
    if (this.#urgent === this.#main || !this.#postcopy) return undefined;
    const chunk = this.#open(this.#urgent, maxBytes);
    if (chunk === undefined) return undefined;
    if (this.#endHostPage(chunk)) this.#encodeRequests(chunk);
    return this.#close(chunk);
  }

  #open(channel: Channel, maxBytes: number): OpenChunk | undefined {
    if (!(maxBytes > 0)) throw new PageEngineError('BAD_OPTION', `maxBytes is ${maxBytes}`);
    if (this.#lists.areOut) return undefined;
    const buffer = this.#freeBuffers.pop();
    if (buffer === undefined) return undefined;
    const { ioBufferBytes } = this.#ram.plan.options;
    return {
      channel,
      buffer,
      limitBytes: Math.min(
        Math.max(maxBytes, MAX_RECORD_BYTES),
        this.#givesRuns ? Number.POSITIVE_INFINITY : ioBufferBytes,
      ),
      bank: undefined,
      bytes: 0,
      normalPages: 0,
      zeroPages: 0,
      xbzrlePages: 0,
      requested: channel !== this.#main || this.#mainIsAwaited,
      runs: [],
      passed: [],
      listRoom: Math.floor(maxBytes / TARGET_PAGE_BYTES),
      list: undefined,
    };
  }

  /** Ends the host page of which a part went over the chunk's channel; returns whether it went in. */
  #endHostPage(chunk: OpenChunk): boolean {
    const { unfinished } = chunk.channel;
    return unfinished === undefined || this.#encode(chunk, unfinished);
  }

  /**
   * Serves the requests, as far as the chunk goes, if it is of their channel.
   * @returns whether the chunk is to go out as it is
   */
  #encodeRequests(chunk: OpenChunk): boolean {
    if (chunk.channel !== this.#urgent) return false;
    for (let request = this.#requests.first; request; request = this.#requests.first) {
      const run = this.#owed.find(request.block, request.from, request.to);
      if (run === undefined) {
        this.#requests.shift();
        continue;
      }
      const { segment } = run;
      const { unfinished } = this.#main;
      if (unfinished?.segment === segment && unfinished.page === run.page) {
        this.#mainIsAwaited = true;
        request.from = segment.plan.firstPage + unfinished.end;
        continue;
      }
      if (chunk.bank !== undefined && chunk.bank !== segment.bank) return true;
      const { page } = run;
      const done = this.#encode(chunk, run);
      if (run.page === page) return true; // there is no room
      chunk.requested = true;
      // The background goes on from here: the guest is likely to touch what comes next.
      this.#owed.moveTo(run);
      request.from = segment.plan.firstPage + run.page;
      if (!done) return true;
    }
    return chunk.requested;
  }

  #encodeBackground(chunk: OpenChunk): void {
    if (!this.#owed.moveToNext()) {
      this.startRound();
      this.#owed.moveToNext();
    }
    this.#roundComplete = false;
    for (let rest = this.#owed.rest; rest !== undefined; rest = this.#owed.rest) {
      if (chunk.bank !== undefined && chunk.bank !== rest.segment.bank) return;
      const run = this.#unclaimed(rest);
      const done = this.#encode(chunk, run);
      this.#owed.moveTo(run);
      if (!done) return;
    }
  }

  /** Cuts from a run of the background what is on its way as an answer, and what lies behind it. */
  #unclaimed(run: Run): Run {
    const { unfinished } = this.#urgent;
    if (
      unfinished === undefined ||
      unfinished.segment !== run.segment ||
      run.page >= unfinished.end
    )
      return run;
    return run.page < unfinished.page
      ? { ...run, end: unfinished.page }
      : { ...run, page: unfinished.end };
  }

  /** Encodes a run as far as the chunk has room; returns whether all of it went in. */
  #encode(chunk: OpenChunk, run: Run): boolean {
    const { bank, block, perHost } = run.segment;
    if (chunk.list !== undefined) return false; // a list names pages of one block, next to each other
    this.#lists.offer(bank, chunk.listRoom);
    const from = run.page;
    const bytes = this.#givesRuns
      ? collectRuns(this.#ram.plan, chunk, run, this.#findZeroPages)
      : this.#encodeRecords(chunk, run);
    run.page = bank.getU32(SENDER_PTR + TX_NEXT_PAGE);
    const normalPages = bank.getU32(SENDER_PTR + TX_NORMAL);
    const zeroPages = bank.getU32(SENDER_PTR + TX_ZERO);
    const xbzrlePages = bank.getU32(SENDER_PTR + TX_XBZRLE);
    const unchangedPages = bank.getU32(SENDER_PTR + TX_UNCHANGED);
    chunk.list = this.#lists.take(bank, block);
    this.#owed.sent(
      normalPages + zeroPages + xbzrlePages + unchangedPages + (chunk.list?.pages ?? 0),
    );
    if (chunk.list !== undefined) chunk.bank = bank;
    this.#xbzrle.count(bank);
    if (this.#isSnapshot) chunk.passed.push({ segment: run.segment, from, to: run.page });
    if (bytes > 0 || chunk.runs.length > 0) {
      chunk.channel.named = block;
      chunk.bank = bank;
      chunk.bytes += bytes;
      chunk.normalPages += normalPages;
      chunk.zeroPages += zeroPages;
      chunk.xbzrlePages += xbzrlePages;
    }
    const isInside = this.#postcopy && run.page < run.end && run.page % perHost !== 0;
    const end = run.page - (run.page % perHost) + perHost;
    if (this.#releases) {
      const { firstPage } = run.segment.plan;
      releasePages(block, firstPage + from - (from % perHost), firstPage + run.page);
    }
    chunk.channel.unfinished = isInside ? { segment: run.segment, page: run.page, end } : undefined;
    if (chunk.channel === this.#main && !isInside) this.#mainIsAwaited = false;
    return run.page >= run.end;
  }

  /** Writes records behind those of the chunk; returns their bytes. */
  #encodeRecords(chunk: OpenChunk, { segment, page, end }: Run): number {
    const { bank, block } = segment;
    const ptr = bank.plan.sendPtrs[chunk.buffer]!;
    return bank.engine.encode(
      SENDER_PTR,
      this.#ram.plan.tablePtr + block.index * ENTRY_BYTES,
      chunk.channel.named === block ? 1 : 0,
      page,
      end,
      ptr + chunk.bytes,
      ptr + chunk.limitBytes,
      this.#findZeroPages ? 1 : 0,
    );
  }

  #close(chunk: OpenChunk): RamChunk | undefined {
    const { buffer, bank, bytes, runs, normalPages, zeroPages, xbzrlePages, requested } = chunk;
    this.#roundComplete = !this.#owed.moveToNext();
    if (this.#roundComplete && !this.#postcopy) this.#xbzrle.start();
    if (bank === undefined) {
      this.#freeBuffers.push(buffer);
      return undefined;
    }
    this.#normalPages += normalPages;
    this.#zeroPages += zeroPages;
    this.#bytes += bytes;
    const ptr = bank.plan.sendPtrs[buffer]!;
    let isOut = true;
    return {
      bytes: bank.bytes.subarray(ptr, this.#givesRuns ? ptr : ptr + bytes),
      list: chunk.list,
      runs,
      lengthBytes: bytes,
      normalPages,
      zeroPages,
      xbzrlePages,
      requested,
      endOfRound: this.#roundComplete,
      release: () => {
        if (isOut) this.#letGo(chunk);
        isOut = false;
      },
    };
  }

  /** Gives a list back, once. */
  releaseList(list: PageList): void {
    this.#lists.release(list);
  }

  #letGo({ buffer, passed }: OpenChunk): void {
    this.#freeBuffers.push(buffer);
    for (const { segment, from, to } of passed) {
      segment.bank.engine.setRange(segment.plan.receivedPtr, from, to);
    }
    if (passed.length > 0) this.#ram.faults.wakeAll();
  }
}
