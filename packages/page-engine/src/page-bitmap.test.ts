import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { PageBitmap } from './page-bitmap.ts';

describe('PageBitmap', () => {
  it('does as a set of numbers does', async () => {
    const pages = 1500;
    const range = fc
      .tuple(fc.nat(pages), fc.nat(pages))
      .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
    const step = fc.record({ isSet: fc.boolean(), range });
    const bitmap = await PageBitmap.create(pages);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), range, (steps, [from, to]) => {
        bitmap.clear(0, pages);
        const model = new Set<number>();
        for (const { isSet, range: each } of steps) {
          if (isSet) bitmap.set(...each);
          else {
            const held = [...model].filter((page) => page >= each[0] && page < each[1]);
            expect(bitmap.clear(...each)).toBe(held.length);
          }
          for (let page = each[0]; page < each[1]; page++) {
            if (isSet) model.add(page);
            else model.delete(page);
          }
        }
        const inRange = [...model]
          .filter((page) => page >= from && page < to)
          .sort((a, b) => a - b);
        expect(bitmap.count(from, to)).toBe(inRange.length);
        expect(bitmap.nextSet(from, to)).toBe(inRange[0] ?? to);
        const listed: number[] = [];
        for (const [first, end] of bitmap.runs(from, to)) {
          expect(bitmap.nextClear(first, to)).toBe(end);
          for (let page = first; page < end; page++) listed.push(page);
        }
        expect(listed).toEqual(inRange);
      }),
      { numRuns: 60 },
    );
  });

  it('lists more runs than one call of the engine does', async () => {
    const bitmap = await PageBitmap.create(2 ** 24);
    for (let page = 1; page < 2 ** 24; page += 4099) bitmap.set(page);
    const runs = [...bitmap.runs()];
    expect(runs.length).toBe(bitmap.count());
    expect(runs.every(([first, end], i) => first === 1 + i * 4099 && end === first + 1)).toBe(true);
  });

  it('adds another, counts what is new, and keeps the bits behind the last page clear', async () => {
    const bitmap = await PageBitmap.create(12);
    bitmap.set(3);
    expect(bitmap.add(Uint8Array.of(0b1001, 0xff))).toBe(5);
    expect([...bitmap.bytes]).toEqual([0b1001, 0x0f]);
    expect(bitmap.has(8)).toBe(true);
    expect(bitmap.has(1)).toBe(false);
    expect(bitmap.nextSet(9, 9)).toBe(9);
  });

  it('refuses what lies outside', async () => {
    const bitmap = await PageBitmap.create(12);
    const range = expect.objectContaining({ code: 'RANGE' });
    expect(() => bitmap.set(12)).toThrow(range);
    expect(() => bitmap.has(-1)).toThrow(range);
    expect(() => bitmap.count(3, 2)).toThrow(range);
    expect(() => bitmap.runs(0, 13)).toThrow(range);
    expect(() => bitmap.add(new Uint8Array(3))).toThrow(range);
    for (const pages of [0, 1.5, 2 ** 31 + 1]) {
      await expect(PageBitmap.create(pages)).rejects.toMatchObject({ code: 'BAD_OPTION' });
    }
  });
});
