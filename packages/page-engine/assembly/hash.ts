// XXH64 of each target page (seed 0), the page hashes folded in order. The fold is a bijection in
// both of its inputs, so two runs of pages that differ in one page never fold alike.

import { TARGET_PAGE_BYTES } from './layout';
import { isZeroPage } from './zero';

const P1: u64 = 0x9e3779b185ebca87;
const P2: u64 = 0xc2b2ae3d27d4eb4f;
const P3: u64 = 0x165667b19e3779f9;
const P4: u64 = 0x85ebca77c2b2ae63;

// @ts-ignore: decorator
@inline
function round(acc: u64, lane: u64): u64 {
  return rotl<u64>(acc + lane * P2, 31) * P1;
}

// @ts-ignore: decorator
@inline
function merge(hash: u64, acc: u64): u64 {
  return (hash ^ round(0, acc)) * P1 + P4;
}

export function hashPage(page: usize): u64 {
  let a: u64 = P1 + P2;
  let b: u64 = P2;
  let c: u64 = 0;
  let d: u64 = 0 - P1;
  const end = page + TARGET_PAGE_BYTES;
  for (let at = page; at < end; at += 32) {
    a = round(a, load<u64>(at));
    b = round(b, load<u64>(at, 8));
    c = round(c, load<u64>(at, 16));
    d = round(d, load<u64>(at, 24));
  }
  let hash = rotl<u64>(a, 1) + rotl<u64>(b, 7) + rotl<u64>(c, 12) + rotl<u64>(d, 18);
  hash = merge(merge(merge(merge(hash, a), b), c), d) + TARGET_PAGE_BYTES;
  hash = (hash ^ (hash >> 33)) * P2;
  hash = (hash ^ (hash >> 29)) * P3;
  return hash ^ (hash >> 32);
}

// Folds the hashes of `pages` pages into `previous`.
export function hashPages(ptr: usize, pages: u32, previous: u64): u64 {
  let folded = previous;
  let zeroHash: u64 = 0;
  let zeroKnown = false;
  for (let page: u32 = 0; page < pages; page++) {
    const at = ptr + <usize>page * TARGET_PAGE_BYTES;
    let hash: u64;
    if (isZeroPage(at)) {
      if (!zeroKnown) {
        zeroHash = hashPage(at);
        zeroKnown = true;
      }
      hash = zeroHash;
    } else {
      hash = hashPage(at);
    }
    folded = (rotl<u64>(folded, 31) ^ hash) * P1 + P4;
  }
  return folded;
}
