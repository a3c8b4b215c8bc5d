// The source's side: the encoder of page records.
//
// Record: be64 offset | flags, then (without CONTINUE) u8 length and the block's name, then one fill
// byte (ZERO), 4096 bytes (PAGE), or u8 1, be16 length and the encoded changes (XBZRLE).

import { clearBit, isSet, nextSet } from './bitmap';
import {
  ENTRY_DIRTY, ENTRY_FIRST_PAGE, ENTRY_NAME, ENTRY_NAME_BYTES, ENTRY_OWED, ENTRY_RAM,
  ENTRY_WRITTEN, TARGET_PAGE_BYTES, TARGET_PAGE_SHIFT, TX_CACHE, TX_CACHE_AGE, TX_CACHE_MISS,
  TX_CACHE_SLOTS, TX_EDGES, TX_LIST, TX_LIST_ROOM, TX_LISTED, TX_NEXT_PAGE, TX_NORMAL, TX_OVERFLOW, TX_UNCHANGED, TX_XBZRLE,
  TX_XBZRLE_BYTES, TX_ZERO,
} from './layout';
import { applyXbzrle, encodeXbzrle } from './xbzrle';
import { isCached, slotOf, takeSlot } from './xbzrle-cache';
import { isZeroPage } from './zero';

const ZERO: u64 = 0x02;
const PAGE: u64 = 0x08;
const CONTINUE: u64 = 0x20;
const XBZRLE: u64 = 0x40;
const XBZRLE_HEAD_BYTES: u32 = 3;

// Takes a page's mark out of the dirty log, before the page is read: a write that the read does not
// see marks the page anew. The log is only read when it is synchronised; here a page is dealt with
// anyhow, so that the one atomic operation that it needs costs little beside it.
// @ts-ignore: decorator
@inline
export function takeMark(dirty: usize, written: usize, page: u32): void {
  if (!isSet(dirty, page)) return;
  const at = (<usize>page >> 6) << 3;
  const bit = <u64>1 << (page & 63);
  atomic.and<u64>(dirty + at, ~bit);
  if (!isSet(written, page)) atomic.or<u64>(written + at, bit);
}

// Records of pages that were never written come 64 at a time, a word of the bitmaps.
const RUN_PAGES: u32 = 64;
const RUN_BYTES: u32 = 9 * RUN_PAGES;

// Whether all pages of the word that begins at `page` are owed and none was ever written.
// @ts-ignore: decorator
@inline
function isUnwrittenRun(owed: usize, dirty: usize, written: usize, page: u32): bool {
  const at = <usize>page >> 3;
  return load<u64>(owed + at) == ~0 && (load<u64>(dirty + at) | load<u64>(written + at)) == 0;
}

// Encodes the owed pages of [from, to) of a segment into [out, outEnd), as far as they fit, and
// clears their owed bits and dirty marks. Returns the bytes written; the state holds the rest.
//
// A page that was never written is zero, and is not read: memory that nobody touched stays untouched.
//
// With XBZRLE, a page is sent from its slot in the cache where it has one: the guest may write the page
// meanwhile, and the slot has to hold what the destination gets.
//
// With a list, a page with content goes into it rather than into a record: another channel sends it.
export function encode(
  state: usize,
  entry: usize,
  named: bool,
  from: u32,
  to: u32,
  out: usize,
  outEnd: usize,
  findZeroPages: bool,
): u32 {
  const dirty: usize = load<u32>(entry, ENTRY_DIRTY);
  const owed: usize = load<u32>(entry, ENTRY_OWED);
  const ram: usize = load<u32>(entry, ENTRY_RAM);
  const written: usize = load<u32>(entry, ENTRY_WRITTEN);
  const firstPage: u64 = load<u32>(entry, ENTRY_FIRST_PAGE);
  const nameBytes: usize = load<u32>(entry, ENTRY_NAME_BYTES);
  const cache: usize = load<u32>(state, TX_CACHE);
  const slots = load<u32>(state, TX_CACHE_SLOTS);
  const age = load<u32>(state, TX_CACHE_AGE);
  const edges: usize = load<u32>(state, TX_EDGES);
  const list: usize = load<u32>(state, TX_LIST);
  const room: u32 = list == 0 ? u32.MAX_VALUE : load<u32>(state, TX_LIST_ROOM);
  const mostBytes: usize = TARGET_PAGE_BYTES + (slots != 0 ? XBZRLE_HEAD_BYTES : 0);
  const begin = out;
  let normal: u32 = 0;
  let zero: u32 = 0;
  let xbzrle: u32 = 0;
  let unchanged: u32 = 0;
  let xbzrleBytes: u32 = 0;
  let misses: u32 = 0;
  let overflows: u32 = 0;
  let listed: u32 = 0;
  let page = nextSet(owed, from, to);
  for (; page < to; page = nextSet(owed, page + 1, to)) {
    const header: usize = named ? 8 : 9 + nameBytes;
    if (outEnd - out < header + mostBytes || listed == room) break;
    if (
      (page & (RUN_PAGES - 1)) == 0 && page + RUN_PAGES <= to && named && findZeroPages &&
      slots == 0 && outEnd - out >= RUN_BYTES && isUnwrittenRun(owed, dirty, written, page)
    ) {
      store<u64>(owed + (<usize>page >> 3), 0);
      let word = ((firstPage + page) << TARGET_PAGE_SHIFT) | ZERO | CONTINUE;
      for (const runEnd = out + RUN_BYTES; out < runEnd; out += 9, word += TARGET_PAGE_BYTES) {
        store<u64>(out, bswap<u64>(word));
        store<u8>(out, 0, 8);
      }
      zero += RUN_PAGES;
      page += RUN_PAGES - 1;
      continue;
    }
    takeMark(dirty, written, page);
    clearBit(owed, page);
    const at = ram + ((<usize>page) << TARGET_PAGE_SHIFT);
    const slot = slotOf(cache, slots, at);
    let kind = PAGE;
    let content = at;
    let length: i32 = 0;
    if (findZeroPages && (!isSet(written, page) || isZeroPage(at))) {
      kind = ZERO;
      if (slots != 0 && takeSlot(cache, slots, slot, at, age)) {
        memory.fill(slot, 0, TARGET_PAGE_BYTES);
      }
    } else if (slots != 0) {
      if (isCached(cache, slots, slot, at, age)) {
        const encoding = out + header + XBZRLE_HEAD_BYTES;
        length = encodeXbzrle(slot, at, encoding, edges);
        if (length == 0) {
          unchanged++;
          continue;
        }
        if (length > 0) {
          kind = XBZRLE;
          applyXbzrle(encoding, length, slot);
        } else {
          overflows++;
          xbzrleBytes += TARGET_PAGE_BYTES;
        }
      } else {
        misses++;
      }
      if (kind == PAGE && takeSlot(cache, slots, slot, at, age)) {
        memory.copy(slot, at, TARGET_PAGE_BYTES);
        content = slot;
      }
    }
    if (list != 0 && kind == PAGE) {
      store<u32>(list + (<usize>listed << 2), page);
      listed++;
      continue;
    }
    const word = ((firstPage + page) << TARGET_PAGE_SHIFT) | kind;
    if (named) {
      store<u64>(out, bswap<u64>(word | CONTINUE));
    } else {
      store<u64>(out, bswap<u64>(word));
      store<u8>(out, <u8>nameBytes, 8);
      memory.copy(out + 9, entry + ENTRY_NAME, nameBytes);
      named = true;
    }
    out += header;
    if (kind == ZERO) {
      store<u8>(out, 0);
      out += 1;
      zero++;
    } else if (kind == PAGE) {
      memory.copy(out, content, TARGET_PAGE_BYTES);
      out += TARGET_PAGE_BYTES;
      normal++;
    } else {
      store<u8>(out, 1);
      store<u16>(out, bswap<u16>(<u16>length), 1);
      out += XBZRLE_HEAD_BYTES + length;
      xbzrle++;
      // As QEMU counts them: without the word.
      xbzrleBytes += <u32>header - 8 + XBZRLE_HEAD_BYTES + length;
    }
  }
  store<u32>(state, page, TX_NEXT_PAGE);
  store<u32>(state, normal, TX_NORMAL);
  store<u32>(state, zero, TX_ZERO);
  store<u32>(state, xbzrle, TX_XBZRLE);
  store<u32>(state, unchanged, TX_UNCHANGED);
  store<u32>(state, xbzrleBytes, TX_XBZRLE_BYTES);
  store<u32>(state, misses, TX_CACHE_MISS);
  store<u32>(state, overflows, TX_OVERFLOW);
  store<u32>(state, listed, TX_LISTED);
  return <u32>(out - begin);
}
