import type { GuestRam } from './guest-ram.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';
import type { RamBlock } from './ram-block.ts';
import { listRuns } from './runs.ts';

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
      const { engine, u32 } = ram.banks[bank]!;
      for (const [start, end] of listRuns(engine, u32, ram.plan.runsPtr, owedPtr, 0, pages)) {
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
