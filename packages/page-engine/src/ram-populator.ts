import type { Bank } from './bank.ts';
import type { GuestRam } from './guest-ram.ts';
import { ARRIVAL_PTR, type SegmentPlan, SLOTS_PTR, TARGET_PAGE_SHIFT } from './layout.ts';

/** Pages of the largest bank: an arrival is a bank's index times this, and a page of the bank. */
const BANK_PAGES = 2 ** 20;
/** How far behind the last arrival to begin: the receiver is about to touch what comes before. */
const LEAD_PAGES = 512;
/** How far to go: what lies there is touched in vain when the stream goes on elsewhere. */
const AHEAD_PAGES = 4096;
/** How much to do between two looks at where the receiver is. */
const STEP_PAGES = 64;

/** Tells {@link populateAhead}, in its thread, where content has come. */
export function tellArrival(ram: GuestRam, bank: Bank, ptr: number): void {
  const words = arrivals(ram);
  Atomics.store(words, ARRIVAL_PTR >>> 2, bank.index * BANK_PAGES + (ptr >>> TARGET_PAGE_SHIFT));
  Atomics.notify(words, ARRIVAL_PTR >>> 2);
}

/**
 * Has the system give memory to the pages that a receiver is about to write, ahead of it: the first
 * touch of a page takes as long as all the rest that is done with it.
 *
 * Never returns: it is the whole program of a thread, which the application ends. The thread only
 * touches pages that were never written, and changes no byte of them.
 */
export function populateAhead(ram: GuestRam): never {
  const words = arrivals(ram);
  let next = 0;
  for (;;) {
    const arrival = Atomics.load(words, ARRIVAL_PTR >>> 2);
    if (next < arrival + LEAD_PAGES || next > arrival + AHEAD_PAGES) next = arrival + LEAD_PAGES;
    const bank = ram.banks[Math.floor(arrival / BANK_PAGES)]!;
    const page = next % BANK_PAGES;
    const segment = bank.plan.segments.find((each) => holds(each, page));
    if (segment === undefined || next === arrival + AHEAD_PAGES) {
      Atomics.wait(words, ARRIVAL_PTR >>> 2, arrival);
      continue;
    }
    const { ptr, writtenPtr, pages } = segment;
    const from = page - (ptr >>> TARGET_PAGE_SHIFT);
    const to = Math.min(from + STEP_PAGES, pages);
    bank.engine.populate(ptr, writtenPtr, from, to);
    next += to - from;
  }
}

function arrivals(ram: GuestRam): Int32Array {
  return new Int32Array(ram.banks[0]!.memory.buffer, 0, SLOTS_PTR >>> 2);
}

function holds({ ptr, pages }: SegmentPlan, page: number): boolean {
  const first = ptr >>> TARGET_PAGE_SHIFT;
  return page >= first && page < first + pages;
}
