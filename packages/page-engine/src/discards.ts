import type { Bank } from './bank.ts';
import type { GuestRam } from './guest-ram.ts';
import { MAX_RUNS, TARGET_PAGE_BYTES } from './layout.ts';
import type { RamBlock } from './ram-block.ts';

/** Caps a list of ranges, as QEMU does for one command. */
const MAX_DISCARD_RANGES = 12;

/** Lists ranges of a block that the destination must forget. */
export interface RamDiscard {
  readonly block: RamBlock;
  /** Pairs of start and length in bytes, ascending, at most 12. */
  readonly ranges: readonly (readonly [number, number])[];
}

/** Lists what is owed as ascending ranges of each block. */
export function* listDiscards(ram: GuestRam): Generator<RamDiscard> {
  for (const block of ram.blocks) {
    let ranges: [number, number][] = [];
    for (const { bank, owedPtr, firstPage, pages } of block.segments) {
      for (const [start, end] of listRuns(ram.banks[bank]!, ram.plan.runsPtr, owedPtr, pages)) {
        const startBytes = (firstPage + start) * TARGET_PAGE_BYTES;
        const lengthBytes = (end - start) * TARGET_PAGE_BYTES;
        const last = ranges.at(-1);
        if (last !== undefined && last[0] + last[1] === startBytes) {
          // The range goes on across a bank's end.
          last[1] += lengthBytes;
          continue;
        }
        if (ranges.length === MAX_DISCARD_RANGES) {
          yield { block, ranges };
          ranges = [];
        }
        ranges.push([startBytes, lengthBytes]);
      }
    }
    if (ranges.length > 0) yield { block, ranges };
  }
}

/** Lists the runs of set bits of a bitmap's first `pages`: first page and end. */
function* listRuns(
  bank: Bank,
  runsPtr: number,
  bitmapPtr: number,
  pages: number,
): Generator<readonly [number, number]> {
  for (let from = 0; from < pages; ) {
    const count = bank.engine.findRuns(bitmapPtr, from, pages, runsPtr, MAX_RUNS);
    // Copied: the list's place is used again before the caller may ask for the next.
    const runs = bank.u32.slice(runsPtr >>> 2, (runsPtr >>> 2) + 2 * count);
    for (let i = 0; i < runs.length; i += 2) yield [runs[i]!, runs[i + 1]!];
    from = count === MAX_RUNS ? runs.at(-1)! : pages;
  }
}
