// Workloads: which of its pages a vCPU writes next.

import {
  CHANGED_LINES, CHECKS, CURSOR, FOUND_AS_EXPECTED, HOT_OWNED, HOT_WRITES, OWNED, PAGES_WRITTEN, POSITION,RANGE_BANK, RANGE_BLOCK, RANGE_BLOCK_PAGE, RANGE_BYTES, RANGE_DIRTY, RANGE_GENERATIONS,
  RANGE_HOT, RANGE_KEY, RANGE_PAGES, RANGE_RAM, RANGE_RECEIVED, RANGE_SEGMENT_PAGE, 
  RANGES, RECORD_BLOCK, RECORD_BYTES, RECORD_EXPECTED, RECORD_FOUND, RECORD_LIMIT, RECORD_PAGE,RECORDED,
  RECORDS, 
  RNG, SEED, VIOLATIONS, WORKLOAD, WORKLOAD_HOTSET, WORKLOAD_SEQUENTIAL, WRITES,
} from './layout';
import { mix } from './pattern';

const PAGE_SHIFT: u32 = 12;

// @ts-ignore: decorator
@inline
function count(counterPtr: usize): void {
  atomic.store<u64>(counterPtr, load<u64>(counterPtr) + 1);
}

// A number below `limit`, of the high half of a splitmix64 step.
// @ts-ignore: decorator
@inline
function below(control: usize, limit: u32): u32 {
  const state = load<u64>(control, RNG) + 0x9e3779b97f4a7c15;
  store<u64>(control, state, RNG);
  return <u32>(((mix(state) >> 32) * limit) >> 32);
}

// Checks one page of a range and writes it unless told not to.
function touch(control: usize, slotPtr: usize, range: usize, index: u32, write: u32): void {
  const generationPtr = load<u32>(range, RANGE_GENERATIONS) + (index << 2);
  const generation = load<u32>(generationPtr);
  const block = load<u32>(range, RANGE_BLOCK);
  const blockPage = load<u32>(range, RANGE_BLOCK_PAGE) + index;
  const place = (<u64>load<u32>(range, RANGE_KEY) << 32) | blockPage;
  const found = call_indirect<u32>(
    load<u32>(range, RANGE_BANK),
    slotPtr,
    <usize>load<u32>(range, RANGE_RECEIVED),
    <usize>load<u32>(range, RANGE_DIRTY),
    block,
    load<u32>(range, RANGE_SEGMENT_PAGE) + index,
    <usize>(load<u32>(range, RANGE_RAM) + (index << PAGE_SHIFT)),
    mix(load<u64>(control, SEED) ^ mix(place)),
    generation,
    load<u32>(control, CHANGED_LINES),
    write,
  );
  if (found != FOUND_AS_EXPECTED) recordViolation(control, block, blockPage, generation, found);
  count(control + CHECKS);
  if (write) {
    store<u32>(generationPtr, generation + 1);
    if (generation == 0) {
      atomic.store<u32>(control + PAGES_WRITTEN, load<u32>(control, PAGES_WRITTEN) + 1);
    }
  }
}

export function recordViolation(
  control: usize, block: u32, page: u32, expected: u32, found: u32,
): void {
  count(control + VIOLATIONS);
  const recorded = load<u32>(control, RECORDED);
  if (recorded == RECORD_LIMIT) return;
  const at = control + RECORDS + <usize>recorded * RECORD_BYTES;
  store<u32>(at, block, RECORD_BLOCK);
  store<u32>(at, page, RECORD_PAGE);
  store<u32>(at, expected, RECORD_EXPECTED);
  store<u32>(at, found, RECORD_FOUND);
  atomic.store<u32>(control + RECORDED, recorded + 1);
}

// Touches the page at `index` of all that are counted at `countAt` in the ranges.
function touchAt(control: usize, slotPtr: usize, index: u32, countAt: usize, write: u32): void {
  let range = control + RANGES;
  while (true) {
    const pages = load<u32>(range + countAt);
    if (index < pages) break;
    index -= pages;
    range += RANGE_BYTES;
  }
  touch(control, slotPtr, range, index, write);
}

// Writes `pages` pages as the workload has it; each is checked first. Returns how many it wrote.
export function run(control: usize, slotPtr: usize, pages: u32): u32 {
  const owned = load<u32>(control, OWNED);
  const workload = load<u32>(control, WORKLOAD);
  const hotOwned = load<u32>(control, HOT_OWNED);
  if (owned == 0 || workload == 0) return 0;
  for (let i: u32 = 0; i < pages; i++) {
    if (workload == WORKLOAD_SEQUENTIAL) {
      const cursor = load<u32>(control, CURSOR);
      store<u32>(control, cursor + 1 < owned ? cursor + 1 : 0, CURSOR);
      touchAt(control, slotPtr, cursor < owned ? cursor : 0, RANGE_PAGES, 1);
    } else if (
      workload == WORKLOAD_HOTSET && hotOwned != 0 &&
      below(control, 0xffffffff) < load<u32>(control, HOT_WRITES)
    ) {
      touchAt(control, slotPtr, below(control, hotOwned), RANGE_HOT, 1);
    } else {
      touchAt(control, slotPtr, below(control, owned), RANGE_PAGES, 1);
    }
    count(control + WRITES);
  }
  return pages;
}

// Writes `share` of the pages once, spread evenly, continuing at the position; looks at `pages`.
// Returns how many it looked at: 0 at the end.
export function fill(control: usize, slotPtr: usize, share: f64, pages: u32): u32 {
  const start = load<u32>(control, POSITION);
  const end = min(load<u32>(control, OWNED), start + pages);
  for (let index = start; index < end; index++) {
    if (Math.floor(<f64>(index + 1) * share) > Math.floor(<f64>index * share)) {
      touchAt(control, slotPtr, index, RANGE_PAGES, 1);
    }
  }
  store<u32>(control, end, POSITION);
  return end - start;
}

// Checks pages without writing them, continuing at the position. Returns how many: 0 at the end.
export function verify(control: usize, slotPtr: usize, pages: u32): u32 {
  const start = load<u32>(control, POSITION);
  const end = min(load<u32>(control, OWNED), start + pages);
  for (let index = start; index < end; index++) {
    touchAt(control, slotPtr, index, RANGE_PAGES, 0);
  }
  store<u32>(control, end, POSITION);
  return end - start;
}
