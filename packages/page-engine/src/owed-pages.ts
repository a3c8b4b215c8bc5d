import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';
import type { RamBlock } from './ram-block.ts';
import type { Run, SenderSegment } from './ram-chunk.ts';

/** Knows what a sender still has to send, one bit a target page, and where its sweep over that is. */
export class OwedPages {
  readonly segments: readonly SenderSegment[];
  #count = 0;
  #segment = 0;
  #page = 0;

  /** Owes nothing yet of these blocks. */
  constructor(ram: GuestRam, blocks: readonly RamBlock[]) {
    this.segments = blocks.flatMap((block) =>
      block.segments.map((plan) => ({
        block,
        plan,
        bank: ram.banks[plan.bank]!,
        perHost: block.hostPageBytes / TARGET_PAGE_BYTES,
      })),
    );
    for (const { bank, plan } of this.segments) {
      bank.engine.clearRange(plan.owedPtr, 0, plan.pages);
    }
  }

  /** Counts the pages that are owed. */
  get count(): number {
    return this.#count;
  }

  /** Counts the pages of the blocks. */
  get totalPages(): number {
    return this.segments.reduce((total, { plan }) => total + plan.pages, 0);
  }

  /** Owes every page. */
  setAll(): void {
    for (const { bank, plan } of this.segments) {
      bank.engine.setRange(plan.owedPtr, 0, plan.pages);
    }
    this.#count = this.totalPages;
  }

  /** Owes what the dirty log holds; returns the pages that were not owed before. */
  addDirty(): number {
    let added = 0;
    for (const { bank, plan } of this.segments) {
      added += bank.engine.addNew(plan.owedPtr, plan.dirtyPtr, plan.pages) >>> 0;
    }
    this.#count += added;
    return added;
  }

  /** Owes whole host pages where a part is owed. */
  widen(): void {
    this.#count = 0;
    for (const { bank, plan, perHost } of this.segments) {
      bank.engine.widen(plan.owedPtr, plan.pages, perHost);
      this.#count += bank.engine.countSet(plan.owedPtr, 0, plan.pages);
    }
  }

  /**
   * Owes of a block what was not received, widened to whole host pages, and nothing else.
   * @throws PageEngineError RANGE when the bitmap is too short
   */
  setMissing(block: RamBlock, received: Uint8Array): void {
    if (received.length * 8 < block.pageCount) {
      throw new PageEngineError(
        'RANGE',
        `a bitmap of ${received.length} bytes for the ${block.pageCount} pages of RAM block ${block.name}`,
        { block: block.name, lengthBytes: received.length },
      );
    }
    for (const { block: of, bank, plan, perHost } of this.segments) {
      if (of !== block) continue;
      const { owedPtr, firstPage, pages } = plan;
      this.#count -= bank.engine.countSet(owedPtr, 0, pages);
      // Segments part at whole words of the bitmap.
      const from = firstPage / 8;
      const owed = bank.bytes.subarray(owedPtr, owedPtr + Math.ceil(pages / 8));
      for (let i = 0; i < owed.length; i++) owed[i] = ~received[from + i]!;
      bank.engine.clearRange(owedPtr, pages, owed.length * 8);
      bank.engine.widen(owedPtr, pages, perHost);
      this.#count += bank.engine.countSet(owedPtr, 0, pages);
    }
  }

  /** Counts pages out whose bits the engine has cleared. */
  sent(pages: number): void {
    this.#count -= pages;
  }

  /** Takes the sweep to the first page of the first block. */
  restart(): void {
    this.#segment = 0;
    this.#page = 0;
  }

  /** Takes the sweep to where a run is now. */
  moveTo({ segment, page }: Run): void {
    this.#segment = this.segments.indexOf(segment);
    this.#page = page;
  }

  /** Takes the sweep to the first owed page at or behind it; returns whether there is one. */
  moveToNext(): boolean {
    for (; this.#segment < this.segments.length; this.#segment++) {
      const { bank, plan } = this.segments[this.#segment]!;
      const page = bank.engine.nextSet(plan.owedPtr, this.#page, plan.pages);
      this.#page = page;
      if (page < plan.pages) return true;
      this.#page = 0;
    }
    return false;
  }

  /** What lies from the sweep on in its segment; undefined behind the last one. */
  get rest(): Run | undefined {
    for (; this.#segment < this.segments.length; this.#segment++) {
      const segment = this.segments[this.#segment]!;
      const { pages } = segment.plan;
      if (this.#page < pages) return { segment, page: this.#page, end: pages };
      this.#page = 0;
    }
    return undefined;
  }

  /** Finds the first owed page of a block's range and what follows of its host page. */
  find(block: RamBlock, from: number, to: number): Run | undefined {
    for (const segment of this.segments) {
      if (segment.block !== block) continue;
      const { owedPtr, firstPage, pages } = segment.plan;
      const first = Math.max(from - firstPage, 0);
      const end = Math.min(to - firstPage, pages);
      if (first >= end) continue;
      const page = segment.bank.engine.nextSet(owedPtr, first, end);
      if (page < end)
        return { segment, page, end: page - (page % segment.perHost) + segment.perHost };
    }
    return undefined;
  }
}
