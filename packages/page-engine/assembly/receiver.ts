// The destination's side: page records into guest memory.
//
// A page counts as present when its received bit is set, and nothing else makes it visible to the
// guest. So a huge page is gathered in its own place: its target pages are written one by one while
// all of its bits are clear, and become visible together, after the last byte.
//
// Channels of multifd may place other pages meanwhile: bits are changed atomically.
//
// The written bitmap, together with the dirty log, says where memory may hold anything but zeroes: a
// zero page that was never written costs no memory access at all.

import { addBit, isSet, nextSet, setRange, takeBit } from './bitmap';
import {
  DECODE_FILL, DECODE_FOREIGN, DECODE_GATHERED, DECODE_NEED_MORE, DECODE_NO_BLOCK, DECODE_ORDER,
  DECODE_OUT_OF_RANGE, DECODE_RECEIVED, DECODE_RECORD, DECODE_UNKNOWN_BLOCK, DECODE_XBZRLE_DATA,
  DECODE_XBZRLE_ENCODING, DECODE_XBZRLE_LENGTH, DECODE_XBZRLE_MISSING, ENTRY_BLOCK_PAGES,
  ENTRY_BYTES, ENTRY_FIRST_PAGE, ENTRY_HOST_PAGES, ENTRY_NAME, ENTRY_NAME_BYTES, ENTRY_PAGES,
  ENTRY_RAM, ENTRY_RECEIVED, ENTRY_WRITTEN, RX_BLOCK, RX_EXPECTED, RX_GATHER_BLOCK,
  RX_GATHER_NEXT, RX_LAST, RX_NEEDED, RX_NORMAL, RX_OTHER, RX_PLACED, RX_POSITION, RX_POSTCOPY, RX_WORD,
  RX_WORD_BLOCK, RX_XBZRLE, RX_ZERO, SLOT_BLOCK, SLOT_BYTES, SLOT_PAGE, SLOT_STATE, SLOTS_PTR,
  TARGET_PAGE_BYTES, TARGET_PAGE_SHIFT, WAITING_PTR,
} from './layout';
import { applyXbzrle, checkXbzrle } from './xbzrle';

const ZERO: u32 = 0x02;
const PAGE: u32 = 0x08;
const CONTINUE: u32 = 0x20;
const XBZRLE: u32 = 0x40;
const XBZRLE_HEAD_BYTES: usize = 3;
const FLAGS: u64 = 0xfff;

function sameBytes(a: usize, b: usize, length: usize): bool {
  for (let i: usize = 0; i < length; i++) {
    if (load<u8>(a + i) != load<u8>(b + i)) return false;
  }
  return true;
}

// The index + 1 of the block of that name, or 0.
function findBlock(table: usize, blocks: u32, name: usize, length: usize): u32 {
  for (let i: u32 = 0; i < blocks; i++) {
    const entry = table + <usize>i * ENTRY_BYTES;
    if (load<u32>(entry, ENTRY_NAME_BYTES) == <u32>length && sameBytes(entry + ENTRY_NAME, name, length)) {
      return i + 1;
    }
  }
  return 0;
}

// Puts the content of a page; `from` is 0 for a zero page.
// @ts-ignore: decorator
@inline
function putPage(entry: usize, page: u32, from: usize): void {
  const to = <usize>load<u32>(entry, ENTRY_RAM) + (<usize>page << TARGET_PAGE_SHIFT);
  const written: usize = load<u32>(entry, ENTRY_WRITTEN);
  if (from != 0) {
    memory.copy(to, from, TARGET_PAGE_BYTES);
    addBit(written, page);
  } else if (isSet(written, page)) {
    memory.fill(to, 0, TARGET_PAGE_BYTES);
    takeBit(written, page);
  }
}

// Wakes the vCPUs that wait for a page of [from, to). The received bits are already set: a vCPU that
// begins to wait now raises `waiting` before it looks at its bit, so one of the two sees the other.
export function wakeWaiting(slots: u32, block: u32, from: u32, to: u32): void {
  if (atomic.load<u32>(WAITING_PTR) == 0) return;
  for (let i: u32 = 0; i < slots; i++) {
    const slot = SLOTS_PTR + <usize>i * SLOT_BYTES;
    if (atomic.load<u32>(slot, SLOT_STATE) != 1 || load<u32>(slot, SLOT_BLOCK) != block) continue;
    const page = load<u32>(slot, SLOT_PAGE);
    if (page < from || page >= to) continue;
    atomic.store<u32>(slot, 0, SLOT_STATE);
    atomic.notify(slot + SLOT_STATE, -1);
  }
}

// Wakes every waiting vCPU, so that it looks again.
export function wakeAll(slots: u32): void {
  for (let i: u32 = 0; i < slots; i++) {
    const slot = SLOTS_PTR + <usize>i * SLOT_BYTES;
    if (atomic.load<u32>(slot, SLOT_STATE) != 1) continue;
    atomic.store<u32>(slot, 0, SLOT_STATE);
    atomic.notify(slot + SLOT_STATE, -1);
  }
}

// Zero pages come in long runs: those that fill a word of the bitmaps are taken at once.
const RUN_PAGES: u32 = 64;
const RUN_BYTES: usize = 9 * RUN_PAGES;

// Whether the records at `position` are those of zero pages one after the other, `word` being the first.
function isZeroRun(position: usize, word: u64): bool {
  for (const end = position + RUN_BYTES; position < end; position += 9, word += TARGET_PAGE_BYTES) {
    if (bswap<u64>(load<u64>(position)) != word || load<u8>(position, 8) != 0) return false;
  }
  return true;
}

// Consumes page records of [position, end) up to the first that is incomplete, no page, or wrong.
export function decode(
  state: usize, table: usize, blocks: u32, slots: u32, position: usize, end: usize,
): i32 {
  const postcopy = load<u32>(state, RX_POSTCOPY) != 0;
  const other: usize = load<u32>(state, RX_OTHER);
  let current = load<u32>(state, RX_BLOCK);
  let gatherBlock = load<u32>(state, RX_GATHER_BLOCK);
  let gatherNext = load<u32>(state, RX_GATHER_NEXT);
  let normal: u32 = 0;
  let zero: u32 = 0;
  let xbzrle: u32 = 0;
  let placed: u32 = 0;
  let last: usize = 0;
  let needed: usize = 0;
  let word: u64 = 0;
  let block: u32 = 0;
  let expected: u32 = 0;
  let status: i32 = DECODE_NEED_MORE;

  while (true) {
    const room = end - position;
    block = 0;
    if (room < 8) {
      needed = 8;
      status = DECODE_NEED_MORE;
      break;
    }
    word = bswap<u64>(load<u64>(position));
    const flags = <u32>(word & FLAGS);
    const kind = flags & ~CONTINUE;
    if (kind != PAGE && kind != ZERO && (kind != XBZRLE || postcopy)) {
      status = DECODE_RECORD;
      break;
    }
    let used: usize = 8;
    if (flags & CONTINUE) {
      block = current;
      if (block == 0) {
        status = DECODE_NO_BLOCK;
        break;
      }
    } else {
      if (room < 9) {
        needed = 9;
        status = DECODE_NEED_MORE;
        break;
      }
      const length: usize = load<u8>(position, 8);
      used = 9 + length;
      if (room < used) {
        needed = used;
        status = DECODE_NEED_MORE;
        break;
      }
      block = findBlock(table, blocks, position + 9, length);
      if (block == 0) {
        status = DECODE_UNKNOWN_BLOCK;
        break;
      }
    }
    const entry = table + <usize>(block - 1) * ENTRY_BYTES;
    const blockPage = word >> TARGET_PAGE_SHIFT;
    if (blockPage >= <u64>load<u32>(entry, ENTRY_BLOCK_PAGES)) {
      status = DECODE_OUT_OF_RANGE;
      break;
    }
    let total = used + (kind == PAGE ? <usize>TARGET_PAGE_BYTES : 1);
    let changes: usize = 0; // bytes of an XBZRLE encoding
    if (kind == XBZRLE) {
      total = used + XBZRLE_HEAD_BYTES;
      if (room >= total) {
        if (load<u8>(position + used) != 1) {
          status = DECODE_XBZRLE_ENCODING;
          break;
        }
        changes = bswap<u16>(load<u16>(position + used, 1));
        if (changes > TARGET_PAGE_BYTES) {
          status = DECODE_XBZRLE_LENGTH;
          break;
        }
        total += changes;
      }
    }
    if (room < total) {
      needed = total;
      status = DECODE_NEED_MORE;
      break;
    }
    const page = <u32>blockPage - load<u32>(entry, ENTRY_FIRST_PAGE);
    if (gatherBlock != 0 && (block != gatherBlock || page != gatherNext)) {
      expected = gatherNext;
      status = DECODE_ORDER;
      break;
    }
    // Also true for a page before the segment: the difference wrapped.
    if (page >= load<u32>(entry, ENTRY_PAGES)) {
      status = DECODE_FOREIGN;
      break;
    }
    if (kind == ZERO && load<u8>(position + used) != 0) {
      status = DECODE_FILL;
      break;
    }
    const from: usize = kind == PAGE ? position + used : 0;
    const received: usize = load<u32>(entry, ENTRY_RECEIVED);
    if (
      flags == (ZERO | CONTINUE) && !postcopy && (page & (RUN_PAGES - 1)) == 0 &&
      room >= RUN_BYTES && page + RUN_PAGES <= load<u32>(entry, ENTRY_PAGES) &&
      load<u64>(load<u32>(entry, ENTRY_WRITTEN) + (page >> 3)) == 0 && isZeroRun(position, word)
    ) {
      atomic.or<u64>(received + (<usize>page >> 3), ~0);
      zero += RUN_PAGES;
      position += RUN_BYTES;
      continue;
    }
    if (kind == XBZRLE) {
      if (!isSet(received, page)) {
        status = DECODE_XBZRLE_MISSING;
        break;
      }
      const encoding = position + used + XBZRLE_HEAD_BYTES;
      const wrongAt = checkXbzrle(encoding, <u32>changes);
      if (wrongAt >= 0) {
        expected = wrongAt;
        status = DECODE_XBZRLE_DATA;
        break;
      }
      const to = <usize>load<u32>(entry, ENTRY_RAM) + (<usize>page << TARGET_PAGE_SHIFT);
      applyXbzrle(encoding, <u32>changes, to);
      addBit(load<u32>(entry, ENTRY_WRITTEN), page);
    } else if (!postcopy) {
      putPage(entry, page, from);
      addBit(received, page);
    } else {
      const perHost = load<u32>(entry, ENTRY_HOST_PAGES);
      const first = page & ~(perHost - 1);
      if (gatherBlock == 0) {
        if (nextSet(received, first, first + perHost) != first + perHost) {
          status = DECODE_RECEIVED;
          break;
        }
        if (page != first) {
          expected = first;
          status = DECODE_ORDER;
          break;
        }
        // Two channels that gather one host page in its place would write over a page that is present.
        if (
          load<u32>(other, RX_GATHER_BLOCK) == block &&
          (load<u32>(other, RX_GATHER_NEXT) & ~(perHost - 1)) == first
        ) {
          expected = first;
          status = DECODE_GATHERED;
          break;
        }
      }
      putPage(entry, page, from);
      if (page + 1 == first + perHost) {
        setRange(received, first, first + perHost);
        wakeWaiting(slots, block - 1, first, first + perHost);
        gatherBlock = 0;
        placed++;
      } else {
        gatherBlock = block;
        gatherNext = page + 1;
      }
    }
    if (kind == PAGE) {
      normal++;
      last = <usize>load<u32>(entry, ENTRY_RAM) + (<usize>page << TARGET_PAGE_SHIFT);
    } else if (kind == ZERO) {
      zero++;
    } else {
      xbzrle++;
    }
    current = block;
    position += total;
  }

  store<u32>(state, current, RX_BLOCK);
  store<u32>(state, gatherBlock, RX_GATHER_BLOCK);
  store<u32>(state, gatherNext, RX_GATHER_NEXT);
  store<u32>(state, <u32>position, RX_POSITION);
  store<u32>(state, <u32>needed, RX_NEEDED);
  store<u32>(state, block, RX_WORD_BLOCK);
  store<u32>(state, expected, RX_EXPECTED);
  store<u64>(state, word, RX_WORD);
  store<u32>(state, normal, RX_NORMAL);
  store<u32>(state, zero, RX_ZERO);
  store<u32>(state, xbzrle, RX_XBZRLE);
  store<u32>(state, placed, RX_PLACED);
  store<u32>(state, <u32>last, RX_LAST);
  return status;
}
