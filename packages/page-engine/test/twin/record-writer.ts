import {
  ENTRY_DIRTY,
  ENTRY_FIRST_PAGE,
  ENTRY_NAME,
  ENTRY_NAME_BYTES,
  ENTRY_OWED,
  ENTRY_RAM,
  ENTRY_WRITTEN,
  TX_CACHE,
  TX_CACHE_AGE,
  TX_CACHE_MISS,
  TX_CACHE_SLOTS,
  TX_LIST,
  TX_LIST_ROOM,
  TX_LISTED,
  TX_NEXT_PAGE,
  TX_NORMAL,
  TX_OVERFLOW,
  TX_UNCHANGED,
  TX_XBZRLE,
  TX_XBZRLE_BYTES,
  TX_ZERO,
} from '../../src/layout.ts';
import type { TwinBank } from './bank.ts';
import { decodeXbzrle, encodeXbzrle } from './xbzrle.ts';
import { TwinCache } from './xbzrle-cache.ts';
import { zeroTwin } from './zero.ts';

const CONTINUE = 0x20;
const FLAGS = { zero: 0x02, page: 0x08, xbzrle: 0x40 } as const;

/** What becomes of a page. */
type Content =
  | { readonly kind: 'zero' }
  | { readonly kind: 'unchanged' }
  | { readonly kind: 'page'; readonly from: number }
  | { readonly kind: 'xbzrle'; readonly changes: Uint8Array };

/** The writer of RAM records. */
export function recordWriterTwin(bank: TwinBank) {
  const { isZero } = zeroTwin(bank);

  return {
    encode(
      state: number,
      entry: number,
      named: number,
      from: number,
      to: number,
      out: number,
      outEnd: number,
      findZeroPages: number,
    ): number {
      const [dirty, owed, ram, written] = [ENTRY_DIRTY, ENTRY_OWED, ENTRY_RAM, ENTRY_WRITTEN].map(
        (field) => bank.u32(entry + field),
      ) as [number, number, number, number];
      const firstPage = bank.u32(entry + ENTRY_FIRST_PAGE);
      const nameBytes = bank.u32(entry + ENTRY_NAME_BYTES);
      const slots = bank.u32(state + TX_CACHE_SLOTS);
      const cache =
        slots === 0
          ? undefined
          : new TwinCache(bank, bank.u32(state + TX_CACHE), slots, bank.u32(state + TX_CACHE_AGE));
      const list = bank.u32(state + TX_LIST);
      const room = list === 0 ? Number.POSITIVE_INFINITY : bank.u32(state + TX_LIST_ROOM);
      const count = { normal: 0, zero: 0, xbzrle: 0, unchanged: 0, misses: 0, overflows: 0 };
      let [xbzrleBytes, listed] = [0, 0];

      const contentOf = (page: number): Content => {
        const ptr = ram + page * 4096;
        if (findZeroPages !== 0 && (!bank.has(written, page) || isZero(ptr))) {
          if (cache?.take(ptr)) bank.at(cache.slot(ptr)).fill(0);
          return { kind: 'zero' };
        }
        if (cache === undefined) return { kind: 'page', from: ptr };
        if (cache.holds(ptr)) {
          const changes = encodeXbzrle(bank.at(cache.slot(ptr)), bank.at(ptr));
          if (changes?.length === 0) return { kind: 'unchanged' };
          if (changes !== undefined) {
            decodeXbzrle(changes, bank.at(cache.slot(ptr)));
            return { kind: 'xbzrle', changes };
          }
          count.overflows++;
          xbzrleBytes += 4096;
        } else {
          count.misses++;
        }
        if (!cache.take(ptr)) return { kind: 'page', from: ptr };
        bank.at(cache.slot(ptr)).set(bank.at(ptr));
        return { kind: 'page', from: cache.slot(ptr) };
      };

      let isNamed = named !== 0;
      let at = out;
      let page = from;
      for (; page < to; page++) {
        if (!bank.has(owed, page)) continue;
        const header = isNamed ? 8 : 9 + nameBytes;
        if (outEnd - at < header + 4096 + (slots === 0 ? 0 : 3) || listed === room) break;
        if (bank.has(dirty, page)) bank.put(written, page, true);
        bank.put(dirty, page, false);
        bank.put(owed, page, false);
        const content = contentOf(page);
        if (content.kind === 'unchanged') {
          count.unchanged++;
          continue;
        }
        if (content.kind === 'page' && list !== 0) {
          bank.setU32(list + 4 * listed, page);
          listed++;
          continue;
        }
        const flags = FLAGS[content.kind] | (isNamed ? CONTINUE : 0);
        bank.setBe64(at, (BigInt(firstPage + page) << 12n) | BigInt(flags));
        if (!isNamed) {
          bank.bytes[at + 8] = nameBytes;
          bank.at(at + 9, nameBytes).set(bank.at(entry + ENTRY_NAME, nameBytes));
          isNamed = true;
        }
        at += header;
        if (content.kind === 'zero') {
          bank.bytes[at++] = 0;
          count.zero++;
        } else if (content.kind === 'page') {
          bank.at(at).set(bank.at(content.from));
          at += 4096;
          count.normal++;
        } else {
          const { changes } = content;
          bank.at(at, 3).set([1, changes.length >> 8, changes.length & 0xff]);
          bank.at(at + 3, changes.length).set(changes);
          at += 3 + changes.length;
          count.xbzrle++;
          xbzrleBytes += header - 8 + 3 + changes.length;
        }
      }
      for (const [field, value] of [
        [TX_NEXT_PAGE, page],
        [TX_NORMAL, count.normal],
        [TX_ZERO, count.zero],
        [TX_XBZRLE, count.xbzrle],
        [TX_UNCHANGED, count.unchanged],
        [TX_XBZRLE_BYTES, xbzrleBytes],
        [TX_CACHE_MISS, count.misses],
        [TX_OVERFLOW, count.overflows],
        [TX_LISTED, listed],
      ] as const) {
        bank.setU32(state + field, value);
      }
      return at - out;
    },
  };
}
