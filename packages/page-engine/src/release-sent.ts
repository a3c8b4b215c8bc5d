import type { GuestRam } from './guest-ram.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';
import type { RamBlock } from './ram-block.ts';
import { listRuns } from './runs.ts';

/** Forgets the whole host pages in a range of target pages of a block, none of them owed. */
export function releasePages(block: RamBlock, from: number, to: number): void {
  const start = Math.ceil((from * TARGET_PAGE_BYTES) / block.hostPageBytes) * block.hostPageBytes;
  const end = Math.floor((to * TARGET_PAGE_BYTES) / block.hostPageBytes) * block.hostPageBytes;
  if (start < end) block.discardRange(start, end - start);
}

/**
 * Forgets every host page of which nothing is owed.
 * @see QEMU migration/ram.c: ram_postcopy_migrated_memory_release
 */
export function releaseSent(ram: GuestRam): void {
  for (const block of ram.blocks) {
    for (const { bank, owedPtr, firstPage, pages } of block.segments) {
      const { engine, u32 } = ram.banks[bank]!;
      let sent = 0;
      for (const [start, end] of listRuns(engine, u32, ram.plan.runsPtr, owedPtr, 0, pages)) {
        releasePages(block, firstPage + sent, firstPage + start);
        sent = end;
      }
      releasePages(block, firstPage + sent, firstPage + pages);
    }
  }
}
