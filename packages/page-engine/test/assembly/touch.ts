// The least that a vCPU does: reads and writes of guest memory as guest-access.ts asks for.
import { ensurePresent, markDirty } from '../../assembly/guest-access';

export function read(slot: usize, received: usize, block: u32, page: u32, ptr: usize): u64 {
  ensurePresent(slot, received, block, page);
  return load<u64>(ptr);
}

export function write(
  slot: usize, received: usize, dirty: usize, block: u32, page: u32, ptr: usize, value: u64,
): void {
  ensurePresent(slot, received, block, page);
  store<u64>(ptr, value);
  markDirty(dirty, page);
}

// Writes ever higher values to the pages in turn until the stop word is set. Returns the last.
export function writeOn(
  slot: usize, received: usize, dirty: usize, block: u32, pages: u32, ram: usize, stop: usize,
): u64 {
  let value: u64 = 0;
  while (atomic.load<u32>(stop) == 0) {
    const page = <u32>(value % pages);
    value++;
    write(slot, received, dirty, block, page, ram + ((<usize>page) << 12) + 4088, value);
  }
  return value;
}
