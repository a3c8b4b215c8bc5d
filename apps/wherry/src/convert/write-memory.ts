import type { StoredGuest } from '@wherry/snapshot';
import { BatchedWrites } from '../ram/batched-writes.ts';
import type { MemorySegment } from './memory-map.ts';
import type { Pace } from './pace.ts';

const RUN_BYTES = 1024 * 1024;

/** A segment, and where it goes in the file. */
export interface PlacedSegment extends MemorySegment {
  readonly fileOffset: number;
}

/** Writes memory into a file; pages of zeros stay holes. */
export async function writeMemory(
  fd: number,
  guest: StoredGuest,
  segments: readonly PlacedSegment[],
  pace: Pace,
): Promise<void> {
  const writes = new BatchedWrites();
  for (const { block, offset, lengthBytes, fileOffset } of segments) {
    for (const run of runsOf(guest, block, offset, lengthBytes)) {
      writes.write(fd, run.bytes, fileOffset + run.offset - offset);
      await pace.wrote(run.bytes.length);
    }
  }
  writes.flush();
}

/**
 * Reads the pages of a range of a block that are not zero, in order.
 *
 * @returns offsets in the block, each with at most 1 MiB of bytes: a view until the next one is asked for
 */
export function* runsOf(
  guest: StoredGuest,
  block: number,
  offset: number,
  lengthBytes: number,
): Generator<{ readonly offset: number; readonly bytes: Uint8Array }> {
  const { ram, targetPageBytes } = guest;
  const buffer = new Uint8Array(Math.max(RUN_BYTES, targetPageBytes));
  const most = buffer.length / targetPageBytes;
  const end = offset + lengthBytes;
  for (let page = Math.floor(offset / targetPageBytes); page * targetPageBytes < end; ) {
    const left = Math.ceil(end / targetPageBytes) - page;
    const run = ram.runLength(block, page, left);
    if (run < 0) {
      page -= run;
      continue;
    }
    const count = Math.min(run, most);
    ram.read(block, page, count, buffer, targetPageBytes);
    const start = page * targetPageBytes;
    const first = Math.max(offset, start);
    const last = Math.min(end, start + count * targetPageBytes);
    yield { offset: first, bytes: buffer.subarray(first - start, last - start) };
    page += count;
  }
}
