import { PageEngineError } from './errors.ts';
import type { RamBlock } from './ram-block.ts';
import type { SenderSegment } from './ram-chunk.ts';

/**
 * Makes a block's bitmap of what is owed the inverse of what was received, widened to whole host pages.
 * @returns by how many pages more is owed than before
 * @throws PageEngineError RANGE when the bitmap is too short
 */
export function oweMissing(
  segments: readonly SenderSegment[],
  block: RamBlock,
  received: Uint8Array,
): number {
  if (received.length * 8 < block.pageCount) {
    throw new PageEngineError(
      'RANGE',
      `a bitmap of ${received.length} bytes for the ${block.pageCount} pages of RAM block ${block.name}`,
      { block: block.name, lengthBytes: received.length },
    );
  }
  let more = 0;
  for (const { block: of, bank, plan, perHost } of segments) {
    if (of !== block) continue;
    const { owedPtr, firstPage, pages } = plan;
    more -= bank.engine.countSet(owedPtr, 0, pages);
    // Segments part at whole words of the bitmap.
    const from = firstPage / 8;
    const owed = bank.bytes.subarray(owedPtr, owedPtr + Math.ceil(pages / 8));
    for (let i = 0; i < owed.length; i++) owed[i] = ~received[from + i]!;
    bank.engine.clearRange(owedPtr, pages, owed.length * 8);
    bank.engine.widen(owedPtr, pages, perHost);
    more += bank.engine.countSet(owedPtr, 0, pages);
  }
  return more;
}
