import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  ByteReader,
  BytesError,
  ByteWriter,
  collect,
  counted,
  need,
  type Parser,
  runParser,
  skip,
} from './index.ts';

function* item(reader: ByteReader): Parser<readonly unknown[]> {
  yield* need(reader, 15);
  const numbers = [reader.u8(), reader.u16(), reader.u32(), reader.i64()];
  const name = yield* counted(reader);
  yield* need(reader, 4);
  const blob = yield* collect(reader, reader.u32());
  return [...numbers, name, [...blob]];
}

describe('ByteReader', () => {
  it('reads what ByteWriter wrote, wherever the chunks are cut and however small its storage', () => {
    fc.assert(
      fc.property(
        fc.string({ maxLength: 60 }),
        fc.uint8Array({ maxLength: 300 }),
        fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        fc.boolean(),
        (name, blob, i64, cuts, fixed) => {
          const wire = new ByteWriter(1)
            .u8(0xab)
            .u16(0xcdef)
            .u32(0xdeadbeef)
            .u64(i64)
            .counted(name)
            .u32(blob.length)
            .raw(blob)
            .finish();
          const reader = new ByteReader(fixed ? { storage: new Uint8Array(512) } : {});
          const parser = item(reader);
          let step = parser.next();
          let at = 0;
          for (let i = 0; !step.done; i++) {
            const cut = wire.subarray(at, (at += cuts[i % cuts.length] ?? 1));
            expect(cut.length).toBeGreaterThan(0);
            reader.push(cut);
            step = parser.next();
          }
          expect(step.value).toEqual([0xab, 0xcdef, 0xdeadbeef, i64, name, [...blob]]);
          expect(reader.offset).toBe(wire.length);
        },
      ),
    );
  });

  it('says where an input ended that should go on, for every truncation', () => {
    const wire = new ByteWriter().u8(1).u16(2).u32(3).u64(4n).counted('abc').u32(2).u16(5).finish();
    for (let length = 0; length < wire.length; length++) {
      const reader = ByteReader.over(wire.subarray(0, length), 100);
      expect(() => runParser(item(reader), reader)).toThrow(
        expect.objectContaining({ code: 'UNEXPECTED_END', offset: 100 + length }),
      );
    }
  });

  it('keeps absolute offsets while it compacts', () => {
    const reader = new ByteReader({ storage: new Uint8Array(16) });
    for (let i = 0; i < 100; i++) {
      reader.push(Uint8Array.of(i, i, i, i, i));
      expect(reader.offset).toBe(i * 5);
      reader.skip(5);
    }
  });

  it('refuses to hold more than its limit', () => {
    const reader = new ByteReader({ maxBytes: 100 });
    reader.push(new Uint8Array(60));
    expect(() => reader.push(new Uint8Array(60))).toThrow(BytesError);
    expect(() => reader.push(new Uint8Array(60))).toThrow(/at most 100 bytes, found 120 bytes/);
  });

  it('refuses sizes that no number holds exactly, and names that are not text', () => {
    const reader = ByteReader.over(
      new ByteWriter()
        .u64(2n ** 60n)
        .u8(0xff)
        .finish(),
    );
    expect(() => reader.size()).toThrow(expect.objectContaining({ code: 'VALUE_OUT_OF_RANGE' }));
    expect(() => reader.text(1)).toThrow(expect.objectContaining({ code: 'NOT_TEXT', offset: 8 }));
  });
});

describe('skip', () => {
  it('passes over what arrives in any pieces, and over what is never read', () => {
    fc.assert(
      fc.property(
        fc.nat(500),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1 }),
        fc.boolean(),
        (count, pieces, isSeekable) => {
          const wire = new Uint8Array(count + 1);
          wire[count] = 7;
          const reader = new ByteReader({ storage: new Uint8Array(64) });
          const parser = (function* (): Parser<number> {
            yield* skip(reader, count);
            yield* need(reader, 1);
            return reader.u8();
          })();
          let step = parser.next();
          for (let at = 0, i = 0; !step.done; i++) {
            if (isSeekable && reader.unwantedBytes > 0) {
              const jump = Math.min(reader.unwantedBytes, pieces[i % pieces.length] ?? 1);
              reader.jump(jump);
              at += jump;
            }
            const piece = wire.subarray(at, at + (pieces[(i + 1) % pieces.length] ?? 1));
            at += piece.length;
            reader.push(piece);
            step = parser.next();
          }
          expect(step.value).toBe(7);
          expect(reader.unwantedBytes).toBe(0);
        },
      ),
    );
  });

  it('says where the input ends before', () => {
    expect(() =>
      runParser(
        skip(ByteReader.over(new Uint8Array(5), 100), 9),
        ByteReader.over(new Uint8Array(0)),
      ),
    ).toThrow(
      expect.objectContaining({ code: 'UNEXPECTED_END', offset: 105, expected: '4 more bytes' }),
    );
  });
});

describe('ByteWriter', () => {
  it('refuses a counted string over 255 bytes', () => {
    expect(() => new ByteWriter().counted('x'.repeat(256))).toThrow(/at most 255 bytes/);
  });

  it('patches a length in place', () => {
    const writer = new ByteWriter().u32(0).text('abcd');
    expect([...writer.patchU32(0, 4).finish()]).toEqual([0, 0, 0, 4, 97, 98, 99, 100]);
    expect(writer.length).toBe(0);
  });

  it('moves to another buffer with what is unread, and goes on there', () => {
    const reader = new ByteReader({ storage: new Uint8Array(8), offset: 100 });
    reader.push(Uint8Array.of(1, 2, 3, 4, 5));
    reader.skip(2);
    const other = new Uint8Array(8);
    reader.moveTo(other);
    expect([...other]).toEqual([3, 4, 5, 0, 0, 0, 0, 0]);
    expect([reader.offset, reader.available, reader.storage]).toEqual([102, 3, other]);
    reader.push(Uint8Array.of(6));
    expect([reader.u16(), reader.u16(), reader.offset]).toEqual([0x0304, 0x0506, 106]);
    expect([...other.subarray(0, 4)]).toEqual([3, 4, 5, 6]);
  });
});
