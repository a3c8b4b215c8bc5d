import { type ByteReader, counted, need, type Parser } from '@wherry/bytes';
import type { StreamError } from '@wherry/stream';
import type { LiveFormat } from './live-format.ts';
import { liveInvalid } from './live-invalid.ts';
import { countOnes } from './mapped-ram.ts';
import type { DirtyBitmapModel, StreamModel } from './stream-model.ts';

const Flag = {
  eos: 0x01,
  zeroes: 0x02,
  bitmapName: 0x04,
  deviceName: 0x08,
  start: 0x10,
  complete: 0x20,
  bits: 0x40,
  extraFlags: 0x80,
} as const;
const StartFlag = { enabled: 1, persistent: 2 } as const;
const MAX_BITMAPS = 65_536;
/** What QEMU's reader takes at most. */
const MAX_CHUNK_BYTES = 10 * 1024;
const SECTOR_BYTES = 512;

/**
 * Makes the reader of a stream's `dirty-bitmap` sections, which adds to the model's bitmaps.
 *
 * @see dirty_bitmap_load in QEMU's migration/block-dirty-bitmap.c
 */
export function dirtyBitmapFormat(model: StreamModel): LiveFormat {
  // Names that a chunk leaves out are those of the chunk before, also across sections.
  const names = { node: '', bitmap: '' };
  const known = new Map<string, DirtyBitmapModel>();
  model.dirtyBitmaps ??= [];
  const bitmaps = model.dirtyBitmaps;
  return (reader) => readChunks(reader, bitmaps, known, names);
}

function* readChunks(
  reader: ByteReader,
  bitmaps: DirtyBitmapModel[],
  known: Map<string, DirtyBitmapModel>,
  names: { node: string; bitmap: string },
): Parser<boolean> {
  for (;;) {
    yield* need(reader, 1);
    const { offset } = reader;
    const flags = reader.u8();
    if ((flags & Flag.extraFlags) !== 0) {
      throw invalid('flags below 0x80', `0x${flags.toString(16)}`, offset);
    }
    if ((flags & Flag.deviceName) !== 0) names.node = yield* counted(reader);
    if ((flags & Flag.bitmapName) !== 0) names.bitmap = yield* counted(reader);
    const { node, bitmap: name } = names;
    const key = JSON.stringify([node, name]);
    if ((flags & Flag.start) !== 0) {
      yield* need(reader, 5);
      const granularityBytes = reader.u32();
      const start = reader.u8();
      if (bitmaps.length === MAX_BITMAPS) {
        throw invalid(`at most ${MAX_BITMAPS} bitmaps`, 'more', offset);
      }
      const started: DirtyBitmapModel = {
        node,
        name,
        granularityBytes,
        enabled: (start & StartFlag.enabled) !== 0,
        persistent: (start & StartFlag.persistent) !== 0,
        ...{ setBits: 0, coveredBytes: 0, isComplete: false, chunks: 0 },
      };
      bitmaps.push(started);
      known.set(key, started);
    } else if ((flags & (Flag.complete | Flag.bits)) !== 0) {
      const bitmap = known.get(key);
      if (bitmap === undefined) {
        const began = bitmaps.slice(0, 16).map((b) => `${b.node}/${b.name}`);
        const expected = `one of the bitmaps ${began.join(', ') || '(none began)'}`;
        throw invalid(expected, `${node}/${name}`, offset);
      }
      if ((flags & Flag.complete) !== 0) bitmap.isComplete = true;
      else yield* readBits(reader, bitmap, (flags & Flag.zeroes) !== 0);
    } else if ((flags & Flag.eos) === 0) {
      throw invalid('a start, bits, completion or the end', `0x${flags.toString(16)}`, offset);
    }
    if ((flags & Flag.eos) !== 0) return true;
  }
}

function* readBits(reader: ByteReader, bitmap: DirtyBitmapModel, isZero: boolean): Parser<void> {
  yield* need(reader, 12);
  reader.skip(8); // the first sector
  bitmap.coveredBytes += reader.u32() * SECTOR_BYTES;
  bitmap.chunks++;
  if (isZero) return;
  yield* need(reader, 8);
  const { offset } = reader;
  const size = reader.size();
  if (size > MAX_CHUNK_BYTES) throw invalid(`at most ${MAX_CHUNK_BYTES} bytes`, `${size}`, offset);
  for (let left = size; left > 0; ) {
    yield* need(reader, 1);
    const piece = reader.view(Math.min(left, reader.available));
    bitmap.setBits += countOnes(piece);
    left -= piece.length;
  }
}

function invalid(expected: string, found: string, offset: number): StreamError {
  return liveInvalid('dirty-bitmap', expected, found, offset);
}
