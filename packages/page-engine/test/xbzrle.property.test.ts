import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { XbzrleCodec } from '../src/index.ts';
import { decodeXbzrle, encodeXbzrle } from './twin/xbzrle.ts';

const PAGE_BYTES = 4096;

interface Codec {
  encode(old: Uint8Array, page: Uint8Array): Uint8Array | undefined;
  /** @returns where the encoding is wrong, or -1 */
  decode(encoding: Uint8Array, page: Uint8Array): number;
}

const twin: Codec = { encode: encodeXbzrle, decode: decodeXbzrle };

async function engineCodec(): Promise<Codec> {
  const codec = await XbzrleCodec.create();
  return {
    encode: (old, page) => codec.encode(old, page),
    decode: (encoding, page) => {
      try {
        codec.decode(encoding, page);
        return -1;
      } catch (error) {
        expect(error).toMatchObject({ code: 'XBZRLE_INVALID' });
        return (error as { details: { position: number } }).details.position;
      }
    },
  };
}

function pageOf(seed: number): Uint8Array {
  const words = new Uint32Array(PAGE_BYTES / 4);
  for (let i = 0; i < words.length; i++) {
    words[i] = Math.imul(seed + i + 1, 0x9e3779b1);
  }
  return new Uint8Array(words.buffer);
}

/** A page and what becomes of it: runs of other bytes, some of which hold the old ones here and there. */
const pages = fc
  .record({
    seed: fc.nat(1000),
    runs: fc.array(
      fc.record({
        at: fc.oneof(fc.nat(PAGE_BYTES - 1), fc.constantFrom(0, 63, 64, 127, 128, 4095)),
        length: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 700 })),
        flip: fc.integer({ min: 1, max: 255 }),
        every: fc.constantFrom(1, 1, 1, 2, 5),
      }),
      { maxLength: 40 },
    ),
  })
  .map(({ seed, runs }) => {
    const old = pageOf(seed);
    const page = old.slice();
    for (const { at, length, flip, every } of runs) {
      for (let i = at; i < Math.min(at + length, PAGE_BYTES); i += every) page[i]! ^= flip;
    }
    return { old, page };
  });

const hostile = fc.oneof(
  fc.uint8Array({ maxLength: 40 }),
  fc
    .array(fc.constantFrom(0, 1, 2, 127, 128, 129, 255), { maxLength: 30 })
    .map((bytes) => Uint8Array.from(bytes)),
  pages.chain(({ old, page }) =>
    fc.record({ at: fc.nat(5000), by: fc.nat(255), cut: fc.nat(3) }).map(({ at, by, cut }) => {
      const encoding = twin.encode(old, page)?.slice() ?? new Uint8Array(5000);
      if (encoding.length > 0) encoding[at % encoding.length]! ^= by;
      return encoding.subarray(0, Math.max(0, encoding.length - cut));
    }),
  ),
);

describe.each(['engine', 'twin'])('XBZRLE, %s', (name) => {
  let codec: Codec;
  beforeAll(async () => {
    codec = name === 'twin' ? twin : await engineCodec();
  });

  it('encodes as the wire documents say', () => {
    const old = pageOf(1);
    const changed = (...at: number[]): Uint8Array => {
      const page = old.slice();
      for (const i of at) page[i] = old[i]! ^ 0xff;
      return page;
    };
    const bytes = (...at: number[]): number[] => at.map((i) => old[i]! ^ 0xff);
    const cases: [Uint8Array, number[]][] = [
      [changed(), []],
      [changed(0), [0x00, 0x01, ...bytes(0)]],
      [changed(1008), [0xf0, 0x07, 0x01, ...bytes(1008)]],
      [changed(4094, 4095), [0xfe, 0x1f, 0x02, ...bytes(4094, 4095)]],
      [changed(0, 1, 130), [0x00, 0x02, ...bytes(0, 1), 0x80, 0x01, 0x01, ...bytes(130)]],
    ];
    for (const [page, encoding] of cases) {
      expect([...codec.encode(old, page)!]).toEqual(encoding);
      const copy = old.slice();
      expect(codec.decode(Uint8Array.from(encoding), copy)).toBe(-1);
      expect(copy).toEqual(page);
    }
  });

  it('gives up where the encoding would be longer than a page', () => {
    const old = pageOf(2);
    const fresh = old.map((byte) => byte ^ 1);
    expect(codec.encode(old, fresh)).toBeUndefined(); // 3 bytes too long
    fresh.set(old.subarray(4093), 4093);
    expect(codec.encode(old, fresh)?.length).toBe(4096);
    const everyOther = old.map((byte, i) => byte ^ (i & 1));
    expect(codec.encode(old, everyOther)).toBeUndefined();
  });

  it('says where an encoding is wrong, and changes nothing', () => {
    const wrong: [number[], number][] = [
      [[1], 0], // no room for two lengths
      [[0x80, 0x80, 1, 9], 0], // a length of three bytes
      [[0, 0, 9], 1], // no byte changed
      [[0, 2, 9], 1], // one byte short
      [[0, 1, 9, 0, 1, 9], 3], // nothing unchanged but at the start
      [[0xff, 0x1f, 2, 9, 9], 2], // beyond the page's end
      [[0x81, 0x20, 1, 9], 0], // the same
      [[0, 1, 9, 5, 1], 4], // no byte left
    ];
    for (const [encoding, at] of wrong) {
      const page = pageOf(3);
      expect([encoding, codec.decode(Uint8Array.from(encoding), page)]).toEqual([encoding, at]);
      expect(page).toEqual(pageOf(3));
    }
    expect(codec.decode(new Uint8Array(), pageOf(3))).toBe(-1);
  });

  it('does as the other does', async () => {
    const other = name === 'twin' ? await engineCodec() : twin;
    fc.assert(
      fc.property(pages, ({ old, page }) => {
        const encoding = codec.encode(old, page);
        expect(encoding).toEqual(other.encode(old, page));
        if (encoding === undefined) return;
        const copy = old.slice();
        expect(codec.decode(encoding, copy)).toBe(-1);
        expect(Buffer.compare(copy, page)).toBe(0);
      }),
    );
    fc.assert(
      fc.property(hostile, (encoding) => {
        const [a, b] = [pageOf(4), pageOf(4)];
        expect(codec.decode(encoding, a)).toBe(other.decode(encoding, b));
        expect(Buffer.compare(a, b)).toBe(0);
      }),
      { numRuns: 400 },
    );
  });
});

describe('XbzrleCodec', () => {
  it('takes whole pages', async () => {
    const codec = await XbzrleCodec.create();
    const range = expect.objectContaining({ code: 'RANGE' });
    expect(() => codec.encode(new Uint8Array(4095), pageOf(1))).toThrow(range);
    expect(() => codec.decode(new Uint8Array(), new Uint8Array(8192))).toThrow(range);
    expect(() => codec.decode(new Uint8Array(4097), pageOf(1))).toThrow(/longer than a page/);
  });
});
