import { deflateSync, inflateSync } from 'node:zlib';
import { ByteReader, type ByteWriter, runParser } from '@wherry/bytes';
import {
  applyXbzrle,
  RamFlag,
  writeConfiguration,
  writeHeader,
  writeRamWord,
} from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { RamSink } from '../src/index.ts';
import { StreamWalk } from '../src/index.ts';
import { mappedRamFile } from './sections.ts';
import { SyntheticStream, smallStream, walk, walkInPieces } from './synthetic-stream.ts';

/** Puts a stream's RAM together in memory. */
class Memory implements RamSink {
  readonly blocks = new Map<string, Uint8Array>();

  begin({ name, usedBytes }: { readonly name: string; readonly usedBytes: number }): void {
    this.blocks.set(name, new Uint8Array(usedBytes));
  }
  page({ name }: { readonly name: string }, offset: number, bytes: Uint8Array): void {
    this.blocks.get(name)!.set(bytes, offset);
  }
  zero({ name }: { readonly name: string }, offset: number, lengthBytes: number): void {
    this.blocks.get(name)!.fill(0, offset, offset + lengthBytes);
  }
  xbzrle(
    { name }: { readonly name: string },
    offset: number,
    lengthBytes: number,
    encoded: Uint8Array,
    at: number,
  ): void {
    const page = this.blocks.get(name)!.subarray(offset, offset + lengthBytes);
    applyXbzrle(page, encoded, lengthBytes, { offset: at, path: [name] });
  }
  compressed(
    { name }: { readonly name: string },
    offset: number,
    lengthBytes: number,
    packed: Uint8Array,
  ): void {
    const bytes = inflateSync(packed);
    expect(bytes.length).toBe(lengthBytes);
    this.blocks.get(name)!.set(bytes, offset);
  }
}

function memoryOf(bytes: Uint8Array): Map<string, Uint8Array> {
  const ramSink = new Memory();
  const reader = ByteReader.over(bytes);
  runParser(new StreamWalk({ ramSink }).walkFile(reader), reader);
  return ramSink.blocks;
}

function page(fill: number): Uint8Array {
  return new Uint8Array(4096).fill(fill);
}

describe('the contents of RAM', () => {
  test('are those of the last record of each page, of whatever kind', () => {
    const compressed = deflateSync(page(5));
    const bytes = new SyntheticStream()
      .begin()
      .ramStart([{ name: 'm', usedBytes: 0x6000 }])
      .ramPart('part', (w) => {
        for (let i = 0; i < 5; i++) {
          writeRamWord(w, i * 4096, i === 0 ? RamFlag.page : RamFlag.page | RamFlag.continue);
          if (i === 0) w.counted('m');
          w.raw(page(i + 1));
        }
      })
      .ramPart('end', (w) => {
        writeRamWord(w, 0x1000, RamFlag.zero | RamFlag.continue);
        w.u8(0);
        writeRamWord(w, 0x2000, RamFlag.xbzrle | RamFlag.continue);
        w.u8(1)
          .u16(5)
          .raw(Uint8Array.of(2, 3, 7, 8, 9));
        writeRamWord(w, 0x3000, RamFlag.page | RamFlag.continue);
        w.raw(page(0xee));
        writeRamWord(w, 0x5000, RamFlag.compressPage | RamFlag.continue);
        w.u32(compressed.length).raw(compressed);
      })
      .end();
    const changed = page(3);
    changed.set([7, 8, 9], 2);
    const expected = [page(1), page(0), changed, page(0xee), page(5), page(5)];
    const found = memoryOf(bytes).get('m')!;
    for (const [i, each] of expected.entries()) {
      expect(found.subarray(i * 4096, (i + 1) * 4096), `page ${i}`).toEqual(each);
    }
  });

  test('are the same in whatever pieces the stream arrives', () => {
    const bytes = smallStream();
    const whole = memoryOf(bytes);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1 }), (sizes) => {
        const ramSink = new Memory();
        walkInPieces(bytes, sizes, 1024, { ramSink });
        expect(ramSink.blocks).toEqual(whole);
      }),
      { numRuns: 20 },
    );
  });

  test.each(['little', 'big'] as const)(
    'of a mapped-ram file are found by a %s-endian bitmap',
    (order) => {
      const found = memoryOf(mappedRamFile(order)).get('m')!;
      for (const [i, fill] of [0, 1, 2, 0, 4].entries()) {
        expect(found.subarray(i * 4096, (i + 1) * 4096), `page ${i}`).toEqual(page(fill));
      }
    },
  );

  test('with an XBZRLE page that cannot be are refused, also when nobody wants them', () => {
    const bytes = new SyntheticStream()
      .begin()
      .ramStart([{ name: 'm', usedBytes: 0x1000 }])
      .ramPart('end', (w) => {
        writeRamWord(w, 0, RamFlag.xbzrle);
        w.counted('m')
          .u8(1)
          .u16(3)
          .raw(Uint8Array.of(0, 9, 1));
      })
      .end();
    expect(() => walk(bytes)).toThrow(
      expect.objectContaining({ code: 'XBZRLE_INVALID', path: ['ram', 'm', 'page 0x0'] }),
    );
  });

  test('with a zero page that is not zero are refused', () => {
    for (const flag of [0, RamFlag.continue]) {
      const bytes = new SyntheticStream()
        .begin()
        .ramStart([{ name: 'm', usedBytes: 0x2000 }])
        .ramPart('end', (w) => {
          writeRamWord(w, 0, RamFlag.page);
          w.counted('m').raw(page(1));
          writeRamWord(w, 0x1000, RamFlag.zero | flag);
          if (flag === 0) w.counted('m');
          w.u8(3);
        })
        .end();
      expect(() => walk(bytes)).toThrow(
        expect.objectContaining({ code: 'RAM_RECORD_INVALID', found: '3' }),
      );
    }
  });
});

describe('the size of a target page', () => {
  const sizes = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] as const;

  /** A stream of two pages that does not state their size. */
  function stream(
    pageBytes: number,
    second: (writer: ByteWriter) => void,
    first = 7,
  ): Uint8Array<ArrayBuffer> {
    return new SyntheticStream()
      .begin()
      .ramStart([
        { name: 'ram.first', usedBytes: pageBytes * 4 },
        { name: 'b', usedBytes: pageBytes * 4 },
      ])
      .ramPart('part', (w) => {
        writeRamWord(w, 0, RamFlag.page);
        w.counted('ram.first').raw(new Uint8Array(pageBytes).fill(first));
        second(w);
      })
      .ramPart('end')
      .end({ page_size: pageBytes, devices: [] });
  }

  const seconds: readonly (readonly [string, (pageBytes: number) => (w: ByteWriter) => void])[] = [
    ['nothing', () => () => {}],
    [
      'a page of the same block',
      (size) => (w) => {
        writeRamWord(w, size, RamFlag.page | RamFlag.continue);
        w.raw(new Uint8Array(size).fill(9));
      },
    ],
    [
      'a zero page of another block',
      (size) => (w) => {
        writeRamWord(w, size * 3, RamFlag.zero);
        w.counted('b').u8(0);
      },
    ],
    ['a multifd flush', () => (w) => writeRamWord(w, 0, RamFlag.multifdFlush)],
  ];

  test.each(seconds)('is what the first page has before %s', (_, second) => {
    for (const size of sizes) {
      for (const fill of [0, 7, 0x28]) {
        const { model } = walk(stream(size, second(size), fill));
        expect(model.ram?.targetPageBytes, `${size}`).toBe(size);
        expect(model.ram?.blocks[0]?.pages.page).toBeGreaterThan(0);
      }
    }
  });

  test('is taken as stated where it is stated', () => {
    const writer = new SyntheticStream().writer;
    writeHeader(writer);
    writeConfiguration(writer, { machineType: 'virt', targetPageBits: 16 });
    const stated = new SyntheticStream();
    stated.writer.raw(writer.finish());
    const bytes = stated
      .ramStart([{ name: 'm', usedBytes: 0x2_0000 }])
      .ramPart('end', (w) => {
        writeRamWord(w, 0, RamFlag.page);
        w.counted('m').raw(new Uint8Array(65_536));
      })
      .end();
    expect(walkInPieces(bytes, [900]).model.ram).toMatchObject({
      targetPageBytes: 65_536,
      blocks: [{ pages: { page: 1 } }],
    });
  });

  test('comes from the vmdesc where there are only zero pages', () => {
    const bytes = new SyntheticStream()
      .begin()
      .ramStart([{ name: 'm', usedBytes: 0x8000 }])
      .ramPart('end', (w) => {
        writeRamWord(w, 0x2000, RamFlag.zero);
        w.counted('m').u8(0);
      })
      .end({ page_size: 8192, devices: [] });
    expect(walk(bytes).model.ram?.targetPageBytes).toBe(8192);
  });
});

test('a page at a crooked address is refused', () => {
  const bytes = new SyntheticStream()
    .beginPostcopy()
    .ramStart([{ name: 'm', usedBytes: 0x8000 }])
    .ramPart('end', (w) => {
      writeRamWord(w, 0x400, RamFlag.zero);
      w.counted('m').u8(0);
    })
    .end();
  expect(() => walk(bytes)).toThrow(expect.objectContaining({ code: 'RAM_RECORD_INVALID' }));
});
