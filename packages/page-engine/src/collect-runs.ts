import {
  ENTRY_BYTES,
  MAX_RUNS,
  type RamPlan,
  SENDER_PTR,
  TARGET_PAGE_BYTES,
  ZERO_RUN,
} from './layout.ts';
import type { OpenChunk, Run } from './ram-chunk.ts';

/**
 * Adds what is owed of a run to a chunk, as runs of pages as they lie in guest memory; the sender state
 * holds how far it came.
 * @returns the bytes of the pages that are not zero
 */
export function collectRuns(
  { tablePtr, runsPtr }: RamPlan,
  chunk: OpenChunk,
  { segment, page, end }: Run,
  findZeroPages: boolean,
): number {
  const { bank, block, plan } = segment;
  const count = bank.engine.collect(
    SENDER_PTR,
    tablePtr + block.index * ENTRY_BYTES,
    page,
    end,
    runsPtr,
    Math.max(MAX_RUNS - chunk.runs.length, 0),
    Math.floor((chunk.limitBytes - chunk.bytes) / TARGET_PAGE_BYTES),
    findZeroPages ? 1 : 0,
  );
  let bytes = 0;
  for (let i = 0; i < count; i++) {
    const at = (runsPtr >>> 2) + 2 * i;
    const first = bank.u32[at]!;
    const runEnd = bank.u32[at + 1]!;
    const isZero = runEnd >= ZERO_RUN;
    const pages = (isZero ? runEnd - ZERO_RUN : runEnd) - first;
    const ptr = plan.ptr + first * TARGET_PAGE_BYTES;
    const lengthBytes = pages * TARGET_PAGE_BYTES;
    const view = bank.bytes.subarray(ptr, ptr + lengthBytes);
    chunk.runs.push({ block, firstPage: plan.firstPage + first, pages, isZero, bytes: view });
    if (!isZero) bytes += lengthBytes;
  }
  return bytes;
}
