import { deflateSync, inflateSync } from 'node:zlib';
import { ByteReader, runParser } from '@wherry/bytes';
import { RamFlag, writeRamWord } from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  RamIndex,
  type RandomAccess,
  type Scratch,
  StoredGuest,
  StreamWalk,
} from '../src/index.ts';
import { libvirtImage, mappedRamFile } from './sections.ts';
import { SyntheticStream, smallStream } from './synthetic-stream.ts';

const PAGE = 4096;
const PAGES = 1100; // more than one chunk of the table

function access(bytes: Uint8Array): RandomAccess {
  return {
    sizeBytes: bytes.length,
    read: (into, offset) => {
      const piece = bytes.subarray(offset, offset + into.length);
      into.set(piece);
      return piece.length;
    },
  };
}

function scratch(): Scratch {
  const bytes = new Uint8Array(PAGE * PAGES);
  return { ...access(bytes), write: (piece, offset) => bytes.set(piece, offset) };
}

function open(bytes: Uint8Array): { guest: StoredGuest; walk: StreamWalk } {
  const file = access(bytes);
  const ramSink = new RamIndex(file, {
    scratch,
    inflate: (packed, maxOutputLength) => inflateSync(packed, { maxOutputLength }),
  });
  const walk = new StreamWalk({ ramSink });
  const reader = ByteReader.over(bytes);
  runParser(walk.walkFile(reader), reader);
  return { guest: new StoredGuest(walk.model, ramSink, file), walk };
}

/** Reads a block in runs of at most so many pages, with room for a word between the pages. */
function contents(
  guest: StoredGuest,
  block: number,
  most: number,
  strideBytes: number,
): Uint8Array {
  const pages = guest.blocks[block]!.usedBytes / PAGE;
  const bytes = new Uint8Array(pages * PAGE);
  const room = new Uint8Array(most * strideBytes);
  for (let page = 0; page < pages; ) {
    const run = guest.ram.runLength(block, page, Math.min(most, pages - page));
    expect(run).not.toBe(0);
    if (run > 0) {
      guest.ram.read(block, page, run, room, strideBytes);
      for (let i = 0; i < run; i++) {
        bytes.set(room.subarray(i * strideBytes, i * strideBytes + PAGE), (page + i) * PAGE);
      }
    }
    page += Math.abs(run);
  }
  return bytes;
}

type Step = readonly [kind: 'page' | 'zero' | 'xbzrle' | 'compress', page: number, fill: number];

const steps = fc.array(
  fc.tuple(
    fc.constantFrom('page', 'page', 'page', 'zero', 'xbzrle', 'compress' as const),
    // Neighbours, so that there are runs, and the two ends of a chunk of the table.
    fc.oneof(fc.integer({ min: 505, max: 520 }), fc.integer({ min: 0, max: PAGES - 1 })),
    fc.integer({ min: 1, max: 255 }),
  ),
  { maxLength: 60 },
);

/** Writes records, and what they make of a block in memory. */
function record(stream: SyntheticStream, list: readonly Step[]): Uint8Array {
  const memory = new Uint8Array(PAGES * PAGE);
  for (const part of [list.slice(0, list.length / 2), list.slice(list.length / 2)]) {
    stream.ramPart('part', (writer) => {
      for (const [i, [kind, page, fill]] of part.entries()) {
        const flags = { page: 8, zero: 2, xbzrle: 0x40, compress: 0x100 }[kind];
        writeRamWord(writer, page * PAGE, i === 0 ? flags : flags | RamFlag.continue);
        if (i === 0) writer.counted('m');
        const bytes = memory.subarray(page * PAGE, (page + 1) * PAGE);
        if (kind === 'zero') {
          writer.u8(0);
          bytes.fill(0);
        } else if (kind === 'xbzrle') {
          writer
            .u8(1)
            .u16(4)
            .raw(Uint8Array.of(5, 2, fill, 9));
          bytes.set([fill, 9], 5);
        } else {
          bytes.fill(fill);
          const packed = deflateSync(bytes);
          if (kind === 'page') writer.raw(bytes);
          else writer.u32(packed.length).raw(packed);
        }
      }
    });
  }
  return memory;
}

describe('RAM by page', () => {
  test('is that of the last record of each page, however it is read', () => {
    fc.assert(
      fc.property(steps, fc.constantFrom(PAGE, PAGE + 8, PAGE + 30), (list, strideBytes) => {
        const stream = new SyntheticStream()
          .begin()
          .ramStart([{ name: 'm', usedBytes: PAGES * PAGE }]);
        const first: Step = ['page', 0, 1]; // tells the page size
        const memory = record(stream, [first, ...list]);
        const { guest } = open(stream.ramPart('end').end());
        for (const most of [1, 7, PAGES]) {
          expect(Buffer.compare(contents(guest, 0, most, strideBytes), memory)).toBe(0);
        }
      }),
      { numRuns: 60 },
    );
  });

  test.each(['little', 'big'] as const)('of a %s-endian mapped-ram file', (order) => {
    const { guest } = open(mappedRamFile(order));
    const found = contents(guest, 0, 5, PAGE + 8);
    expect([0, 1, 2, 3, 4].map((page) => found[page * PAGE + 9])).toEqual([0, 1, 2, 0, 4]);
    expect([0, 1, 3].map((page) => guest.ram.runLength(0, page, 5 - page))).toEqual([-1, 2, -1]);
    expect(guest.configuration).toEqual({ machineType: 'pc-q35-9.0' });
  });

  test('is read in runs as long as the file allows', () => {
    const stream = new SyntheticStream().begin().ramStart([{ name: 'm', usedBytes: 0x8000 }]);
    stream.ramPart('part', (writer) => {
      for (let i = 0; i < 5; i++) {
        writeRamWord(writer, i * PAGE, i === 0 ? RamFlag.page : RamFlag.page | RamFlag.continue);
        if (i === 0) writer.counted('m');
        writer.raw(new Uint8Array(PAGE).fill(i + 1));
      }
    });
    const { guest } = open(stream.ramPart('end').end());
    expect(guest.ram.runLength(0, 0, 8)).toBe(5);
    expect(guest.ram.runLength(0, 2, 2)).toBe(2);
    expect(guest.ram.runLength(0, 5, 3)).toBe(-3);
  });

  test('says where a zlib page is damaged', () => {
    const stream = new SyntheticStream().begin().ramStart([{ name: 'm', usedBytes: 0x2000 }]);
    stream.ramPart('part', (writer) => {
      writeRamWord(writer, 0, RamFlag.compressPage);
      writer
        .counted('m')
        .u32(3)
        .raw(Uint8Array.of(1, 2, 3));
    });
    expect(() => open(stream.ramPart('end').end())).toThrow(
      expect.objectContaining({ code: 'RAM_RECORD_INVALID', path: ['ram', 'm', 'page 0x0'] }),
    );
  });

  test('of a file that has become shorter ends with an error', () => {
    const bytes = smallStream();
    const { guest, walk } = open(bytes);
    const cut = new RamIndex(access(bytes.subarray(0, 100)), { scratch, inflate: () => bytes });
    const reader = ByteReader.over(bytes);
    const again = new StreamWalk({ ramSink: cut });
    expect(() => runParser(again.walk(reader), reader)).toThrow(
      expect.objectContaining({ code: 'UNEXPECTED_END' }), // an XBZRLE page is put together
    );
    expect(guest.blocks).toEqual(walk.model.ram!.blocks);
  });
});

describe('a guest in a file', () => {
  /** The first bytes of each range, to tell what it is. */
  function typesOf(guest: StoredGuest, ranges: StoredGuest['beforeRam']): number[][] {
    return ranges.map(({ offset, lengthBytes }) => {
      const bytes = new Uint8Array(lengthBytes);
      expect(guest.readBytes(bytes, offset)).toBe(lengthBytes);
      return [bytes[0]!, new DataView(bytes.buffer).getUint32(1)];
    });
  }

  test('has its other sections where a destination wants them', () => {
    const stream = new SyntheticStream().begin().device('early', 7, Uint8Array.of(1));
    stream.ramStart([{ name: 'm', usedBytes: 0x1000 }]);
    stream.device('late', 8, Uint8Array.of(2));
    stream.ramPart('end', (writer) => {
      writeRamWord(writer, 0, RamFlag.zero);
      writer.counted('m').u8(0);
    });
    const { guest } = open(
      stream.device('last', 9, Uint8Array.of(3)).end({ page_size: PAGE, devices: [] }),
    );
    expect(typesOf(guest, guest.beforeRam)).toEqual([[4, 7]]);
    expect(typesOf(guest, guest.beforePages)).toEqual([[4, 8]]);
    expect(typesOf(guest, guest.behindPages)).toEqual([[4, 9]]);
    expect(typesOf(guest, [guest.vmdesc!])).toEqual([[6, guest.vmdesc!.lengthBytes - 5]]);
    expect(guest).toMatchObject({ ramSectionId: 2, hasFooters: true, targetPageBytes: 4096 });
  });

  test('is found in a libvirt save image', () => {
    const { guest } = open(libvirtImage(smallStream()));
    expect(guest.blocks.map(({ name }) => name)).toEqual(['pc.ram', 'rom']);
    expect(contents(guest, 0, 4, PAGE)[0x1000]).toBe(9); // by XBZRLE, over 0x7e
  });

  test.each([
    ['no page at all', 0, false],
    ['zero pages alone, and not all', 1, false],
    ['a multifd flush', 2, true],
  ])('is not whole in the main channel of multifd: %s', (_, zeros, flush) => {
    const stream = new SyntheticStream().begin().ramStart([{ name: 'm', usedBytes: 0x2000 }]);
    const bytes = stream
      .ramPart('end', (writer) => {
        for (let i = 0; i < zeros; i++) {
          writeRamWord(writer, i * PAGE, RamFlag.zero);
          writer.counted('m').u8(0);
        }
        if (flush) writeRamWord(writer, 0, RamFlag.multifdFlush);
      })
      .end();
    const found = 'the main channel of multifd';
    expect(() => open(bytes)).toThrow(expect.objectContaining({ code: 'GUEST_INCOMPLETE', found }));
  });

  test('is whole when all of it is zero', () => {
    const stream = new SyntheticStream().begin().ramStart([{ name: 'm', usedBytes: 0x1000 }]);
    const bytes = stream
      .ramPart('end', (writer) => {
        writeRamWord(writer, 0, RamFlag.zero);
        writer.counted('m').u8(0);
      })
      .end();
    expect(open(bytes).guest.ram.runLength(0, 0, 1)).toBe(-1);
  });
});
