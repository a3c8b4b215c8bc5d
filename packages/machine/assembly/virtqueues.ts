// The guest's drivers: what the vCPU does to the virtqueues that the devices' state points to.

import { ensurePresent, markDirty } from '../../page-engine/assembly/guest-access';
import {
  AVAILABLE_PAGE,
  CHECKS,
  FOUND_OTHER,
  KICKS,
  QUEUE_PAGES,
  RING_DIRTY,
  RING_INDEX,
  RING_PAGE,
  RING_QUEUES,
  RING_RAM,
  RING_RECEIVED,
  USED_PAGE,
} from './layout';
import { recordViolation } from './workload';

const PAGE_BYTES: u32 = 4096;
const RING_BLOCK: u32 = 0;

// Checks the index of each ring against the rounds so far and, with `write`, makes one more:
// a request made available, and used at once.
export function kick(control: usize, slotPtr: usize, write: u32): void {
  if (load<u32>(control, RING_RAM) == 0) return;
  const kicks = load<u32>(control, KICKS);
  for (let queue: u32 = 0; queue < RING_QUEUES; queue++) {
    kickRing(control, slotPtr, queue * QUEUE_PAGES + AVAILABLE_PAGE, kicks, write);
    kickRing(control, slotPtr, queue * QUEUE_PAGES + USED_PAGE, kicks, write);
  }
  if (write) atomic.store<u32>(control + KICKS, kicks + 1);
}

function kickRing(control: usize, slotPtr: usize, page: u32, kicks: u32, write: u32): void {
  const segmentPage = load<u32>(control, RING_PAGE) + page;
  ensurePresent(slotPtr, load<u32>(control, RING_RECEIVED), RING_BLOCK, segmentPage);
  const at = <usize>(load<u32>(control, RING_RAM) + page * PAGE_BYTES);
  // The ring lies in block 0's first segment, where pages count as in the block.
  if (load<u16>(at, RING_INDEX) != <u16>kicks) {
    recordViolation(control, RING_BLOCK, segmentPage, kicks, FOUND_OTHER);
  }
  atomic.store<u64>(control + CHECKS, load<u64>(control, CHECKS) + 1);
  if (write) {
    store<u16>(at, <u16>(kicks + 1), RING_INDEX);
    markDirty(load<u32>(control, RING_DIRTY), segmentPage);
  }
}
