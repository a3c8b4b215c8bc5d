import { describe, expect, it } from 'vitest';
import { xxh64 } from '../test/twin/hash.ts';
import { GuestRam } from './guest-ram.ts';
import type { RamBlock } from './ram-block.ts';

const KIB = 1024;

async function spanning(): Promise<GuestRam> {
  // Three banks: the block does not fit into one.
  const ram = await GuestRam.create(
    [
      { name: 'low', lengthBytes: 64 * KIB, hostPageBytes: 4096 },
      { name: 'ram', lengthBytes: 4096 * KIB, hostPageBytes: 64 * KIB },
    ],
    { maxBankBytes: 2 ** 21, ioBufferBytes: 8192 },
  );
  expect(ram.block('ram')!.segments.length).toBe(3);
  return ram;
}

describe('RamBlock', () => {
  it('reads what was written, across banks', async () => {
    const block = (await spanning()).block('ram')!;
    const border = block.segments[1]!.firstPage * 4096;
    const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i % 251);
    block.write(border - 5_000, bytes);
    expect(block.read(border - 5_000, 10_000)).toEqual(bytes);
    expect(block.view(border, 5_000)).toEqual(bytes.subarray(5_000));
    expect(() => block.view(border - 1, 2)).toThrow(/crosses two banks/);
    expect(block.dirtyCount()).toBe(4);
    expect(block.dirtyCount(border / 4096, block.pageCount)).toBe(2);
    expect(block.zeroScan()).toBe(block.pageCount - 4);
  });

  it('refuses ranges outside of the block', async () => {
    const block = (await spanning()).block('ram')!;
    const outside = expect.objectContaining({ code: 'RANGE' });
    expect(() => block.read(block.lengthBytes - 1, 2)).toThrow(outside);
    expect(() => block.read(-1, 2)).toThrow(outside);
    expect(() => block.write(2 ** 53, new Uint8Array(1))).toThrow(outside);
    expect(() => block.view(0.5, 1)).toThrow(outside);
    expect(() => block.isReceived(block.pageCount)).toThrow(outside);
    expect(() => block.checksum(3, 2)).toThrow(outside);
    block.write(block.lengthBytes, new Uint8Array());
    expect(block.read(block.lengthBytes, 0).length).toBe(0);
  });

  it('hashes in steps as it does at once, and sees each changed bit and swapped pages', async () => {
    const ram = await spanning();
    const block = ram.block('ram')!;
    const empty = block.checksum();
    let stepped = 0n;
    for (let page = 0; page < block.pageCount; page += 100) {
      stepped = block.checksum(page, Math.min(page + 100, block.pageCount), stepped);
    }
    expect(stepped).toBe(empty);
    const seen = new Set([empty]);
    for (const at of [0, 4095, 4096, 70_000, block.lengthBytes - 1]) {
      block.write(at, Uint8Array.of(0x80));
      seen.add(block.checksum());
    }
    expect(seen.size).toBe(6);
    block.write(0, new Uint8Array(8192).fill(1, 0, 1));
    const first = block.checksum();
    block.write(0, new Uint8Array(8192).fill(1, 4096, 4097));
    expect(block.checksum()).not.toBe(first);
  });

  it('hashes a page by XXH64', async () => {
    const ram = await GuestRam.create([{ name: 'r', lengthBytes: 4096, hostPageBytes: 4096 }]);
    const { engine } = ram.banks[0]!;
    const { ptr } = ram.blocks[0]!.segments[0]!;
    ram.blocks[0]!.write(
      0,
      Uint8Array.from({ length: 4096 }, (_, i) => i & 0xff),
    );
    expect(BigInt.asUintN(64, engine.hashPage(ptr))).toBe(xxh64(ram.blocks[0]!.read(0, 4096)));
  });

  it('knows presence by page and by range', async () => {
    const ram = await spanning();
    const block = ram.block('ram')!;
    expect(block.receivedCount()).toBe(0);
    expect(block.isReceived(1023)).toBe(false);
    ram.setAllReceived(true);
    expect(block.receivedCount()).toBe(1024);
    expect(block.isReceived(1023)).toBe(true);
    expect(block.isRangeReceived(0, block.lengthBytes)).toBe(true);
    ram.setAllReceived(false);
    expect(block.isRangeReceived(4095, 2)).toBe(false);
    expect(block.isRangeReceived(4095, 0)).toBe(true);
  });
});

it('the dirty log of a block that spans banks is one bitmap', async () => {
  const ram = await GuestRam.create(
    [
      { name: 'odd', lengthBytes: 3 * 4096, hostPageBytes: 4096 }, // so that the next begins askew
      { name: 'long', lengthBytes: 3 * 2 ** 20, hostPageBytes: 4096 },
    ],
    { maxBankBytes: 2 ** 20, ioBufferBytes: 8192, ioBuffers: 1 },
  );
  const block = ram.block('long')!;
  expect(block.segments.length).toBeGreaterThan(2);
  const dirty = [0, 7, 63, 64, 200, 201, 500, block.pageCount - 1];
  for (const page of dirty) block.write(page * 4096, Uint8Array.of(1));
  const bitmap = block.dirtyBitmap();
  expect(bitmap.length).toBe(block.pageCount / 8);
  const found = Array.from({ length: block.pageCount }, (_, page) => page).filter(
    (page) => (bitmap[page >> 3]! & (1 << (page & 7))) !== 0,
  );
  expect(found).toEqual(dirty);
});

describe('discardRange', () => {
  async function discardable(): Promise<RamBlock> {
    const ram = await GuestRam.create(
      [{ name: 'huge', lengthBytes: 3 * 2 ** 20, hostPageBytes: 65_536 }],
      { maxBankBytes: 2 ** 20, ioBufferBytes: 8192, ioBuffers: 1 },
    );
    ram.setAllReceived(true);
    return ram.blocks[0]!;
  }

  it('makes whole host pages missing, across banks too, and leaves the others', async () => {
    const block = await discardable();
    expect(block.segments.length).toBeGreaterThan(2);
    const border = block.segments[1]!.firstPage;
    const [from, to] = [border - 16, border + 32];
    block.discardRange(from * 4096, (to - from) * 4096);
    expect(block.receivedCount(from, to)).toBe(0);
    expect(block.receivedCount()).toBe(block.pageCount - 48);
    block.discardRange(0, 0);
    block.discardRange(block.lengthBytes, 0);
    expect(block.receivedCount()).toBe(block.pageCount - 48);
    block.discardRange(0, block.lengthBytes);
    expect(block.receivedCount()).toBe(0);
  });

  it('refuses what lies outside of the block, or is no whole host page, by name', async () => {
    const block = await discardable();
    const refused = (start: number, length: number, code: string): void => {
      expect(() => block.discardRange(start, length)).toThrow(
        expect.objectContaining({
          code,
          message: expect.stringContaining('RAM block huge'),
          details: { block: 'huge', offsetBytes: start, lengthBytes: length },
        }),
      );
    };
    refused(0, block.lengthBytes + 65_536, 'DISCARD_OUT_OF_RANGE');
    refused(block.lengthBytes, 65_536, 'DISCARD_OUT_OF_RANGE');
    refused(-65_536, 65_536, 'DISCARD_OUT_OF_RANGE');
    refused(2 ** 60, 65_536, 'DISCARD_OUT_OF_RANGE');
    refused(4096, 65_536, 'DISCARD_UNALIGNED');
    refused(0, 4096, 'DISCARD_UNALIGNED');
    expect(block.receivedCount()).toBe(block.pageCount);
  });
});
