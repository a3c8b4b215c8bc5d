import { randomBytes } from 'node:crypto';
import {
  constants,
  deflateSync,
  inflateSync,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { createPacketCompressor, createPacketDecompressor } from '../src/index.ts';

const PACKET = 512 * 1024;

describe.each(['zlib', 'zstd'] as const)('packets compressed with %s', (method) => {
  it('are one stream, each readable on its own', async () => {
    const compressor = createPacketCompressor({ method, level: 1 });
    const decompressor = createPacketDecompressor(method);
    const packets = [
      randomBytes(PACKET),
      Buffer.alloc(PACKET, 'the same again '),
      randomBytes(4096),
      Buffer.alloc(4096),
    ];
    const parts: Uint8Array[] = [];
    for (const packet of packets) {
      const part = await compressor.compress(packet);
      parts.push(part.slice());
      const into = new Uint8Array(packet.length);
      expect(await decompressor.decompress(part, into)).toBe(packet.length);
      expect(Buffer.compare(into, packet)).toBe(0);
    }
    const begin = method === 'zlib' ? [0x78, 0x01] : [0x28, 0xb5, 0x2f, 0xfd];
    expect([...parts[0]!.subarray(0, begin.length)]).toEqual(begin);
    if (method === 'zlib') expect([...parts[1]!.slice(-4)]).toEqual([0, 0, 0xff, 0xff]);
    // The second packet refers to what came before it, as one stream does.
    const whole = Buffer.concat(parts);
    const plain =
      method === 'zlib'
        ? inflateSync(whole, { finishFlush: constants.Z_SYNC_FLUSH })
        : zstdDecompressSync(whole, { finishFlush: constants.ZSTD_e_flush });
    expect(Buffer.compare(plain, Buffer.concat(packets))).toBe(0);
    compressor.close();
    decompressor.close();
  });

  it('that would become more than a packet are not read to their end', async () => {
    const bomb = Buffer.alloc(256 * 2 ** 20);
    const bytes = method === 'zlib' ? deflateSync(bomb) : zstdCompressSync(bomb);
    expect(bytes.length).toBeLessThan(2 ** 20);
    const before = process.memoryUsage();
    const into = new Uint8Array(PACKET);
    const count = await createPacketDecompressor(method).decompress(bytes, into);
    expect(count).toBeGreaterThan(PACKET);
    expect(count).toBeLessThan(PACKET + 2 ** 20);
    const { arrayBuffers } = process.memoryUsage();
    expect(arrayBuffers - before.arrayBuffers).toBeLessThan(8 * 2 ** 20);
  });

  it('that are damaged, too short or at their end are refused', async () => {
    const into = new Uint8Array(4096);
    const damaged = createPacketDecompressor(method);
    await expect(damaged.decompress(Buffer.alloc(100, 0xaa), into)).rejects.toThrow();
    await expect(damaged.decompress(Buffer.alloc(100, 0xaa), into)).rejects.toThrow();
    const part = await createPacketCompressor({ method, level: 1 }).compress(randomBytes(4096));
    const short = createPacketDecompressor(method);
    expect(await short.decompress(part.subarray(0, 100), into)).toBeLessThan(4096);
  });
});

it('a zlib stream that ends is refused at the next packet', async () => {
  const decompressor = createPacketDecompressor('zlib');
  const into = new Uint8Array(4096);
  await decompressor.decompress(deflateSync(randomBytes(4096)), into);
  await expect(decompressor.decompress(deflateSync(randomBytes(4096)), into)).rejects.toThrow();
});
