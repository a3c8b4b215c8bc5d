// The pages that the destination is known to hold, as far as they fit: one slot for each page whose
// number ends alike. Slots of 4096 bytes, behind them a tag each: u32 pointer of the page, 0 none, and
// u32 age, the dirty-log sync in which the page was last sent.

import { CACHE_LIFETIME, CACHE_TAG_BYTES, TARGET_PAGE_SHIFT } from './layout';

// @ts-ignore: decorator
@inline
export function slotOf(cache: usize, slots: u32, page: usize): usize {
  return cache + (((page >> TARGET_PAGE_SHIFT) & (slots - 1)) << TARGET_PAGE_SHIFT);
}

// @ts-ignore: decorator
@inline
function tagOf(cache: usize, slots: u32, slot: usize): usize {
  const index = (slot - cache) >> TARGET_PAGE_SHIFT;
  return cache + (<usize>slots << TARGET_PAGE_SHIFT) + index * CACHE_TAG_BYTES;
}

// Whether the page's slot is its own; it has been used then.
export function isCached(cache: usize, slots: u32, slot: usize, page: usize, age: u32): bool {
  const tag = tagOf(cache, slots, slot);
  if (<usize>load<u32>(tag) != page) return false;
  store<u32>(tag, age, 4);
  return true;
}

// Gives the slot to the page, unless another was sent lately. The caller fills it.
export function takeSlot(cache: usize, slots: u32, slot: usize, page: usize, age: u32): bool {
  const tag = tagOf(cache, slots, slot);
  const holder: usize = load<u32>(tag);
  if (holder != 0 && holder != page && load<u32>(tag, 4) + CACHE_LIFETIME > age) return false;
  store<u32>(tag, <u32>page);
  store<u32>(tag, age, 4);
  return true;
}

// Empties every slot.
export function clearCache(cache: usize, slots: u32): void {
  memory.fill(cache + (<usize>slots << TARGET_PAGE_SHIFT), 0, <usize>slots * CACHE_TAG_BYTES);
}
