// XBZRLE: what has changed of a page. { unchanged run, changed run, its new bytes } again and again;
// a run's length takes one byte below 128, else two, the lower seven bits first. What is unchanged at
// the end is not said.

import { TARGET_PAGE_BYTES } from './layout';

const ONE_BYTE_LENGTHS: usize = 128;

// Copies exactly `length` bytes, at least 1: short runs without a call.
// @ts-ignore: decorator
@inline
function copyRun(to: usize, from: usize, length: usize): void {
  const tail = length - 1;
  if (length >= 16) {
    if (length > 256) {
      memory.copy(to, from, length);
      return;
    }
    for (let i: usize = 0; i + 16 < length; i += 16) v128.store(to + i, v128.load(from + i));
    v128.store(to + tail - 15, v128.load(from + tail - 15));
  } else if (length >= 8) {
    const last = load<u64>(from + tail - 7);
    store<u64>(to, load<u64>(from));
    store<u64>(to + tail - 7, last);
  } else if (length >= 4) {
    const last = load<u32>(from + tail - 3);
    store<u32>(to, load<u32>(from));
    store<u32>(to + tail - 3, last);
  } else {
    store<u8>(to, load<u8>(from));
    store<u8>(to + (length >> 1), load<u8>(from + (length >> 1)));
    store<u8>(to + tail, load<u8>(from + tail));
  }
}

// One bit for each of 64 bytes that differs.
// @ts-ignore: decorator
@inline
function differing(a: usize, b: usize): u64 {
  return <u64>i8x16.bitmask(i8x16.ne(v128.load(a), v128.load(b)))
    | (<u64>i8x16.bitmask(i8x16.ne(v128.load(a, 16), v128.load(b, 16))) << 16)
    | (<u64>i8x16.bitmask(i8x16.ne(v128.load(a, 32), v128.load(b, 32))) << 32)
    | (<u64>i8x16.bitmask(i8x16.ne(v128.load(a, 48), v128.load(b, 48))) << 48);
}

// @ts-ignore: decorator
@inline
function putLength(out: usize, length: usize): usize {
  if (length < ONE_BYTE_LENGTHS) {
    store<u8>(out, <u8>length);
    return out + 1;
  }
  store<u16>(out, <u16>((length & 0x7f) | 0x80 | ((length >> 7) << 8)));
  return out + 2;
}

// Encodes how `page` differs from `old` into `out`, which has room for 4096 bytes. Returns the bytes
// written, 0 for equal pages, -1 where they would be more than 4096.
//
// `page` may be written meanwhile: the encoding then holds some of the new bytes, and is always whole.
export function encodeXbzrle(old: usize, page: usize, out: usize): i32 {
  const limit = out + TARGET_PAGE_BYTES;
  let at = out;
  let start: usize = 0; // of the changed run
  let end: usize = 0; // of the one before
  let inside: u64 = 0; // 1 in a changed run
  for (let offset: usize = 0; offset <= TARGET_PAGE_BYTES; offset += 64) {
    // One step behind the page ends a run that goes to its end.
    const mask = offset < TARGET_PAGE_BYTES ? differing(old + offset, page + offset) : 0;
    let edges = mask ^ ((mask << 1) | inside);
    while (edges != 0) {
      const edge = offset + <usize>ctz<u64>(edges);
      edges &= edges - 1;
      if (inside == 0) {
        start = edge;
        inside = 1;
        continue;
      }
      inside = 0;
      const length = edge - start;
      // Two lengths of two bytes at most: where there is just no room for those, look closer.
      if (at + length + 4 > limit) {
        const head = 2 + usize(start - end >= ONE_BYTE_LENGTHS) + usize(length >= ONE_BYTE_LENGTHS);
        if (at + head + length > limit) return -1;
      }
      at = putLength(at, start - end);
      at = putLength(at, length);
      copyRun(at, page + start, length);
      at += length;
      end = edge;
    }
  }
  return <i32>(at - out);
}

// Returns where an encoding of a page's changes is wrong, in bytes from its start, or -1.
export function checkXbzrle(encoding: usize, length: u32): i32 {
  let at: u32 = 0;
  let offset: u32 = 0;
  let isChanged = false;
  while (at < length || isChanged) {
    const begin = at;
    // No length stands at the very end: an unchanged run is followed by a changed one, that by bytes.
    if (length - at < 2) return <i32>begin;
    let run: u32 = load<u8>(encoding + at++);
    if (run >= ONE_BYTE_LENGTHS) {
      const high: u32 = load<u8>(encoding + at++);
      if (high >= ONE_BYTE_LENGTHS) return <i32>begin;
      run = (run & 0x7f) | (high << 7);
    }
    offset += run;
    if ((run == 0 && begin != 0) || offset > TARGET_PAGE_BYTES) return <i32>begin;
    if (isChanged) {
      if (run > length - at) return <i32>begin;
      at += run;
    }
    isChanged = !isChanged;
  }
  return -1;
}

// Applies an encoding that is right to a page.
export function applyXbzrle(encoding: usize, length: u32, page: usize): void {
  const end = encoding + length;
  let at = encoding;
  let isChanged = false;
  while (at < end) {
    let run: usize = load<u8>(at++);
    if (run >= ONE_BYTE_LENGTHS) run = (run & 0x7f) | (<usize>load<u8>(at++) << 7);
    if (isChanged) {
      copyRun(page, at, run);
      at += run;
    }
    page += run;
    isChanged = !isChanged;
  }
}
