// The source's side: the encoder of page records.
//
// Record: be64 offset | flags, then (without CONTINUE) u8 length and the block's name, then one fill
// byte (ZERO) or 4096 bytes (PAGE).

import { clearBit, isSet, nextSet } from './bitmap';
import {
  ENTRY_DIRTY,
  ENTRY_FIRST_PAGE,
  ENTRY_NAME,
  ENTRY_NAME_BYTES,
  ENTRY_OWED,
  ENTRY_RAM,
  ENTRY_WRITTEN,
  TARGET_PAGE_BYTES,
  TARGET_PAGE_SHIFT,
  TX_NEXT_PAGE,
  TX_NORMAL,
  TX_ZERO,
} from './layout';
import { isZeroPage } from './zero';

const ZERO: u64 = 0x02;
const PAGE: u64 = 0x08;
const CONTINUE: u64 = 0x20;

// Takes a page's mark out of the dirty log, before the page is read: a write that the read does not
// see marks the page anew. The log is only read when it is synchronised; here a page is dealt with
// anyhow, so that the one atomic operation that it needs costs little beside it.
// @ts-ignore: decorator
@inline
function takeMark(dirty: usize, written: usize, page: u32): void {
  if (!isSet(dirty, page)) return;
  const at = (<usize>page >> 6) << 3;
  const bit = <u64>1 << (page & 63);
  atomic.and<u64>(dirty + at, ~bit);
  if (!isSet(written, page)) atomic.or<u64>(written + at, bit);
}

// Encodes the owed pages of [from, to) of a segment into [out, outEnd), as far as they fit, and
// clears their owed bits and dirty marks. Returns the bytes written; the state holds the rest.
//
// A page that was never written is zero, and is not read: memory that nobody touched stays untouched.
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
  const begin = out;
  let normal: u32 = 0;
  let zero: u32 = 0;
  let page = nextSet(owed, from, to);
  while (page < to) {
    const header: usize = named ? 8 : 9 + nameBytes;
    if (outEnd - out < header + TARGET_PAGE_BYTES) break;
    takeMark(dirty, written, page);
    const at = ram + ((<usize>page) << TARGET_PAGE_SHIFT);
    const isZero = findZeroPages && (!isSet(written, page) || isZeroPage(at));
    const word = ((firstPage + page) << TARGET_PAGE_SHIFT) | (isZero ? ZERO : PAGE);
    if (named) {
      store<u64>(out, bswap<u64>(word | CONTINUE));
    } else {
      store<u64>(out, bswap<u64>(word));
      store<u8>(out, <u8>nameBytes, 8);
      memory.copy(out + 9, entry + ENTRY_NAME, nameBytes);
      named = true;
    }
    out += header;
    if (isZero) {
      store<u8>(out, 0);
      out += 1;
      zero++;
    } else {
      memory.copy(out, at, TARGET_PAGE_BYTES);
      out += TARGET_PAGE_BYTES;
      normal++;
    }
    clearBit(owed, page);
    page = nextSet(owed, page + 1, to);
  }
  store<u32>(state, page, TX_NEXT_PAGE);
  store<u32>(state, normal, TX_NORMAL);
  store<u32>(state, zero, TX_ZERO);
  return <u32>(out - begin);
}
