// How a vCPU touches guest memory. Imported by any AssemblyScript module that works on a bank's
// memory; that module provides `env.now`, a clock in milliseconds, which is called on faults only.
//
// Around every access, `page` being the target page within the block's segment in this bank:
//
//   ensurePresent(slotPtr, receivedPtr, block, page);   // before the access
//   store<u64>(ptr, value);
//   markDirty(dirtyPtr, page);                          // after a write

import {
  DOORBELL_PTR, HISTOGRAM_BUCKETS, SLOT_BLOCK, SLOT_COUNT, SLOT_HISTOGRAM, SLOT_PAGE, SLOT_STATE,
  SLOT_TOTAL_MS, WAITING_PTR,
} from './layout';

// @ts-ignore: decorator
@external('env', 'now')
declare function now(): f64;

// Looks again after this long even if no wake came.
const RECHECK_NS: i64 = 100_000_000;

// @ts-ignore: decorator
@inline
export function isPresent(receivedPtr: usize, page: u32): bool {
  return ((atomic.load<u64>(receivedPtr + ((<usize>page >> 6) << 3)) >> (page & 63)) & 1) != 0;
}

// Returns once the page is present; sleeps until then. Needs shared memory for a page that is not.
// @ts-ignore: decorator
@inline
export function ensurePresent(slotPtr: usize, receivedPtr: usize, block: u32, page: u32): void {
  if (!isPresent(receivedPtr, page)) waitForPage(slotPtr, receivedPtr, block, page);
}

// Records a write in the dirty log. To be called after the write, never before: the migration
// thread clears the bit first and reads the page then, so a bit set too early could be cleared
// before the write is there to be read. The bit is set even if it is set already: the exchange is
// also the fence that this order needs. After a mere load the write could still wait in the store
// buffer when the migration thread, having cleared the bit, reads the page.
// @ts-ignore: decorator
@inline
export function markDirty(dirtyPtr: usize, page: u32): void {
  atomic.or<u64>(dirtyPtr + ((<usize>page >> 6) << 3), <u64>1 << (page & 63));
}

function waitForPage(slotPtr: usize, receivedPtr: usize, block: u32, page: u32): void {
  const startedMs = now();
  atomic.store<u32>(slotPtr, block, SLOT_BLOCK);
  atomic.store<u32>(slotPtr, page, SLOT_PAGE);
  atomic.add<u32>(WAITING_PTR, 1);
  while (true) {
    atomic.store<u32>(slotPtr, 1, SLOT_STATE);
    // After the state, so that whoever sets the bit from here on sees a waiting vCPU.
    if (isPresent(receivedPtr, page)) break;
    atomic.add<u32>(DOORBELL_PTR, 1);
    atomic.notify(DOORBELL_PTR, -1);
    atomic.wait<i32>(slotPtr + SLOT_STATE, 1, RECHECK_NS);
  }
  atomic.store<u32>(slotPtr, 0, SLOT_STATE);
  atomic.sub<u32>(WAITING_PTR, 1);
  record(slotPtr, now() - startedMs);
}

// @ts-ignore: decorator
@inline
function bucketOf(ms: f64): u32 {
  const us = ms * 1000;
  if (!(us >= 1)) return 0;
  // Exponent and the two highest bits of the fraction: four buckets an octave.
  const bits = reinterpret<u64>(us);
  const bucket = <u32>(bits >> 50) - (1023 << 2);
  return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

function record(slotPtr: usize, ms: f64): void {
  const at = slotPtr + SLOT_HISTOGRAM + (<usize>bucketOf(ms) << 2);
  store<u32>(at, load<u32>(at) + 1);
  store<f64>(slotPtr, load<f64>(slotPtr, SLOT_TOTAL_MS) + ms, SLOT_TOTAL_MS);
  atomic.add<u32>(slotPtr, 1, SLOT_COUNT);
}
