// Has the system give memory to those pages of [from, to) of a segment that were not written.
//
// An atomic exchange of zero for zero: whoever writes there meanwhile loses nothing. Engines read before
// other atomic operations, and then a page that nobody has used faults twice.

import { nextClear } from './bitmap';
import { TARGET_PAGE_SHIFT } from './layout';

export function populate(ram: usize, written: usize, from: u32, to: u32): void {
  for (let page = nextClear(written, from, to); page < to; page = nextClear(written, page + 1, to)) {
    atomic.cmpxchg<u32>(ram + (<usize>page << TARGET_PAGE_SHIFT), 0, 0);
  }
}
