import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DirtyBitmap } from './dirty-bitmap.ts';

const SIZE = 20 * 1024 * 1024 + 100;
const ranges = fc.array(fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 300_000 })), {
  maxLength: 8,
});
const granularity = fc.constantFrom(512, 4096, 65_536);

/** One flag a granule of 512 bytes. */
function model(
  granularityBytes: number,
  writes: readonly (readonly [number, number])[],
): Uint8Array {
  const granules = new Uint8Array(Math.ceil(SIZE / 512));
  for (const [offset, length] of writes) {
    const start = offset - (offset % granularityBytes);
    const end = Math.ceil(Math.min(SIZE, offset + length) / granularityBytes) * granularityBytes;
    granules.fill(1, start / 512, end / 512);
  }
  return granules;
}

function modelOf(bitmap: DirtyBitmap): Uint8Array {
  const granules = new Uint8Array(Math.ceil(SIZE / 512));
  for (const [offset, end] of bitmap.dirtyRanges())
    granules.fill(1, offset / 512, Math.ceil(end / 512));
  return granules;
}

function bitmapWith(
  granularityBytes: number,
  writes: readonly (readonly [number, number])[],
): DirtyBitmap {
  const bitmap = new DirtyBitmap('b', SIZE, granularityBytes);
  for (const [offset, length] of writes) bitmap.written(offset, length);
  return bitmap;
}

test('the granules that writes touch are dirty, and no others', () => {
  fc.assert(
    fc.property(granularity, ranges, (granularityBytes, writes) => {
      const bitmap = bitmapWith(granularityBytes, writes);
      const expected = model(granularityBytes, writes);
      expect(Buffer.compare(modelOf(bitmap), expected)).toBe(0);
      for (const [offset] of writes) expect(bitmap.isDirty(offset)).toBe(true);
    }),
  );
});

test('bits that are copied piece by piece are the same, whatever was there', () => {
  fc.assert(
    fc.property(
      granularity,
      ranges,
      ranges,
      fc.integer({ min: 1, max: 3000 }),
      (granularityBytes, writes, before, piece) => {
        const from = bitmapWith(granularityBytes, writes);
        const to = bitmapWith(granularityBytes, before);
        for (let at = 0; at < from.lengthBytes; at += piece)
          to.setBytes(at, piece, from.bytesAt(at, piece));
        expect([...to.dirtyRanges()]).toEqual([...from.dirtyRanges()]);
        expect(to.dirtyBytes).toBe(from.dirtyBytes);
      },
    ),
  );
});

test('a merge is the union, across granularities', () => {
  fc.assert(
    fc.property(granularity, granularity, ranges, ranges, (a, b, writesA, writesB) => {
      const merged = bitmapWith(a, writesA);
      const other = bitmapWith(b, writesB);
      merged.merge(other);
      const both = [
        ...writesA,
        ...[...other.dirtyRanges()].map(([start, end]) => [start, end - start] as const),
      ];
      expect(Buffer.compare(modelOf(merged), model(a, both))).toBe(0);
    }),
  );
});

test('a successor records while the bitmap is away, and gives back what it has', () => {
  const bitmap = bitmapWith(4096, [[0, 1]]);
  bitmap.createSuccessor();
  bitmap.written(8192, 1);
  expect(bitmap).toMatchObject({ busy: true, recording: false });
  bitmap.enableSuccessor();
  bitmap.written(16_384, 1);
  expect([...bitmap.dirtyRanges()]).toEqual([[0, 4096]]);
  bitmap.reclaimSuccessor();
  expect(bitmap).toMatchObject({ busy: false, enabled: true });
  expect([...bitmap.dirtyRanges()]).toEqual([
    [0, 4096],
    [16_384, 20_480],
  ]);
});

test('bits behind the end of the disk are dropped', () => {
  const bitmap = new DirtyBitmap('b', 3 * 512, 512);
  bitmap.setBytes(0, 32, new Uint8Array(32).fill(0xff));
  expect(bitmap.dirtyBytes).toBe(3 * 512);
  bitmap.set(0, 1e9);
  expect([...bitmap.dirtyRanges()]).toEqual([[0, 1536]]);
});

test.each([0, 256, 513, 2 ** 32, Number.NaN])(
  'a granularity of %d is refused',
  (granularityBytes) => {
    expect(() => new DirtyBitmap('b', SIZE, granularityBytes)).toThrow(
      /power of 2 and at least 512/,
    );
  },
);
