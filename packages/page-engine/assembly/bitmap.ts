// Bitmaps of 64-bit words: bit i stands for page i, least significant bit first. Bits beyond the
// last page stay clear. A guest's bitmaps fill whole cache lines.

import { RUN_BYTES } from './layout';

// @ts-ignore: decorator
@inline
export function isSet(bitmap: usize, page: u32): bool {
  return ((load<u64>(bitmap + ((<usize>page >> 6) << 3)) >> (page & 63)) & 1) != 0;
}

// @ts-ignore: decorator
@inline
export function setBit(bitmap: usize, page: u32): void {
  const at = bitmap + ((<usize>page >> 6) << 3);
  store<u64>(at, load<u64>(at) | (<u64>1 << (page & 63)));
}

// @ts-ignore: decorator
@inline
export function clearBit(bitmap: usize, page: u32): void {
  const at = bitmap + ((<usize>page >> 6) << 3);
  store<u64>(at, load<u64>(at) & ~(<u64>1 << (page & 63)));
}

// Sets a bit of a bitmap that several threads change.
// @ts-ignore: decorator
@inline
export function addBit(bitmap: usize, page: u32): void {
  if (isSet(bitmap, page)) return;
  atomic.or<u64>(bitmap + ((<usize>page >> 6) << 3), <u64>1 << (page & 63));
}

// Clears a bit of a bitmap that several threads change.
// @ts-ignore: decorator
@inline
export function takeBit(bitmap: usize, page: u32): void {
  atomic.and<u64>(bitmap + ((<usize>page >> 6) << 3), ~(<u64>1 << (page & 63)));
}

// The bits of the word that begins at page `base` which lie in [from, to).
// @ts-ignore: decorator
@inline
function maskOf(base: u32, from: u32, to: u32): u64 {
  let mask: u64 = ~0;
  if (from > base) mask &= <u64>~0 << (from - base);
  if (to - base < 64) mask &= ~(<u64>~0 << (to - base));
  return mask;
}

export function setRange(bitmap: usize, from: u32, to: u32): void {
  for (let base = from & ~63; base < to; base += 64) {
    atomic.or<u64>(bitmap + (<usize>base >> 3), maskOf(base, from, to));
  }
}

// Returns how many of the bits were set: each is seen by one thread alone that clears it.
export function clearRange(bitmap: usize, from: u32, to: u32): u32 {
  let cleared: u64 = 0;
  for (let base = from & ~63; base < to; base += 64) {
    const mask = maskOf(base, from, to);
    cleared += popcnt<u64>(atomic.and<u64>(bitmap + (<usize>base >> 3), ~mask) & mask);
  }
  return <u32>cleared;
}

// Adds the bits of `from` in [first, end) to `into`.
export function addRange(into: usize, from: usize, first: u32, end: u32): void {
  for (let base = first & ~63; base < end; base += 64) {
    const at = <usize>base >> 3;
    const word = load<u64>(from + at) & maskOf(base, first, end);
    if ((word & ~load<u64>(into + at)) != 0) atomic.or<u64>(into + at, word);
  }
}

export function countSet(bitmap: usize, from: u32, to: u32): u32 {
  let total: u64 = 0;
  for (let base = from & ~63; base < to; base += 64) {
    total += popcnt<u64>(load<u64>(bitmap + (<usize>base >> 3)) & maskOf(base, from, to));
  }
  return <u32>total;
}

// @ts-ignore: decorator
@inline
function or4(a: v128, b: v128, c: v128, d: v128): v128 {
  return v128.or(v128.or(a, b), v128.or(c, d));
}

// Whether all eight words of a cache line are `fill`, which is 0 or ~0.
// @ts-ignore: decorator
@inline
function isLineOf(line: usize, fill: u64): bool {
  const all = i64x2.splat(fill);
  return !v128.any_true(or4(
    v128.xor(v128.load(line), all), v128.xor(v128.load(line, 16), all),
    v128.xor(v128.load(line, 32), all), v128.xor(v128.load(line, 48), all),
  ));
}

// The first page of [from, to) whose bit is not that of `fill` (0 or ~0), or `to`.
// @ts-ignore: decorator
@inline
function nextOther(bitmap: usize, from: u32, to: u32, fill: u64): u32 {
  if (from >= to) return to;
  const end = bitmap + (((<usize>to + 63) >> 6) << 3);
  let at = bitmap + ((<usize>from >> 6) << 3);
  let word = (load<u64>(at) ^ fill) & (<u64>~0 << (from & 63));
  while (word == 0) {
    at += 8;
    if ((at & 63) == 0) {
      while (at + 64 <= end && isLineOf(at, fill)) at += 64;
    }
    if (at >= end) return to;
    word = load<u64>(at) ^ fill;
  }
  const page = <u32>((at - bitmap) << 3) + <u32>ctz<u64>(word);
  return page < to ? page : to;
}

// The first set bit in [from, to), or `to`.
export function nextSet(bitmap: usize, from: u32, to: u32): u32 {
  return nextOther(bitmap, from, to, 0);
}

// The first clear bit in [from, to), or `to`.
export function nextClear(bitmap: usize, from: u32, to: u32): u32 {
  return nextOther(bitmap, from, to, ~0);
}

// Lists the runs of set bits in [from, to) as pairs of u32, first page and end, at `out`. Returns how
// many there are, `most` at most: the next call then goes on from the last end.
export function findRuns(bitmap: usize, from: u32, to: u32, out: usize, most: u32): u32 {
  if (from >= to) return 0;
  const begin = out;
  const full = out + <usize>most * RUN_BYTES;
  const end = bitmap + (((<usize>to + 63) >> 6) << 3);
  let at = bitmap + ((<usize>from >> 6) << 3);
  let word = load<u64>(at) & (<u64>~0 << (from & 63));
  let inside: u64 = 0; // ~0 in a run
  while (true) {
    if (at + 8 == end && (to & 63) != 0) word &= ~(<u64>~0 << (to & 63));
    // A bit that differs from the one before it begins or ends a run.
    let edges = word ^ ((word << 1) | (inside & 1));
    const base = <u32>((at - bitmap) << 3);
    while (edges != 0) {
      if (out == full) return most;
      store<u32>(out, base + <u32>ctz<u64>(edges));
      out += 4;
      edges &= edges - 1;
    }
    inside = <u64>(<i64>word >> 63);
    do {
      at += 8;
      if ((at & 63) == 0) {
        while (at + 64 <= end && isLineOf(at, inside)) at += 64;
      }
      if (at >= end) {
        if (inside != 0) {
          store<u32>(out, to);
          out += 4;
        }
        return <u32>((out - begin) / RUN_BYTES);
      }
      word = load<u64>(at);
    } while (word == inside);
  }
}

// @ts-ignore: decorator
@inline
function popcount(v: v128): u64 {
  return popcnt<u64>(i64x2.extract_lane(v, 0)) + popcnt<u64>(i64x2.extract_lane(v, 1));
}

// Adds the bits of `from` to `into`, by whole cache lines. Returns how many `into` had not. `from` may
// be written by other threads meanwhile: a bit that comes too late is found by the next call.
export function addNew(into: usize, from: usize, pages: u32): u32 {
  const end = from + (((<usize>pages + 511) >> 9) << 6);
  let added: u64 = 0;
  for (; from < end; from += 64, into += 64) {
    const a = v128.load(from);
    const b = v128.load(from, 16);
    const c = v128.load(from, 32);
    const d = v128.load(from, 48);
    if (!v128.any_true(or4(a, b, c, d))) continue;
    const e = v128.load(into);
    const f = v128.load(into, 16);
    const g = v128.load(into, 32);
    const h = v128.load(into, 48);
    v128.store(into, v128.or(a, e));
    v128.store(into, v128.or(b, f), 16);
    v128.store(into, v128.or(c, g), 32);
    v128.store(into, v128.or(d, h), 48);
    added += popcount(v128.andnot(a, e)) + popcount(v128.andnot(b, f))
      + popcount(v128.andnot(c, g)) + popcount(v128.andnot(d, h));
  }
  return <u32>added;
}

// Makes every host page that is partly set wholly set. `perHost` is a power of two.
export function widen(bitmap: usize, pages: u32, perHost: u32): void {
  if (perHost == 1) return;
  let page = nextSet(bitmap, 0, pages);
  while (page < pages) {
    const first = page & ~(perHost - 1);
    const end = min<u32>(first + perHost, pages);
    setRange(bitmap, first, end);
    page = nextSet(bitmap, end, pages);
  }
}
