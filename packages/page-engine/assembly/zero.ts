// Zero tests: sixteen vectors or-ed at a time, leaving at the first group that holds a bit. A page
// that is not zero usually says so in its first 256 bytes.

import { setBit } from './bitmap';
import { TARGET_PAGE_BYTES } from './layout';

// @ts-ignore: decorator
@inline
function or8(at: usize): v128 {
  const a = v128.or(v128.load(at), v128.load(at, 16));
  const b = v128.or(v128.load(at, 32), v128.load(at, 48));
  const c = v128.or(v128.load(at, 64), v128.load(at, 80));
  const d = v128.or(v128.load(at, 96), v128.load(at, 112));
  return v128.or(v128.or(a, b), v128.or(c, d));
}

// @ts-ignore: decorator
@inline
export function isZeroPage(page: usize): bool {
  const end = page + TARGET_PAGE_BYTES;
  for (let at = page; at < end; at += 256) {
    if (v128.any_true(v128.or(or8(at), or8(at + 128)))) return false;
  }
  return true;
}

// How far ahead of a scan a page is touched, so that its translation and first lines are on their way:
// what a processor fetches by itself ends at a page's end.
const AHEAD_BYTES: usize = TARGET_PAGE_BYTES;

// Whether a page is zero in a scan whose last page begins at `last`.
// @ts-ignore: decorator
@inline
function isNextZero(page: usize, last: usize): bool {
  load<u8>(min<usize>(page + AHEAD_BYTES, last));
  return isZeroPage(page);
}

// Counts the zero pages of `pages` target pages that begin at `ptr`.
export function countZeroPages(ptr: usize, pages: u32): u32 {
  let count: u32 = 0;
  const end = ptr + <usize>pages * TARGET_PAGE_BYTES;
  for (let page = ptr; page < end; page += TARGET_PAGE_BYTES) {
    count += u32(isNextZero(page, end - TARGET_PAGE_BYTES));
  }
  return count;
}

// Sets the bit of every zero page; the bitmap was clear before.
export function markZeroPages(ptr: usize, pages: u32, bitmap: usize): u32 {
  let count: u32 = 0;
  const last = ptr + (<usize>pages - 1) * TARGET_PAGE_BYTES;
  for (let page: u32 = 0; page < pages; page++) {
    if (isNextZero(ptr + <usize>page * TARGET_PAGE_BYTES, last)) {
      setBit(bitmap, page);
      count++;
    }
  }
  return count;
}
