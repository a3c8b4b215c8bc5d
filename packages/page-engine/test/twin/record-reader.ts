import {
  DECODE_FILL,
  DECODE_FOREIGN,
  DECODE_NEED_MORE,
  DECODE_NO_BLOCK,
  DECODE_OUT_OF_RANGE,
  DECODE_RECORD,
  DECODE_UNKNOWN_BLOCK,
  DECODE_XBZRLE_DATA,
  DECODE_XBZRLE_ENCODING,
  DECODE_XBZRLE_LENGTH,
  DECODE_XBZRLE_MISSING,
  ENTRY_BLOCK_PAGES,
  ENTRY_BYTES,
  ENTRY_FIRST_PAGE,
  ENTRY_NAME,
  ENTRY_NAME_BYTES,
  ENTRY_PAGES,
  ENTRY_RAM,
  ENTRY_RECEIVED,
  ENTRY_WRITTEN,
  RX_BLOCK,
  RX_EXPECTED,
  RX_LAST,
  RX_NEEDED,
  RX_NORMAL,
  RX_OTHER,
  RX_PLACED,
  RX_POSITION,
  RX_POSTCOPY,
  RX_WORD,
  RX_WORD_BLOCK,
  RX_XBZRLE,
  RX_ZERO,
  SLOT_BLOCK,
  SLOT_BYTES,
  SLOT_PAGE,
  SLOT_STATE,
  SLOTS_PTR,
} from '../../src/layout.ts';
import type { TwinBank } from './bank.ts';
import { TwinGatherer } from './host-page-gatherer.ts';
import { decodeXbzrle } from './xbzrle.ts';

const [ZERO, PAGE, CONTINUE, XBZRLE] = [0x02, 0x08, 0x20, 0x40] as const;

/** Where the reader stopped. */
interface Stop {
  readonly status: number;
  readonly needed?: number;
  readonly expected?: number;
}

/** The reader of RAM records. */
export function recordReaderTwin(bank: TwinBank) {
  const wake = (slots: number, isDue: (block: number, page: number) => boolean): void => {
    for (let slot = SLOTS_PTR; slot < SLOTS_PTR + slots * SLOT_BYTES; slot += SLOT_BYTES) {
      if (bank.u32(slot + SLOT_STATE) !== 1) continue;
      if (!isDue(bank.u32(slot + SLOT_BLOCK), bank.u32(slot + SLOT_PAGE))) continue;
      bank.setU32(slot + SLOT_STATE, 0); // nobody waits in the tests of the twin
    }
  };

  return {
    wakeAll: (slots: number): void => wake(slots, () => true),

    decode(
      state: number,
      table: number,
      blocks: number,
      slots: number,
      start: number,
      end: number,
    ): number {
      const postcopy = bank.u32(state + RX_POSTCOPY) !== 0;
      const gatherer = new TwinGatherer(bank, state, bank.u32(state + RX_OTHER));
      const count = { normal: 0, zero: 0, xbzrle: 0, placed: 0 };
      let current = bank.u32(state + RX_BLOCK);
      let position = start;
      let last = 0;
      let word = 0n;
      let block = 0;

      /** The number of the block of a name, from 1. */
      const findBlock = (name: Uint8Array): number => {
        for (let i = 0; i < blocks; i++) {
          const entry = table + i * ENTRY_BYTES;
          const known = bank.at(entry + ENTRY_NAME, bank.u32(entry + ENTRY_NAME_BYTES));
          if (known.length === name.length && known.every((byte, at) => byte === name[at])) {
            return i + 1;
          }
        }
        return 0;
      };

      /** Loads one record. */
      const loadNext = (): Stop | undefined => {
        const room = end - position;
        const more = (needed: number): Stop => ({ status: DECODE_NEED_MORE, needed });
        block = 0;
        if (room < 8) return more(8);
        word = bank.be64(position);
        const flags = Number(word & 0xfffn);
        const kind = flags & ~CONTINUE;
        const isPage = kind === PAGE || kind === ZERO || (kind === XBZRLE && !postcopy);
        if (!isPage) return { status: DECODE_RECORD };
        let at = 8;
        if ((flags & CONTINUE) !== 0) {
          if (current === 0) return { status: DECODE_NO_BLOCK };
          block = current;
        } else {
          if (room < 9) return more(9);
          at = 9 + bank.bytes[position + 8]!;
          if (room < at) return more(at);
          block = findBlock(bank.at(position + 9, at - 9));
          if (block === 0) return { status: DECODE_UNKNOWN_BLOCK };
        }
        const entry = table + (block - 1) * ENTRY_BYTES;
        const blockPage = word >> 12n;
        if (blockPage >= BigInt(bank.u32(entry + ENTRY_BLOCK_PAGES))) {
          return { status: DECODE_OUT_OF_RANGE };
        }
        const content = position + at;
        let bodyBytes = kind === PAGE ? 4096 : 1;
        if (kind === XBZRLE) {
          bodyBytes = 3;
          if (room >= at + 3) {
            if (bank.bytes[content] !== 1) return { status: DECODE_XBZRLE_ENCODING };
            const length = bank.bytes[content + 1]! * 256 + bank.bytes[content + 2]!;
            if (length > 4096) return { status: DECODE_XBZRLE_LENGTH };
            bodyBytes += length;
          }
        }
        if (room < at + bodyBytes) return more(at + bodyBytes);
        const page = Number(blockPage) - bank.u32(entry + ENTRY_FIRST_PAGE);
        const disorder = gatherer.checkOrder(block, page);
        if (disorder !== undefined) return disorder;
        if (page < 0 || page >= bank.u32(entry + ENTRY_PAGES)) return { status: DECODE_FOREIGN };
        if (kind === ZERO && bank.bytes[content] !== 0) return { status: DECODE_FILL };

        const received = bank.u32(entry + ENTRY_RECEIVED);
        const written = bank.u32(entry + ENTRY_WRITTEN);
        const memory = bank.at(bank.u32(entry + ENTRY_RAM) + page * 4096);
        if (kind === XBZRLE) {
          if (!bank.has(received, page)) return { status: DECODE_XBZRLE_MISSING };
          const wrongAt = decodeXbzrle(bank.at(content + 3, bodyBytes - 3), memory);
          if (wrongAt >= 0) return { status: DECODE_XBZRLE_DATA, expected: wrongAt };
          bank.put(written, page, true);
          count.xbzrle++;
        } else {
          const refusal = postcopy ? gatherer.checkBegin(block, page, entry) : undefined;
          if (refusal !== undefined) return refusal;
          if (kind === PAGE) {
            memory.set(bank.at(content));
            last = memory.byteOffset;
            count.normal++;
          } else {
            memory.fill(0);
            count.zero++;
          }
          bank.put(written, page, kind === PAGE);
          if (!postcopy) bank.put(received, page, true);
          else {
            const whole = gatherer.add(block, page, entry);
            if (whole !== undefined) {
              const [first, hostEnd] = whole;
              wake(slots, (b, p) => b === block - 1 && p >= first && p < hostEnd);
              count.placed++;
            }
          }
        }
        current = block;
        position += at + bodyBytes;
        return undefined;
      };

      let stop = loadNext();
      while (stop === undefined) stop = loadNext();
      bank.setU64(state + RX_WORD, word);
      for (const [field, value] of [
        [RX_BLOCK, current],
        [RX_POSITION, position],
        [RX_NEEDED, stop.needed ?? 0],
        [RX_WORD_BLOCK, block],
        [RX_EXPECTED, stop.expected ?? 0],
        [RX_NORMAL, count.normal],
        [RX_ZERO, count.zero],
        [RX_XBZRLE, count.xbzrle],
        [RX_PLACED, count.placed],
        [RX_LAST, last],
      ] as const) {
        bank.setU32(state + field, value);
      }
      return stop.status;
    },
  };
}
