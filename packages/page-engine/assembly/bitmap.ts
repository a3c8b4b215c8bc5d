// Bitmaps of 64-bit words: bit i stands for page i, least significant bit first. Bits beyond the
// last page stay clear.

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

export function clearRange(bitmap: usize, from: u32, to: u32): void {
  for (let base = from & ~63; base < to; base += 64) {
    atomic.and<u64>(bitmap + (<usize>base >> 3), ~maskOf(base, from, to));
  }
}

export function countSet(bitmap: usize, from: u32, to: u32): u32 {
  let total: u64 = 0;
  for (let base = from & ~63; base < to; base += 64) {
    total += popcnt<u64>(load<u64>(bitmap + (<usize>base >> 3)) & maskOf(base, from, to));
  }
  return <u32>total;
}

// The first set bit in [from, to), or `to`.
export function nextSet(bitmap: usize, from: u32, to: u32): u32 {
  if (from >= to) return to;
  let base = from & ~63;
  let word = load<u64>(bitmap + (<usize>base >> 3)) & (<u64>~0 << (from & 63));
  while (word == 0) {
    base += 64;
    if (base >= to) return to;
    word = load<u64>(bitmap + (<usize>base >> 3));
  }
  const page = base + <u32>ctz<u64>(word);
  return page < to ? page : to;
}

// The first clear bit in [from, to), or `to`.
export function nextClear(bitmap: usize, from: u32, to: u32): u32 {
  if (from >= to) return to;
  let base = from & ~63;
  let word = ~load<u64>(bitmap + (<usize>base >> 3)) & (<u64>~0 << (from & 63));
  while (word == 0) {
    base += 64;
    if (base >= to) return to;
    word = ~load<u64>(bitmap + (<usize>base >> 3));
  }
  const page = base + <u32>ctz<u64>(word);
  return page < to ? page : to;
}

// Adds every bit of `from` to `into`.
export function addAll(into: usize, from: usize, pages: u32): void {
  for (let base: u32 = 0; base < pages; base += 64) {
    const at = <usize>base >> 3;
    const word = load<u64>(from + at);
    if (word != 0) store<u64>(into + at, load<u64>(into + at) | word);
  }
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
