// The source's side where each page has its place in a file: what is owed as runs of pages, which are
// written from where they lie.

import { clearBit, isSet, nextSet } from './bitmap';
import {
  ENTRY_DIRTY, ENTRY_OWED, ENTRY_RAM, ENTRY_WRITTEN, MAX_ZERO_PAGES, RUN_BYTES, TARGET_PAGE_SHIFT,
  TX_CACHE_MISS, TX_LISTED, TX_NEXT_PAGE, TX_NORMAL, TX_OVERFLOW, TX_UNCHANGED, TX_XBZRLE,
  TX_XBZRLE_BYTES, TX_ZERO, ZERO_RUN,
} from './layout';
import { takeMark } from './sender';
import { isZeroPage } from './zero';

// Lists the owed pages of [from, to) of a segment at `out` as runs of pages that are alike, zero or not,
// at most `mostRuns` of them with `mostPages` that are not zero, and clears their owed bits and dirty
// marks. Returns how many runs there are; the state holds the rest.
//
// The guest may write a page before it is in the file: then its mark is there again.
export function collect(
  state: usize,
  entry: usize,
  from: u32,
  to: u32,
  out: usize,
  mostRuns: u32,
  mostPages: u32,
  findZeroPages: bool,
): u32 {
  const dirty: usize = load<u32>(entry, ENTRY_DIRTY);
  const owed: usize = load<u32>(entry, ENTRY_OWED);
  const ram: usize = load<u32>(entry, ENTRY_RAM);
  const written: usize = load<u32>(entry, ENTRY_WRITTEN);
  let runs: u32 = 0;
  let normal: u32 = 0;
  let zero: u32 = 0;
  let last: u32 = 0; // the end of the last run, with its kind
  let page = nextSet(owed, from, to);
  for (; page < to; page = nextSet(owed, page + 1, to)) {
    if (runs == mostRuns || normal == mostPages || zero == MAX_ZERO_PAGES) break;
    takeMark(dirty, written, page);
    clearBit(owed, page);
    const isZero = findZeroPages
      && (!isSet(written, page) || isZeroPage(ram + ((<usize>page) << TARGET_PAGE_SHIFT)));
    const kind = isZero ? ZERO_RUN : 0;
    if (isZero) zero++;
    else normal++;
    if (runs == 0 || last != (page | kind)) {
      store<u32>(out + <usize>runs * RUN_BYTES, page);
      runs++;
    }
    last = (page + 1) | kind;
    store<u32>(out + <usize>(runs - 1) * RUN_BYTES, last, 4);
  }
  store<u32>(state, page, TX_NEXT_PAGE);
  store<u32>(state, normal, TX_NORMAL);
  store<u32>(state, zero, TX_ZERO);
  // What an encoder has left here is not of this call.
  store<u32>(state, 0, TX_XBZRLE);
  store<u32>(state, 0, TX_UNCHANGED);
  store<u32>(state, 0, TX_XBZRLE_BYTES);
  store<u32>(state, 0, TX_CACHE_MISS);
  store<u32>(state, 0, TX_OVERFLOW);
  store<u32>(state, 0, TX_LISTED);
  return runs;
}
