// Access to one page, in the bank that holds it. The workload runs in bank 0's instance and calls
// this function of each bank's instance through a table, so that no JavaScript runs per page.

import { ensurePresent, markDirty } from '../../page-engine/assembly/guest-access';
import { FOUND_AS_EXPECTED, FOUND_OTHER, FOUND_ZERO, OLDEST_STALE } from './layout';
import { holds, holdsZero, writePattern } from './pattern';

// Checks that a page holds the pattern of its generation and, with `write`, writes that of the next
// one. Returns what was found.
export function access(
  slotPtr: usize,
  receivedPtr: usize,
  dirtyPtr: usize,
  block: u32,
  page: u32,
  ptr: usize,
  key: u64,
  generation: u32,
  lines: u32,
  write: u32,
): u32 {
  ensurePresent(slotPtr, receivedPtr, block, page);
  const found = holds(ptr, key, generation, lines)
    ? FOUND_AS_EXPECTED
    : judge(ptr, key, generation, lines);
  if (write) {
    writePattern(ptr, key, generation + 1, lines);
    markDirty(dirtyPtr, page);
  }
  return found;
}

function judge(ptr: usize, key: u64, generation: u32, lines: u32): u32 {
  for (let age: u32 = 1; age <= OLDEST_STALE && age <= generation; age++) {
    if (holds(ptr, key, generation - age, lines)) return age;
  }
  return holdsZero(ptr) ? FOUND_ZERO : FOUND_OTHER;
}
