// Multifd: the pages of a packet. A packet's offsets name first the pages that have content, in the
// order of that content, then those that are zero; all of them lie in one RAM block.
//
// Several channels work on one block at once: what they change in a bitmap, they change atomically.

import { addBit, isSet, takeBit } from './bitmap';
import {
  ENTRY_FIRST_PAGE, ENTRY_PAGES, ENTRY_RAM, ENTRY_RECEIVED, ENTRY_WRITTEN, PACKET_OFFSETS,
  TARGET_PAGE_BYTES, TARGET_PAGE_SHIFT,
} from './layout';
import { isZeroPage } from './zero';

// The page of the segment that the packet names at `index`; beyond the segment for one elsewhere.
// @ts-ignore: decorator
@inline
function pageAt(entry: usize, packet: usize, index: u32): u32 {
  const offset = bswap<u64>(load<u64>(packet + PACKET_OFFSETS + (<usize>index << 3)));
  return <u32>(offset >> TARGET_PAGE_SHIFT) - load<u32>(entry, ENTRY_FIRST_PAGE);
}

// @ts-ignore: decorator
@inline
function contentOf(entry: usize, page: u32): usize {
  return <usize>load<u32>(entry, ENTRY_RAM) + (<usize>page << TARGET_PAGE_SHIFT);
}

// Writes the offsets of listed pages, those with content first. Returns how many have content. A page
// that was never written is zero, and is not read.
export function listPacket(
  entry: usize, list: usize, count: u32, packet: usize, findZeroPages: bool,
): u32 {
  const written: usize = load<u32>(entry, ENTRY_WRITTEN);
  const firstPage: u64 = load<u32>(entry, ENTRY_FIRST_PAGE);
  let normal = packet + PACKET_OFFSETS;
  let zeroes = normal + (<usize>count << 3);
  const begin = normal;
  for (let i: u32 = 0; i < count; i++) {
    const page = load<u32>(list + (<usize>i << 2));
    const offset = bswap<u64>((firstPage + page) << TARGET_PAGE_SHIFT);
    if (findZeroPages && (!isSet(written, page) || isZeroPage(contentOf(entry, page)))) {
      zeroes -= 8;
      store<u64>(zeroes, offset);
    } else {
      store<u64>(normal, offset);
      normal += 8;
    }
  }
  return <u32>((normal - begin) >> 3);
}

// Where the content of a packet's first `normal` pages lies: in place where they follow each other in
// this segment, else 0.
export function packetRun(entry: usize, packet: usize, normal: u32): usize {
  const first = pageAt(entry, packet, 0);
  const pages = load<u32>(entry, ENTRY_PAGES);
  if (first >= pages || normal > pages - first) return 0;
  for (let i: u32 = 1; i < normal; i++) {
    if (pageAt(entry, packet, i) != first + i) return 0;
  }
  return contentOf(entry, first);
}

// Copies the content of a packet's first `normal` pages to `out`.
export function gatherPacket(entry: usize, packet: usize, normal: u32, out: usize): void {
  for (let i: u32 = 0; i < normal; i++) {
    memory.copy(out, contentOf(entry, pageAt(entry, packet, i)), TARGET_PAGE_BYTES);
    out += TARGET_PAGE_BYTES;
  }
}

// The first of `count` offsets that is no page of a block of so many pages, or `count`.
export function checkPacket(packet: usize, count: u32, blockPages: u32): u32 {
  const end = <u64>blockPages << TARGET_PAGE_SHIFT;
  for (let i: u32 = 0; i < count; i++) {
    const offset = bswap<u64>(load<u64>(packet + PACKET_OFFSETS + (<usize>i << 3)));
    if (offset >= end || (offset & (TARGET_PAGE_BYTES - 1)) != 0) return i;
  }
  return count;
}

// Makes those pages of a checked packet present that lie in this segment: `normal` with their content
// at `from`, or in place already where that is 0, and `zero` ones behind them. Returns how many.
export function placePacket(
  entry: usize, packet: usize, normal: u32, zero: u32, from: usize,
): u32 {
  const pages = load<u32>(entry, ENTRY_PAGES);
  const received: usize = load<u32>(entry, ENTRY_RECEIVED);
  const written: usize = load<u32>(entry, ENTRY_WRITTEN);
  let placed: u32 = 0;
  for (let i: u32 = 0; i < normal + zero; i++) {
    const page = pageAt(entry, packet, i);
    if (page >= pages) continue;
    if (i < normal) {
      if (from != 0) {
        const at = from + (<usize>i << TARGET_PAGE_SHIFT);
        memory.copy(contentOf(entry, page), at, TARGET_PAGE_BYTES);
      }
      addBit(written, page);
    } else if (isSet(written, page)) {
      memory.fill(contentOf(entry, page), 0, TARGET_PAGE_BYTES);
      takeBit(written, page);
    }
    addBit(received, page);
    placed++;
  }
  return placed;
}
