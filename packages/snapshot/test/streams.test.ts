import { ByteReader, type ByteWriter, runParser, WherryError } from '@wherry/bytes';
import { StreamError } from '@wherry/stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeDevices, findVmdesc, readContainer, StreamWalk } from '../src/index.ts';
import type { WalkOptions } from '../src/walk-options.ts';
import {
  dirtyBitmapBodies,
  footerlessStream,
  libvirtImage,
  liveSection,
  liveStream,
  mappedRamFile,
  postcopyStream,
  recoveryStream,
} from './sections.ts';
import { SyntheticStream, smallStream } from './synthetic-stream.ts';

/** Walks a whole file at once. */
function walkFile(bytes: Uint8Array, options: WalkOptions = {}): StreamWalk {
  const streamWalk = new StreamWalk(options);
  const reader = ByteReader.over(bytes);
  runParser(streamWalk.walkFile(reader), reader);
  return streamWalk;
}

/** Walks a file that arrives in pieces of these sizes. */
function walkFileInPieces(bytes: Uint8Array, sizes: readonly number[]): StreamWalk {
  const streamWalk = new StreamWalk();
  const reader = new ByteReader({ storage: new Uint8Array(600) });
  const parser = streamWalk.walkFile(reader);
  for (let at = 0, i = 0; parser.next().done !== true; i++) {
    const room = reader.space();
    const size = Math.min(sizes[i % sizes.length] ?? 1, room.length, bytes.length - at);
    if (size === 0) reader.finish();
    room.set(bytes.subarray(at, at + size));
    reader.commit(size);
    at += size;
  }
  return streamWalk;
}

function failing(
  bytes: Uint8Array,
  options: WalkOptions = {},
): { walk: StreamWalk; error: WherryError } {
  const walk = new StreamWalk(options);
  try {
    const parser = walk.walkFile(ByteReader.over(bytes));
    while (parser.next().done !== true);
  } catch (error) {
    if (error instanceof WherryError) return { walk, error };
    throw error;
  }
  throw new Error('the stream was taken for whole');
}

/** Tells whether the next 100 bytes are all the same. */
function isInPage(bytes: Uint8Array, at: number): boolean {
  return (
    at + 100 < bytes.length && bytes.subarray(at, at + 100).every((byte) => byte === bytes[at])
  );
}

const streams: readonly (readonly [string, Uint8Array])[] = [
  ['precopy', smallStream()],
  ['postcopy', postcopyStream()],
  ['recovery', recoveryStream()],
  ['live sections', liveStream()],
  ['mapped-ram', mappedRamFile()],
  ['mapped-ram behind a hole', mappedRamFile('little', new Uint8Array(512))],
  ['mapped-ram behind something else', mappedRamFile('little', new Uint8Array(300).fill(0x51))],
  ['libvirt save image', libvirtImage(smallStream(), { cookie: '<cookie/>' })],
];

describe.each(streams)('%s', (_, bytes) => {
  test('is the same in whatever pieces it arrives', () => {
    const whole = walkFile(bytes).model;
    expect(whole.endOffset).toBe(bytes.length);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1 }), (sizes) => {
        expect(walkFileInPieces(bytes, sizes).model).toEqual(whole);
      }),
      { numRuns: 15 },
    );
    expect(walkFileInPieces(bytes, [1]).model).toEqual(whole);
  });

  test('cut at any byte is one error that says where, and shows what came before', () => {
    const { model: whole } = walkFile(bytes);
    let devices = 0;
    for (let length = 0; length < bytes.length; length += isInPage(bytes, length) ? 97 : 1) {
      if (length === whole.eofOffset! + 1) continue; // the vmdesc may be missing: that stream is whole
      const { error, walk } = failing(bytes.subarray(0, length));
      expect(error.offset).toBeLessThanOrEqual(length);
      expect([...walk.path, ...error.path].join('')).not.toBe('');
      expect(error.likely).toBeDefined();
      const { model } = walk;
      expect(model.endOffset).toBeUndefined();
      expect(model.devices).toEqual(whole.devices.slice(0, model.devices.length));
      expect(model.devices.length).toBeGreaterThanOrEqual(devices);
      devices = model.devices.length;
    }
    expect(devices).toBe(whole.devices.length);
  });

  test('says of every byte what it is', () => {
    // Pages are long and all alike inside.
    for (let at = 0; at < bytes.length; at += isInPage(bytes, at) ? 97 : 1) {
      const { located } = walkFile(bytes, { at }).model;
      expect(located, `${at}`).toBeDefined();
      const { range, what, path } = located!;
      expect(range.offset, `${at}`).toBeLessThanOrEqual(at);
      expect(range.offset + range.lengthBytes, `${at}`).toBeGreaterThan(at);
      expect(what).not.toBe('');
      expect(path.length).toBeGreaterThan(0);
    }
    expect(walkFile(bytes, { at: bytes.length }).model.located).toBeUndefined();
  });
});

describe('live sections', () => {
  test('are summed up by their formats', () => {
    const { model } = walkFile(liveStream());
    expect(
      model.liveSections.map(({ idstr, bodyBytes, summary }) => [idstr, bodyBytes, summary]),
    ).toEqual([
      ['dirty-bitmap', 124, undefined],
      ['block', 8 + 8 + 5 + 8 + 8 + 8, { 'zero blocks': 1, 'progress records': 1 }],
      ['spapr/htab', 4 + 52 + 12, { 'size in bits': 21, 'valid entries': 2, 'invalid entries': 3 }],
      ['s390-storage_attributes', 8 + 27 + 16, { pages: 3 }],
      ['0000:00:05.0/vfio', 16 + 29 + 36, { 'data records': 1, 'data bytes': 5 }],
      ['new-thing', 54, undefined],
    ]);
    expect(model.dirtyBitmaps).toEqual([
      {
        ...{ node: 'disk0', name: 'fine', granularityBytes: 4096 },
        ...{ enabled: true, persistent: false, isComplete: true },
        ...{ setBits: 64, coveredBytes: 65_536 * 512, chunks: 1 },
      },
      {
        ...{ node: 'disk0', name: 'coarse', granularityBytes: 65_536 },
        ...{ enabled: false, persistent: true, isComplete: true },
        ...{ setBits: 0, coveredBytes: 2048 * 512, chunks: 1 },
      },
    ]);
  });

  test.each<[string, string, (writer: ByteWriter) => void]>([
    [
      'dirty-bitmap',
      'bits of a bitmap that never began',
      (w) => w.u8(0x4c).counted('a').counted('b'),
    ],
    ['dirty-bitmap', 'flags of several bytes', (w) => w.u8(0x81)],
    ['dirty-bitmap', 'a chunk of nothing', (w) => w.u8(0x02)],
    ['block', 'a record of no kind', (w) => w.u64(0x10n)],
    ['s390-storage_attributes', 'attributes that the source could not read', (w) => w.u64(4n)],
  ])('%s with %s is refused where it is wrong', (idstr, _, write) => {
    const stream = liveSection(new SyntheticStream().begin(), idstr, 3, [write]);
    const { error, walk } = failing(stream.end());
    expect(error).toMatchObject({ code: 'LIVE_SECTION_INVALID', path: [idstr] });
    const { partial } = walk.model;
    expect(partial).toMatchObject({ kind: 'start', idstr, bodyOffset: error.offset });
  });

  test('many dirty bitmaps with many chunks are read in linear time', () => {
    const stream = liveSection(new SyntheticStream().begin(), 'dirty-bitmap', 3, [
      (w) => {
        for (let i = 0; i < 60_000; i++) w.u8(0x1c).counted('d').counted(`${i}`).u32(4096).u8(0);
        w.u8(0x01);
      },
      (w) => {
        for (let i = 0; i < 60_000; i++) w.u8(0x24).counted(`${i}`);
        w.u8(0x01);
      },
    ]);
    const { dirtyBitmaps } = walkFile(stream.end()).model;
    expect(dirtyBitmaps?.every(({ isComplete }) => isComplete)).toBe(true);
  });

  test('a chunk of bits that is too long is not read', () => {
    const [start] = dirtyBitmapBodies;
    const stream = liveSection(new SyntheticStream().begin(), 'dirty-bitmap', 3, [
      start!,
      (w) =>
        w
          .u8(0x44)
          .counted('fine')
          .u64(0n)
          .u32(1)
          .u64(2n ** 40n),
    ]);
    expect(failing(stream.end()).error).toMatchObject({
      code: 'LIVE_SECTION_INVALID',
      found: `${2 ** 40}`,
    });
  });
});

describe('a recovery stream', () => {
  test('has the blocks that its pages name', () => {
    const { model } = walkFile(recoveryStream());
    expect(model).toMatchObject({ isRecovery: true, ram: { totalBytes: 0 } });
    expect(model.version).toBeUndefined();
    expect(model.ram?.blocks).toMatchObject([
      { name: 'pc.ram', usedBytes: 0x6000, pages: { page: 1, zero: 1 } },
    ]);
  });

  test('is no stream for who wants one', () => {
    const reader = ByteReader.over(recoveryStream());
    expect(() => runParser(new StreamWalk().walk(reader), reader)).toThrow(
      expect.objectContaining({ code: 'NOT_A_STREAM' }),
    );
  });
});

describe('a libvirt save image', () => {
  test.each([true, false])('gives what its header says, little-endian %s', (isLittle) => {
    const { model } = walkFile(libvirtImage(smallStream(), { cookie: '<c/>', isLittle }));
    expect(model.container).toMatchObject({
      ...{ format: 'libvirt-save', version: 2, compression: 'raw', wasRunning: true },
      ...{ isPartial: false, byteOrder: isLittle ? 'little' : 'big' },
      ...{ xml: '<domain type="kvm"/>', cookie: '<c/>', streamOffset: 92 + 21 + 5 + 64 },
    });
    expect(model.devices).toHaveLength(1);
    expect([...decodeDevices(model)][0]?.state?.[0]?.value).toBe(0xdeadbeef);
  });

  test('that libvirt did not finish says so', () => {
    const image = libvirtImage(smallStream(), { magic: 'LibvirtQemudPart' });
    expect(walkFile(image).model.container?.isPartial).toBe(true);
  });

  test('of the first version has no compression', () => {
    const image = libvirtImage(smallStream(), { version: 1, format: 3 });
    expect(walkFile(image).model.container).toMatchObject({ version: 1, compression: 'raw' });
  });

  test.each([
    [1, 'gzip'],
    [5, 'zstd'],
    [99, '99'],
  ])('with compression %i is left to who can unpack it', (format, compression) => {
    const image = libvirtImage(smallStream(), { format });
    const { error, walk } = failing(image);
    expect(error).toMatchObject({ code: 'CONTAINER_PACKED', found: compression });
    const { container } = walk.model;
    expect(error.offset).toBe(container?.streamOffset);
    // Unpacked, it is walked with the image's header beside it.
    const { model } = walkFile(smallStream(), { container });
    expect(model.container).toMatchObject({ compression });
    expect(model.endOffset).toBe(smallStream().length);
  });

  test.each([
    ['version', { version: 3 }],
    ['version', { version: 0 }],
  ])('with an unknown %s is refused', (_, options) => {
    const image = libvirtImage(smallStream(), options);
    expect(failing(image).error).toMatchObject({ code: 'CONTAINER_INVALID', offset: 16 });
  });

  test('with a false length costs nothing', () => {
    const image = libvirtImage(smallStream());
    new DataView(image.buffer).setUint32(20, 0x7fff_ffff, true);
    expect(failing(image).error).toMatchObject({ code: 'CONTAINER_INVALID', offset: 20 });
  });

  test('is told from anything else without reading it', () => {
    for (const bytes of [smallStream(), Uint8Array.of(), Uint8Array.of(0x4c, 0x69, 0x62)]) {
      const reader = ByteReader.over(bytes);
      expect(runParser(readContainer(reader), reader)).toBeUndefined();
      expect(reader.available).toBe(bytes.length);
    }
  });
});

describe('a stream without section footers', () => {
  const body = (fill: number, length: number): Uint8Array => new Uint8Array(length).fill(fill);
  const bodies = (bytes: Uint8Array): unknown[] => {
    expect(() => walkFile(bytes)).toThrow(StreamError);
    const { model } = walkFile(bytes, { vmdesc: findVmdesc(bytes, 0) });
    expect(model.endOffset).toBe(bytes.length);
    return model.devices.map((device) => [device.idstr, device.body]);
  };

  test('is split by its vmdesc', () => {
    // The bodies hold what begins a section, and what ends a stream.
    const devices = [
      { idstr: 'a', body: body(4, 30) },
      { idstr: 'b', body: new Uint8Array(0) },
      { idstr: 'c', body: body(0, 700) },
      { idstr: 'd', body: body(6, 9) },
    ];
    expect(bodies(footerlessStream(devices))).toEqual(
      devices.map(({ idstr, body: bytes }) => [idstr, bytes]),
    );
    expect(bodies(footerlessStream(devices, true))).toHaveLength(4);
  });

  test('is split though its vmdesc gives wrong lengths', () => {
    const devices = [
      { idstr: 'a', body: body(4, 300), describedBytes: 20 },
      { idstr: 'b', body: body(1, 20), describedBytes: 90 },
      { idstr: 'c', body: body(9, 20), describedBytes: 10 },
    ];
    expect(bodies(footerlessStream(devices))).toEqual(
      devices.map(({ idstr, body: bytes }) => [idstr, bytes]),
    );
  });

  test('with a device that its vmdesc does not list is refused there', () => {
    const listed = footerlessStream([{ idstr: 'a', body: body(4, 30) }]);
    const other = footerlessStream([{ idstr: 'b', body: body(4, 30) }]);
    const { error } = failing(other, { vmdesc: findVmdesc(listed, 0) });
    expect(error).toMatchObject({ code: 'FOOTERS_ABSENT', path: ['b'] });
  });

  test('with beginnings of a vmdesc everywhere costs no parse for each', () => {
    const bytes = new Uint8Array(1024 * 1024);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at + 6 <= bytes.length; at += 6) {
      bytes[at] = 6;
      view.setUint32(at + 1, bytes.length - at - 5);
      bytes[at + 5] = 0x7b;
    }
    expect(findVmdesc(bytes, 0)).toBeUndefined();
  });

  test('finds its vmdesc only where one ends the file', () => {
    const bytes = footerlessStream([{ idstr: 'a', body: body(4, 30) }]);
    const found = findVmdesc(bytes.subarray(20), 20);
    expect(found).toMatchObject({ value: { page_size: 4096 } });
    expect(bytes[found!.offset]).toBe(6);
    expect(findVmdesc(bytes.subarray(0, -1), 0)).toBeUndefined();
    expect(findVmdesc(new Uint8Array(3), 0)).toBeUndefined();
  });
});

describe('a stream at an offset of its file', () => {
  test('says which', () => {
    for (const fill of [0, 0x51]) {
      const { model } = walkFile(mappedRamFile('little', new Uint8Array(512).fill(fill)));
      expect(model).toMatchObject({
        streamOffset: 512,
        ram: { blocks: [{ pages: { mapped: 3 } }] },
      });
    }
    expect(walkFile(smallStream()).model.streamOffset).toBeUndefined();
  });

  test('is not looked for far behind other bytes, nor where only its magic stands', () => {
    const far = new Uint8Array(1024 * 1024 + 1).fill(0x51);
    expect(failing(mappedRamFile('little', far)).error).toMatchObject({
      ...{ code: 'NOT_A_STREAM', offset: 0 },
    });
    const text = new TextEncoder().encode('a text on QEVM\0\0\0\x03, and QEVM');
    expect(failing(text).error).toMatchObject({ code: 'NOT_A_STREAM', offset: 0 });
  });
});

describe('what is no stream', () => {
  test('of zeros alone says so', () => {
    expect(failing(new Uint8Array(9000)).error).toMatchObject({
      code: 'NOT_A_STREAM',
      found: '9000 zeros, and the end',
    });
  });

  test('behind zeros is refused where it begins', () => {
    const bytes = new Uint8Array(9000);
    bytes.fill(0x41, 5000);
    expect(failing(bytes).error).toMatchObject({ code: 'NOT_A_STREAM', offset: 5000 });
  });
});
