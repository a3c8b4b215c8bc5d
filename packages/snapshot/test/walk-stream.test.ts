import { ByteReader, ByteWriter, WherryError } from '@wherry/bytes';
import { RamFlag, writeCommand, writeFooter, writeRamWord, writeSectionHead } from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeDevices } from '../src/decode-devices.ts';
import { StreamWalk } from '../src/walk-stream.ts';
import {
  SyntheticStream,
  smallStream,
  someRecords,
  walk,
  walkInPieces,
} from './synthetic-stream.ts';

/** Walks a stream that must be wrong. */
function walkBroken(bytes: Uint8Array): { walk: StreamWalk; error: WherryError } {
  const broken = new StreamWalk();
  try {
    const parser = broken.walk(ByteReader.over(bytes));
    while (parser.next().done !== true);
  } catch (error) {
    if (error instanceof WherryError) return { walk: broken, error };
    throw error;
  }
  throw new Error('the stream was taken for whole');
}

describe('a precopy stream', () => {
  test('is collected item by item', () => {
    const bytes = smallStream();
    const { model } = walk(bytes);
    expect(model.configuration?.machineType).toBe('pc-q35-5.2');
    expect(model.ram?.blocks.map(({ name, pages }) => [name, pages])).toEqual([
      ['pc.ram', { page: 2, zero: 1, xbzrle: 1, compress: 0, mapped: 0 }],
      ['rom', { page: 0, zero: 1, xbzrle: 0, compress: 0, mapped: 0 }],
    ]);
    expect(
      model.items.map((item) =>
        item.type === 'section' ? [item.kind, item.idstr, item.count] : [item.type],
      ),
    ).toEqual([
      ['start', 'ram', 1],
      ['part', 'ram', 2],
      ['end', 'ram', 1],
      ['full', 'toy', 1],
      ['eof'],
    ]);
    // The items lie one behind the other, from the configuration to the vmdesc.
    for (const [i, item] of model.items.entries()) {
      const next = model.items[i + 1]?.offset ?? model.vmdesc?.offset;
      expect(item.offset + item.lengthBytes).toBe(next);
    }
    expect(model.endOffset).toBe(bytes.length);
    expect(model.trailingBytes).toBe(0);
  });

  test('is decoded by its own vmdesc', () => {
    const [decoded, ...others] = decodeDevices(walk(smallStream()).model);
    expect(others).toEqual([]);
    expect(decoded?.state).toMatchObject([
      { name: 'id', value: 0xdeadbeef },
      { name: 'when', value: 0xffff_ffff_ffff_ffffn },
      { name: 'counts', children: [{ value: 0 }, { value: 5 }] },
      { name: 'inner', children: [{ name: 'on', value: true }] },
      { name: 'toy/more', type: 'subsection', children: [{ name: 'level', value: 0x7e }] },
    ]);
  });

  test('is the same in whatever pieces it arrives', () => {
    const bytes = smallStream();
    const whole = walk(bytes).model;
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 700 })), fc.boolean(), (sizes, isTiny) => {
        expect(walkInPieces(bytes, isTiny ? [] : sizes, isTiny ? 300 : 1024).model).toEqual(whole);
      }),
      { numRuns: 40 },
    );
  });

  test('cut at any byte is one error that says where', () => {
    const bytes = smallStream();
    const eofOffset = walk(bytes).model.eofOffset!;
    for (let length = 0; length < bytes.length; length++) {
      if (length === eofOffset + 1) continue; // the vmdesc may be missing: that stream is whole
      const { error, walk: broken } = walkBroken(bytes.subarray(0, length));
      expect(error.offset).toBeLessThanOrEqual(length);
      expect([...broken.path, ...error.path].join('')).not.toBe('');
      expect(error.likely).toBeDefined();
      expect(broken.model.endOffset).toBeUndefined();
    }
    expect(walk(bytes.subarray(0, eofOffset + 1)).model.vmdesc).toBeUndefined();
  });

  test('with any one byte changed is read to an end or to one error', () => {
    const bytes = smallStream();
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const changed = bytes.slice();
        changed[at]! ^= change;
        const streamWalk = new StreamWalk();
        try {
          const parser = streamWalk.walk(ByteReader.over(changed));
          while (parser.next().done !== true);
        } catch (error) {
          expect(error).toBeInstanceOf(WherryError);
        }
        [...decodeDevices(streamWalk.model)];
      }),
      { numRuns: 2000 },
    );
  });

  test('with bytes behind its end says how many', () => {
    const bytes = smallStream();
    const { model } = walk(new Uint8Array([...bytes, 1, 2, 3]));
    expect(model).toMatchObject({ endOffset: bytes.length, trailingBytes: 3 });
  });
});

describe('the RAM list', () => {
  const blockNames = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 40 }), {
    minLength: 1,
    maxLength: 6,
  });

  test('is read with any mixture of page sizes', () => {
    fc.assert(
      fc.property(
        blockNames,
        fc.array(fc.constantFrom(0x1000, 0x20_0000, 0x4000_0000), { minLength: 6, maxLength: 6 }),
        (names, pageSizes) => {
          const blocks = names.map((name, i) => {
            const pageBytes = pageSizes[i]!;
            const usedBytes = pageBytes * (i + 1);
            // As QEMU: the word is there only where the block's pages are not the target's.
            return pageBytes === 0x1000 ? { name, usedBytes } : { name, usedBytes, pageBytes };
          });
          const summary = pageSizes.reduce((sum, bytes) => sum | BigInt(bytes), 0n);
          const bytes = new SyntheticStream()
            .beginPostcopy(summary)
            .ramStart(blocks)
            .ramPart('end')
            .end();
          const found = walk(bytes).model.ram?.blocks.map(({ pages: _, ...block }) => block);
          expect(found).toEqual(blocks);
        },
      ),
      { numRuns: 100 },
    );
  });

  test('with a page size that the advice does not name is refused', () => {
    const blocks = [{ name: 'a', usedBytes: 0x20_0000, pageBytes: 0x1_0000 }];
    const bytes = new SyntheticStream().beginPostcopy(0x20_1000n).ramStart(blocks).end();
    expect(walkBroken(bytes).error).toMatchObject({ code: 'RAM_LIST_INVALID', found: '0x10000' });
  });

  test('of a mapped-ram file gives the pages of its bitmaps', () => {
    const stream = new SyntheticStream().begin(['mapped-ram']);
    const { writer } = stream;
    const head = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };
    writeSectionHead(writer, { kind: 'start', ...head });
    writeRamWord(writer, 0x5000, RamFlag.memSize);
    writer.counted('m').u64(0x5000n);
    const bitmapOffset = writer.length + 28;
    const pagesOffset = bitmapOffset + 100;
    writer.u32(1).u64(0x1000n).u64(BigInt(bitmapOffset)).u64(BigInt(pagesOffset));
    writer
      .raw(Uint8Array.of(0b10110, 0, 0, 0, 0, 0, 0, 0))
      .zeros(92)
      .zeros(0x5000);
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, 2);
    const { model } = walk(stream.ramPart('end').end());
    expect(model.ram?.blocks).toMatchObject([
      { name: 'm', pages: { mapped: 3 }, mapped: { pageBytes: 0x1000, bitmapOffset, pagesOffset } },
    ]);
  });

  test('is read with the addresses of x-ignore-shared', () => {
    const stream = new SyntheticStream().begin(['x-ignore-shared']);
    const blocks = [{ name: 'm', usedBytes: 0x2000, gpa: 0xfffc_0000 }];
    const { model } = walk(stream.ramStart(blocks).ramPart('end').end());
    expect(model.ram?.blocks).toMatchObject(blocks);
  });
});

describe('a postcopy stream', () => {
  test('shows what its package holds', () => {
    const inner = new ByteWriter();
    writeCommand(inner, { name: 'postcopy-listen' });
    writeSectionHead(inner, {
      kind: 'full',
      sectionId: 4,
      idstr: 'toy',
      instanceId: 0,
      version: 1,
    });
    inner.raw(Uint8Array.of(1, 2, 3));
    writeFooter(inner, 4);
    writeCommand(inner, { name: 'postcopy-run' });
    inner.raw(Uint8Array.of(9, 9)); // behind RUN: ignored by QEMU too
    const blob = inner.finish();

    const stream = new SyntheticStream().beginPostcopy();
    stream.ramStart([
      { name: 'pc.ram', usedBytes: 0x4000 },
      { name: 'rom', usedBytes: 0x1000 },
    ]);
    const ranges = [
      { start: 0, length: 0x1000 },
      { start: 0x2000, length: 0x1000 },
    ];
    writeCommand(stream.writer, { name: 'postcopy-ram-discard', block: 'pc.ram', ranges });
    writeCommand(stream.writer, { name: 'packaged', lengthBytes: blob.length });
    const packageOffset = stream.writer.length;
    stream.writer.raw(blob);
    const bytes = stream.ramPart('part', someRecords).ramPart('end').end();

    const { model } = walk(bytes);
    const packaged = model.items.filter((item) => item.packaged);
    expect(packaged.map((item) => ('command' in item ? item.command.name : item.type))).toEqual([
      'postcopy-listen',
      'section',
      'postcopy-run',
    ]);
    expect(packaged[0]?.offset).toBe(packageOffset);
    expect(model.items).toContainEqual(
      expect.objectContaining({
        command: { name: 'postcopy-ram-discard', block: 'pc.ram', ranges: 2, lengthBytes: 0x2000 },
      }),
    );
    expect(model.ram?.blocks[0]?.pages).toMatchObject({ page: 2, zero: 1 });
    expect([...decodeDevices(model)]).toMatchObject([
      { note: 'not decoded: a postcopy stream has no vmdesc', device: { bodyLengthBytes: 3 } },
    ]);
  });
});

describe('a damaged stream', () => {
  const list = [{ name: 'pc.ram', usedBytes: 0x4000 }];

  test.each<[string, string, (stream: SyntheticStream) => void]>([
    ['a part of a section that never began', 'SECTION_TYPE_UNKNOWN', (s) => s.ramPart('part')],
    [
      'a page of a block that is not listed',
      'RAM_BLOCK_UNKNOWN',
      (s) => s.ramStart(list).ramPart('part', someRecords),
    ],
    [
      'a page behind the end of its block',
      'RAM_RECORD_INVALID',
      (s) =>
        s.ramStart(list).ramPart('part', (w) => {
          writeRamWord(w, 0x4000, RamFlag.zero);
          w.counted('pc.ram').u8(0);
        }),
    ],
    [
      'a continued page behind the end of its block',
      'RAM_RECORD_INVALID',
      (s) =>
        s.ramStart(list).ramPart('part', (w) => {
          writeRamWord(w, 0, RamFlag.zero);
          w.counted('pc.ram').u8(0);
          writeRamWord(w, 0x7000, RamFlag.zero | RamFlag.continue);
          w.u8(0).zeros(8);
        }),
    ],
    ['a RAM list that comes twice', 'RAM_LIST_INVALID', (s) => s.ramStart(list).ramStart(list)],
    [
      'a package in a package',
      'COMMAND_INVALID',
      (s) => {
        writeCommand(s.writer, { name: 'packaged', lengthBytes: 9 });
        writeCommand(s.writer, { name: 'packaged', lengthBytes: 4 });
      },
    ],
  ])('with %s is refused', (_, code, write) => {
    const stream = new SyntheticStream().begin();
    write(stream);
    expect(walkBroken(stream.end()).error.code).toBe(code);
  });

  test('without section footers is named as such', () => {
    const stream = new SyntheticStream().begin();
    const head = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };
    writeSectionHead(stream.writer, { kind: 'start', ...head });
    writeRamWord(stream.writer, 0, RamFlag.eos);
    writeSectionHead(stream.writer, { kind: 'part', sectionId: 2 });
    const { error } = walkBroken(stream.end());
    expect(error).toMatchObject({ code: 'FOOTERS_ABSENT' });
    expect(error.likely).toContain('send-section-footer=off');
  });

  test('with a body of nothing but footer bytes costs its own size', () => {
    const bytes = new SyntheticStream()
      .begin()
      .device('toy', 9, new Uint8Array(8_000_000).fill(0x7e))
      .end();
    const before = process.memoryUsage().rss;
    expect(walk(bytes).model.devices[0]?.bodyLengthBytes).toBe(8_000_000);
    expect(process.memoryUsage().rss - before).toBeLessThan(200_000_000);
  });

  test('with more device state than may be kept is walked to its end, and keeps what it may', () => {
    const stream = new SyntheticStream().begin();
    for (let id = 3; id < 8; id++) stream.device('toy', id, new Uint8Array(id === 4 ? 9000 : 1000));
    const { model } = walk(stream.end(), { maxKeptBytes: 3500 });
    const kept = model.devices.map(({ body, bodyLengthBytes }) => [bodyLengthBytes, body?.length]);
    expect(kept).toEqual([
      [1000, 1000],
      [9000, undefined],
      [1000, 1000],
      [1000, 1000],
      [1000, undefined],
    ]);
  });

  test('with a vmdesc of endless fields is not decoded', () => {
    const field = { name: 'f', array_len: 2 ** 24, type: 'uint8', size: 0 };
    const device = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1, fields: [field] };
    const bytes = new SyntheticStream()
      .begin()
      .device('toy', 9, Uint8Array.of(1))
      .end({ page_size: 4096, devices: [device] });
    const [decoded] = decodeDevices(walk(bytes).model);
    expect(decoded?.note).toContain('more than 300000 fields');
  });

  test('with a section that its vmdesc describes otherwise names the field', () => {
    const fields = [{ name: 'wide', type: 'uint64', size: 8 }];
    const device = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1, fields };
    const stream = new SyntheticStream().begin().device('toy', 9, Uint8Array.of(1, 2));
    const [decoded] = decodeDevices(walk(stream.end({ page_size: 4096, devices: [device] })).model);
    expect(decoded?.mismatch).toMatchObject({ code: 'VMDESC_MISMATCH', path: ['toy', 'wide'] });
  });
});
