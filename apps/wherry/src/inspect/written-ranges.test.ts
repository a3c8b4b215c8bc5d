import fc from 'fast-check';
import { expect, test } from 'vitest';
import { WrittenRanges } from './written-ranges.ts';

const KIB = 1024;

test('lists what was written, joined', () => {
  const ranges = new WrittenRanges();
  ranges.add(4 * KIB, 8 * KIB);
  ranges.add(8 * KIB, 9 * KIB);
  ranges.add(2 ** 45, 2 ** 45 + KIB);
  expect([...ranges.within(0, 16 * KIB)]).toEqual([[4 * KIB, 9 * KIB]]);
  expect([...ranges.within(5 * KIB, 6 * KIB)]).toEqual([[5 * KIB, 6 * KIB]]);
  expect([...ranges.within(2 ** 45 - 2 ** 30, 2 ** 45 + 2 ** 30)]).toEqual([
    [2 ** 45, 2 ** 45 + KIB],
  ]);
});

test('agrees with a list of granules', () => {
  const range = fc
    .tuple(fc.nat(20_000), fc.nat(40))
    .map(([start, count]) => [start * KIB, (start + count) * KIB] as const);
  fc.assert(
    fc.property(fc.array(range, { maxLength: 20 }), range, (added, [start, end]) => {
      const ranges = new WrittenRanges();
      const granules = new Set<number>();
      for (const [from, to] of added) {
        ranges.add(from, to);
        for (let at = from; at < to; at += KIB) granules.add(at);
      }
      const found: number[] = [];
      for (const [from, to] of ranges.within(start, end)) {
        for (let at = from; at < to; at += KIB) found.push(at);
      }
      const expected = [...granules].filter((at) => at >= start && at < end);
      expect(found).toEqual(expected.sort((a, b) => a - b));
    }),
  );
});
