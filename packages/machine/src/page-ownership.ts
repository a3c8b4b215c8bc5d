import type { GuestRam, RamBlock } from '@wherry/page-engine';
import { LOW_MEMORY_BYTES } from './devices/virtio-driver.ts';

const TARGET_PAGE_BYTES = 4096;

/** Pages of one RAM block that belong to a vCPU. */
export interface OwnedRange {
  readonly block: RamBlock;
  readonly firstPage: number;
  readonly pages: number;
  /** The first pages of the range, which `hotset` prefers. */
  readonly hotPages: number;
}

/** Whether the first block is large enough for firmware and virtqueues beside the workloads. */
export function hasLowMemory(ram: GuestRam): boolean {
  return (ram.blocks[0]?.lengthBytes ?? 0) >= 8 * LOW_MEMORY_BYTES;
}

/**
 * Gives vCPU `index` of `count` its share of every block: contiguous pages, none shared.
 *
 * @param hotShare share of the pages that are hot, 0 … 1
 */
export function shareOfPages(
  ram: GuestRam,
  index: number,
  count: number,
  hotShare: number,
): OwnedRange[] {
  const ranges: OwnedRange[] = [];
  for (const block of ram.blocks) {
    const low = block.index === 0 && hasLowMemory(ram) ? LOW_MEMORY_BYTES / TARGET_PAGE_BYTES : 0;
    const pages = block.pageCount - low;
    const firstPage = low + Math.floor((pages * index) / count);
    const end = low + Math.floor((pages * (index + 1)) / count);
    if (end === firstPage) continue;
    const hotPages = Math.ceil((end - firstPage) * hotShare);
    ranges.push({ block, firstPage, pages: end - firstPage, hotPages });
  }
  return ranges;
}
