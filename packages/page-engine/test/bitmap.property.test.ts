import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { type Engine, engineModule, instantiateEngine } from '../src/engine-module.ts';
import { PageScanner } from '../src/index.ts';

const PAGES = 1100;
const BITMAP = 1024;
const OTHER = 2048;
const RUNS = 3072;

describe.each(['plain', 'shared'])('the bitmaps of the %s engine', (flavour) => {
  let engine: Engine;
  let bytes: Uint8Array;

  beforeAll(async () => {
    const shared = flavour === 'shared';
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared });
    engine = await instantiateEngine(await engineModule(shared), memory);
    bytes = new Uint8Array(memory.buffer);
  });

  const bits = fc.array(fc.boolean(), { minLength: PAGES, maxLength: PAGES });
  const sparse = fc
    .uniqueArray(fc.nat(PAGES - 1), { maxLength: 12 })
    .map((set) => Array.from({ length: PAGES }, (_, i) => set.includes(i)));
  const bitmap = fc.oneof(
    bits,
    sparse,
    sparse.map((set) => set.map((bit) => !bit)),
  );
  const range = fc
    .tuple(fc.nat(PAGES), fc.nat(PAGES))
    .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);

  function put(ptr: number, model: readonly boolean[]): void {
    bytes.fill(0, ptr, ptr + 192);
    model.forEach((bit, i) => {
      if (bit) bytes[ptr + (i >> 3)]! |= 1 << (i & 7);
    });
  }

  function get(ptr: number): boolean[] {
    // The bits beyond the last page too: they stay clear.
    const all = Array.from(
      { length: 1536 },
      (_, i) => ((bytes[ptr + (i >> 3)]! >> (i & 7)) & 1) === 1,
    );
    expect(all.slice(PAGES)).not.toContain(true);
    return all.slice(0, PAGES);
  }

  it('sets, clears and counts ranges', () => {
    fc.assert(
      fc.property(bitmap, range, (model, [from, to]) => {
        put(BITMAP, model);
        const count = model.slice(from, to).filter(Boolean).length;
        expect(engine.countSet(BITMAP, from, to)).toBe(count);
        engine.setRange(BITMAP, from, to);
        expect(get(BITMAP)).toEqual(model.map((bit, i) => bit || (i >= from && i < to)));
        put(BITMAP, model);
        expect(engine.clearRange(BITMAP, from, to)).toBe(count);
        expect(get(BITMAP)).toEqual(model.map((bit, i) => bit && !(i >= from && i < to)));
      }),
    );
  });

  it('adds a range of another bitmap', () => {
    fc.assert(
      fc.property(bitmap, bitmap, range, (a, b, [from, to]) => {
        put(BITMAP, a);
        put(OTHER, b);
        engine.addRange(BITMAP, OTHER, from, to);
        expect(get(BITMAP)).toEqual(a.map((bit, i) => bit || (b[i]! && i >= from && i < to)));
        expect(get(OTHER)).toEqual(b);
      }),
    );
  });

  it('finds the next set and the next clear bit', () => {
    fc.assert(
      fc.property(bitmap, range, (model, [from, to]) => {
        put(BITMAP, model);
        const find = (wanted: boolean): number => {
          const at = model.slice(from, to).indexOf(wanted);
          return at === -1 ? to : from + at;
        };
        expect(engine.nextSet(BITMAP, from, to)).toBe(find(true));
        expect(engine.nextClear(BITMAP, from, to)).toBe(find(false));
      }),
    );
  });

  it('lists runs, as many as there is room for', () => {
    const words = new Uint32Array(bytes.buffer);
    fc.assert(
      fc.property(bitmap, range, fc.integer({ min: 1, max: 400 }), (model, [from, to], most) => {
        put(BITMAP, model);
        const pages: number[] = [];
        for (let next = from; next < to; ) {
          const count = engine.findRuns(BITMAP, next, to, RUNS, most);
          expect(count).toBeLessThanOrEqual(most);
          for (let i = 0; i < count; i++) {
            const [first, end] = words.subarray((RUNS >> 2) + 2 * i, (RUNS >> 2) + 2 * i + 2);
            for (let page = first!; page < end!; page++) pages.push(page);
            next = end!;
            // A run is as long as can be.
            expect(end === to || !model[end!]).toBe(true);
          }
          if (count < most) break;
        }
        expect(pages).toEqual(model.flatMap((bit, i) => (bit && i >= from && i < to ? [i] : [])));
      }),
    );
  });

  it('adds a bitmap to another, counts what is new, and widens to host pages', () => {
    fc.assert(
      fc.property(bitmap, bitmap, fc.constantFrom(1, 2, 4, 100), (a, b, hostPages) => {
        put(BITMAP, a);
        put(OTHER, b);
        const added = engine.addNew(BITMAP, OTHER, PAGES);
        expect(added).toBe(b.filter((bit, i) => bit && !a[i]).length);
        expect(get(OTHER)).toEqual(b);
        const both = a.map((bit, i) => bit || b[i]!);
        expect(get(BITMAP)).toEqual(both);
        const perHost = hostPages === 100 ? 128 : hostPages;
        engine.widen(BITMAP, PAGES, perHost);
        const first = (i: number): number => i - (i % perHost);
        expect(get(BITMAP)).toEqual(
          both.map((_, i) => both.slice(first(i), first(i) + perHost).includes(true)),
        );
      }),
    );
  });
});

describe('PageScanner', () => {
  it('finds a single bit anywhere in a page', async () => {
    const scanner = await PageScanner.create(4 * 4096);
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(4 * 32768 - 1), { maxLength: 5 }), (set) => {
        scanner.buffer.fill(0);
        for (const bit of set) scanner.buffer[bit >> 3]! |= 1 << (bit & 7);
        const zero = [0, 1, 2, 3].filter((page) => !set.some((bit) => bit >> 15 === page));
        expect(scanner.scan()).toEqual({
          zeroPages: zero.length,
          bitmap: Uint8Array.of(zero.reduce((sum, page) => sum | (1 << page), 0)),
        });
      }),
    );
  });

  it('refuses part of a page and too large a capacity', async () => {
    const scanner = await PageScanner.create(8192);
    expect(() => scanner.scan(100)).toThrow(expect.objectContaining({ code: 'RANGE' }));
    expect(() => scanner.scan(12288)).toThrow(expect.objectContaining({ code: 'RANGE' }));
    await expect(PageScanner.create(2 ** 31)).rejects.toMatchObject({ code: 'BAD_OPTION' });
  });
});
