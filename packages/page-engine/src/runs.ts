import type { Engine } from './engine-module.ts';
import { MAX_RUNS } from './layout.ts';

/**
 * Lists the runs of set bits in [from, to) of a bitmap: first page and end.
 * @param u32 views the engine's memory
 * @param runsPtr where there is room for MAX_RUNS runs, until the next step
 */
export function* listRuns(
  engine: Engine,
  u32: Uint32Array,
  runsPtr: number,
  bitmapPtr: number,
  from: number,
  to: number,
): Generator<[first: number, end: number]> {
  for (let next = from; next < to; ) {
    const count = engine.findRuns(bitmapPtr, next, to, runsPtr, MAX_RUNS);
    // Copied: another walk may use the room before the caller asks for the next run.
    const runs = u32.slice(runsPtr >>> 2, (runsPtr >>> 2) + 2 * count);
    for (let i = 0; i < runs.length; i += 2) yield [runs[i]!, runs[i + 1]!];
    next = count === MAX_RUNS ? runs.at(-1)! : to;
  }
}
