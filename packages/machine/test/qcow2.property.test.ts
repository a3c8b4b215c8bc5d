import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createQcow2, DirtyBitmap, MachineError, MemoryFile, Qcow2Image } from '../src/index.ts';
import { checkRefcounts } from './qcow2-leaks.ts';

/** Small clusters: their tables fill up and grow within a test. */
const clusters = fc.constantFrom(512, 1024, 4096);

function imageOf(clusterBytes: number, sizeBytes: number): MemoryFile {
  const file = new MemoryFile();
  createQcow2(file, { sizeBytes, clusterBytes });
  return file;
}

describe('a qcow2 image', () => {
  test('reads back whatever was written, now and when it is opened again', () => {
    const size = 1024 * 1024 + 300;
    const write = fc.tuple(
      fc.nat(size - 1),
      fc.integer({ min: 1, max: 40_000 }),
      fc.integer({ min: 0, max: 255 }),
    );
    fc.assert(
      fc.property(clusters, fc.array(write, { maxLength: 40 }), (clusterBytes, writes) => {
        const file = imageOf(clusterBytes, size);
        const disk = new Uint8Array(size);
        const below = Uint8Array.from({ length: size }, (_, i) => (i >> 9) & 0x7f);
        disk.set(below);
        const open = (): Qcow2Image => {
          const image = new Qcow2Image(file);
          image.readBacking = (offset, into) =>
            into.set(below.subarray(offset, offset + into.length));
          return image;
        };
        let image = open();
        for (const [offset, length, value] of writes) {
          const bytes = new Uint8Array(Math.min(length, size - offset)).fill(value);
          image.write(offset, bytes);
          disk.set(bytes, offset);
          if (value < 32) image = open();
        }
        for (const reader of [image, open()]) {
          const there = new Uint8Array(size);
          reader.read(0, there);
          expect(Buffer.compare(there, disk)).toBe(0);
        }
        expect(checkRefcounts(file)).toEqual([]);
      }),
      { numRuns: 20 },
    );
  });

  test('outgrows its refcount table', () => {
    // 512-byte clusters: one cluster of the table counts 64 × 256 clusters, 8 MiB.
    const file = imageOf(512, 20 * 1024 * 1024);
    const image = new Qcow2Image(file);
    const piece = Uint8Array.from({ length: 64 * 1024 }, (_, i) => i * 7);
    for (let offset = 0; offset < image.sizeBytes; offset += piece.length)
      image.write(offset, piece);
    expect(checkRefcounts(file)).toEqual([]);
    expect(image.header.refcountTableClusters).toBeGreaterThan(1);
    const there = new Uint8Array(piece.length);
    for (let offset = 0; offset < image.sizeBytes; offset += piece.length) {
      new Qcow2Image(file).read(offset, there);
      expect(Buffer.compare(there, piece)).toBe(0);
      offset += 5 * piece.length;
    }
  });

  test('keeps bitmaps, in whatever order they are stored and removed', () => {
    const size = 3 * 1024 * 1024;
    const step = fc.record({
      name: fc.constantFrom('a', 'b', 'ünicode', 'd'),
      remove: fc.boolean(),
      granularityBits: fc.integer({ min: 9, max: 17 }),
      enabled: fc.boolean(),
      ranges: fc.array(fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 100_000 })), {
        maxLength: 5,
      }),
    });
    fc.assert(
      fc.property(clusters, fc.array(step, { maxLength: 12 }), (clusterBytes, steps) => {
        const file = imageOf(clusterBytes, size);
        const kept = new Map<string, DirtyBitmap>();
        let image = new Qcow2Image(file);
        for (const { name, remove, granularityBits, enabled, ranges } of steps) {
          if (remove) {
            image.bitmaps.remove(name);
            kept.delete(name);
          } else {
            const bitmap = new DirtyBitmap(name, size, 2 ** granularityBits);
            bitmap.enabled = enabled;
            for (const [offset, length] of ranges) bitmap.set(offset, length);
            image.bitmaps.store([bitmap]);
            kept.set(name, bitmap);
          }
          image.write(0, new Uint8Array(5000).fill(steps.length));
          image = new Qcow2Image(file);
        }
        expect(checkRefcounts(file)).toEqual([]);
        const loaded = image.bitmaps.load();
        expect(loaded.map(({ name }) => name).sort()).toEqual([...kept.keys()].sort());
        for (const bitmap of loaded) {
          const original = kept.get(bitmap.name!)!;
          expect([...bitmap.dirtyRanges()]).toEqual([...original.dirtyRanges()]);
          expect(bitmap).toMatchObject({
            persistent: true,
            enabled: original.enabled,
            granularityBytes: original.granularityBytes,
          });
        }
      }),
      { numRuns: 40 },
    );
  });

  test('damaged in any place gives one clear error or reads on, and never writes over a table', () => {
    const original = imageOf(512, 256 * 1024);
    const image = new Qcow2Image(original);
    image.write(1000, new Uint8Array(20_000).fill(7));
    const bitmap = new DirtyBitmap('kept', image.sizeBytes, 512);
    bitmap.set(0, 30_000);
    image.bitmaps.store([bitmap]);
    const whole = original.toBytes();
    const damage = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), {
      minLength: 1,
      maxLength: 4,
    });
    const early = fc.array(fc.tuple(fc.nat(4095), fc.constantFrom(0, 1, 2, 0x80, 0xff)), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(fc.oneof(damage, early), (changes) => {
        const bytes = whole.slice();
        for (const [at, value] of changes) bytes[at] = value;
        const file = new MemoryFile(bytes);
        try {
          const damaged = new Qcow2Image(file);
          const bits = damaged.bitmaps.load();
          damaged.read(0, new Uint8Array(Math.min(damaged.sizeBytes, 300_000)));
          damaged.write(0, new Uint8Array(3000).fill(9));
          damaged.bitmaps.store(bits);
        } catch (error) {
          const isTold = error instanceof MachineError && error.message.length > 20;
          expect(isTold || (error as Error).name === 'BytesError', String(error)).toBe(true);
        }
      }),
      { numRuns: 1500 },
    );
  });
});

describe('hostile images', () => {
  const header = (change: (view: DataView) => void): MemoryFile => {
    const file = imageOf(65_536, 64 * 1024 * 1024);
    const bytes = file.toBytes();
    change(new DataView(bytes.buffer));
    return new MemoryFile(bytes);
  };

  test.each<[string, (view: DataView) => void, RegExp]>([
    ['a disk of 2^60 bytes', (v) => v.setBigUint64(24, 2n ** 60n), /disk is too large/],
    ['an L1 table of 4 Gi entries', (v) => v.setUint32(36, 0xffff_ffff), /L1 table too large/],
    ['an L1 table without room', (v) => v.setUint32(36, 0), /L1 table is too small/],
    ['clusters of 2^31 bytes', (v) => v.setUint32(20, 31), /cluster size/],
    ['a refcount table over the header', (v) => v.setBigUint64(48, 0n), /refcount table/],
    [
      'the L1 table over the refcount table',
      (v) => v.setBigUint64(40, 65_536n),
      /L1 table lies over the refcount table/,
    ],
    [
      'an L2 table over the refcount block',
      (v) => v.setBigUint64(3 * 65_536, 2n * 65_536n),
      /L2 table lies over the refcount block/,
    ],
    [
      'reserved bits in an L1 entry',
      (v) => v.setBigUint64(3 * 65_536, 99n << 50n),
      /reserved bits/,
    ],
    [
      'a backing name behind the cluster',
      (v) => {
        v.setBigUint64(8, 65_530n);
        v.setUint32(16, 100);
      },
      /backing file name/,
    ],
    ['encryption', (v) => v.setUint32(32, 2), /encrypted/],
    ['an external data file', (v) => v.setBigUint64(72, 4n), /external data file/],
    ['a later feature', (v) => v.setBigUint64(72, 1n << 40n), /bit 40/],
    [
      'an extension without an end',
      (v) => v.setBigUint64(104, 0x1_ffff_0000n),
      /header extension is too long/,
    ],
  ])('%s', (_, change, message) => {
    expect(() => new Qcow2Image(header(change))).toThrow(message);
  });

  test('a cluster that lies over a table is neither read nor written', () => {
    const file = imageOf(65_536, 64 * 1024 * 1024);
    new Qcow2Image(file).write(0, new Uint8Array(10).fill(1));
    const bytes = file.toBytes();
    const view = new DataView(bytes.buffer);
    const l2 = Number(view.getBigUint64(3 * 65_536) & 0xff_ffff_ffff_fe00n);
    view.setBigUint64(l2, (3n * 65_536n) | (1n << 63n));
    const image = new Qcow2Image(new MemoryFile(bytes));
    expect(() => image.write(0, new Uint8Array(1))).toThrow(/lies over the L1 table/);
    view.setBigUint64(l2, 1n << 62n);
    expect(() => new Qcow2Image(new MemoryFile(bytes)).read(0, new Uint8Array(1))).toThrow(
      /compressed/,
    );
  });
});
