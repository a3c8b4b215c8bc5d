import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { applyXbzrle, StreamError } from '../src/index.ts';

const place = { offset: 100, path: ['ram', 'pc.ram'] };

/** Encodes the change from one page to another as QEMU's source does. */
function encode(old: Uint8Array, now: Uint8Array): Uint8Array {
  const encoded: number[] = [];
  const length = (n: number): void => {
    if (n < 128) encoded.push(n);
    else encoded.push((n & 127) | 128, n >> 7);
  };
  for (let at = 0; ; ) {
    const start = at;
    while (at < now.length && old[at] === now[at]) at++;
    if (at === now.length) return Uint8Array.from(encoded);
    length(at - start);
    const changed = at;
    while (at < now.length && old[at] !== now[at]) at++;
    length(at - changed);
    encoded.push(...now.subarray(changed, at));
  }
}

describe('XBZRLE', () => {
  test.each<[string, number[], (page: Uint8Array) => void]>([
    ['the first byte', [0x00, 0x01, 0xaa], (page) => page.fill(0xaa, 0, 1)],
    ['byte 1008', [0xf0, 0x07, 0x01, 0xaa], (page) => page.fill(0xaa, 1008, 1009)],
    ['two runs', [0x01, 0x02, 5, 6, 0x80, 0x01, 0x01, 7], (page) => page.set([5, 6], 1)],
    ['nothing', [], () => {}],
  ])('changes %s', (name, encoded, change) => {
    const page = new Uint8Array(4096).fill(0x11);
    const expected = page.slice();
    change(expected);
    if (name === 'two runs') expected[3 + 128] = 7;
    applyXbzrle(page, Uint8Array.from(encoded), 4096, place);
    expect(page).toEqual(expected);
  });

  test('gives the new page for any two', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 4096, maxLength: 4096 }),
        fc.array(fc.tuple(fc.nat(4095), fc.nat(255)), { maxLength: 300 }),
        (old, changes) => {
          const now = old.slice();
          for (const [at, value] of changes) now[at] = value;
          const page = old.slice();
          applyXbzrle(page, encode(old, now), 4096, place);
          expect(page).toEqual(now);
        },
      ),
      { numRuns: 100 },
    );
  });

  test.each<[string, number[], number]>([
    ['a single byte', [0x01], 100],
    ['no new bytes', [0x00, 0x00], 101],
    ['new bytes that are missing', [0x00, 0x05, 1, 2], 102],
    ['nothing between two changes', [0x00, 0x01, 9, 0x00, 0x01, 9], 103],
    ['a change behind the page', [0x80, 0x20, 0x01, 9], 100],
    ['a length of more than 14 bits', [0x80, 0x80, 0x01, 9], 101],
  ])('with %s is refused where it is wrong', (_, encoded, offset) => {
    for (const page of [new Uint8Array(4096), undefined]) {
      expect(() => applyXbzrle(page, Uint8Array.from(encoded), 4096, place)).toThrow(
        expect.objectContaining({ code: 'XBZRLE_INVALID', offset, path: place.path }),
      );
    }
  });

  test('of any bytes ends in a page or in one error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (encoded) => {
        const page = new Uint8Array(1024);
        try {
          applyXbzrle(page, encoded, page.length, place);
        } catch (error) {
          expect(error).toBeInstanceOf(StreamError);
        }
      }),
      { numRuns: 1000 },
    );
  });
});
