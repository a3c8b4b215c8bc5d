// XBZRLE: what has changed of a page. { unchanged run, changed run, its new bytes } again and again;
// a run's length takes one byte below 128, else two, the lower seven bits first. What is unchanged at
// the end is not said.

import { TARGET_PAGE_BYTES } from './layout';

const ONE_BYTE_LENGTHS: u32 = 128;

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
  return ~(<u64>i8x16.bitmask(i8x16.eq(v128.load(a), v128.load(b)))
    | (<u64>i8x16.bitmask(i8x16.eq(v128.load(a, 16), v128.load(b, 16))) << 16)
    | (<u64>i8x16.bitmask(i8x16.eq(v128.load(a, 32), v128.load(b, 32))) << 32)
    | (<u64>i8x16.bitmask(i8x16.eq(v128.load(a, 48), v128.load(b, 48))) << 48));
}

// Stores the places of the four lowest bits, also where there are fewer; returns the rest.
// @ts-ignore: decorator
@inline
function putFour(edges: usize, offset: u32, bits: u64): u64 {
  store<u16>(edges, <u16>(offset + <u32>ctz<u64>(bits)));
  bits &= bits - 1;
  store<u16>(edges, <u16>(offset + <u32>ctz<u64>(bits)), 2);
  bits &= bits - 1;
  store<u16>(edges, <u16>(offset + <u32>ctz<u64>(bits)), 4);
  bits &= bits - 1;
  store<u16>(edges, <u16>(offset + <u32>ctz<u64>(bits)), 6);
  return bits & (bits - 1);
}

// Lists where changed runs of a page begin and end, as u16 in turns. Returns where the list ends.
// Which bits are set is what a processor cannot foresee, so no branch hangs on few of them.
// @ts-ignore: decorator
@inline
function findEdges(old: usize, page: usize, edges: usize): usize {
  let inside: u64 = 0; // 1 in a changed run
  for (let offset: u32 = 0; offset < TARGET_PAGE_BYTES; offset += 64) {
    const mask = differing(old + offset, page + offset);
    const turns = mask ^ ((mask << 1) | inside);
    inside = mask >> 63;
    const count = <usize>popcnt<u64>(turns);
    let rest = putFour(edges, offset, turns);
    if (count > 4) {
      rest = putFour(edges + 8, offset, rest);
      rest = putFour(edges + 16, offset, rest);
      for (let done: usize = 12; done < count; done += 4) {
        rest = putFour(edges + (done << 1), offset, rest);
      }
    }
    edges += count << 1;
  }
  if (inside != 0) {
    store<u16>(edges, TARGET_PAGE_BYTES);
    edges += 2;
  }
  return edges;
}

// Writes a length; the byte behind it may be written, too.
// @ts-ignore: decorator
@inline
function putLength(out: usize, length: usize): usize {
  const isLong = <usize>(length >= ONE_BYTE_LENGTHS);
  store<u16>(out, <u16>((length & 0x7f) | (isLong << 7) | ((length >> 7) << 8)));
  return out + 1 + isLong;
}

// Encodes how `page` differs from `old` into `out`, which has room for 4096 bytes. Returns the bytes
// written, 0 for equal pages, -1 where they would be more than 4096. `edges` is EDGES_BYTES of room.
//
// `page` may be written meanwhile: the encoding then holds some of the new bytes, and is always whole.
export function encodeXbzrle(old: usize, page: usize, out: usize, edges: usize): i32 {
  const edgesEnd = findEdges(old, page, edges);
  const limit = out + TARGET_PAGE_BYTES;
  let at = out;
  let before: usize = 0; // the end of the run before
  for (; edges < edgesEnd; edges += 4) {
    const start: usize = load<u16>(edges);
    const end: usize = load<u16>(edges, 2);
    const length = end - start;
    // Two lengths of two bytes at most: where there is just no room for those, look closer.
    if (at + length + 4 > limit) {
      const head: usize =
        2 + <usize>(start - before >= ONE_BYTE_LENGTHS) + <usize>(length >= ONE_BYTE_LENGTHS);
      if (at + head + length > limit) return -1;
    }
    at = putLength(at, start - before);
    at = putLength(at, length);
    const from = page + start;
    if (length <= 16 && start <= TARGET_PAGE_BYTES - 16 && at + 16 <= limit) {
      v128.store(at, v128.load(from));
    } else {
      copyRun(at, from, length);
    }
    at += length;
    before = end;
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
