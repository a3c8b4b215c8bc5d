import { GuestRam, PAGES_PER_PACKET, PacketPages } from '@wherry/page-engine';
import { encodeMultifdInit, putMultifdHead } from '@wherry/stream';
import { beforeEach, describe, expect, it } from 'vitest';
import type { MultifdCompression, PacketDecompressor } from './multifd-port.ts';
import { checkMultifdInit, MultifdReceiveChannel } from './multifd-receive.ts';

const PAGE = 4096;
const UUID = '00112233-4455-6677-8899-aabbccddeeff';
const CANARY = 0xa5;

describe('the first packet of a channel', () => {
  const expected = { uuid: UUID, channels: 2 };

  it('names the channel', () => {
    expect(checkMultifdInit(encodeMultifdInit(1, UUID), expected)).toBe(1);
  });

  it('of another guest is refused', () => {
    const other = '00112233-4455-6677-8899-000000000000';
    expect(() => checkMultifdInit(encodeMultifdInit(1, other), expected)).toThrowError(
      `multifd: received uuid '${other}' and expected uuid '${UUID}' for channel 1`,
    );
  });

  it('with an id beyond the channels is refused', () => {
    expect(() => checkMultifdInit(encodeMultifdInit(2, UUID), expected)).toThrowError(
      'multifd: received channel id 2 is greater than number of channels 2',
    );
  });

  it.each([
    [0, 'multifd: received packet magic ff223344 expected 11223344'],
    [4, 'multifd: received packet version 4278190081 expected 1'],
  ])('with other bytes at %i is refused', (at, message) => {
    const bytes = encodeMultifdInit(1, UUID);
    bytes[at] = 0xff;
    expect(() => checkMultifdInit(bytes, expected)).toThrowError(message);
  });
});

/** The fields of a packet of one page, as it should be. */
const GOOD = {
  ...{ flags: 0, pagesAlloc: PAGES_PER_PACKET, normalPages: 1, contentBytes: PAGE },
  ...{ packetNum: 0n, zeroPages: 0, block: 'pc.ram' },
};

function packet(
  fields: Partial<typeof GOOD>,
  offsets: readonly bigint[] = [0n],
  content = new Uint8Array(PAGE).fill(7),
): Uint8Array {
  const bytes = new Uint8Array(1344 + content.length);
  putMultifdHead(bytes, { ...GOOD, ...fields });
  const view = new DataView(bytes.buffer);
  for (const [i, offset] of offsets.entries()) view.setBigUint64(320 + 8 * i, offset);
  bytes.set(content, 1344);
  return bytes;
}

describe('a packet that must not be believed', () => {
  let ram: GuestRam;

  beforeEach(async () => {
    ram = await GuestRam.create(
      [
        { name: 'before', lengthBytes: 4 * PAGE, hostPageBytes: PAGE },
        { name: 'pc.ram', lengthBytes: 8 * PAGE, hostPageBytes: PAGE },
        { name: 'behind', lengthBytes: 4 * PAGE, hostPageBytes: PAGE },
      ],
      { ioBufferBytes: 8192, multifdChannels: 1 },
    );
    for (const block of ram.blocks) block.view(0, block.lengthBytes).fill(CANARY);
  });

  /** Receives bytes and then the end of the connection, a few bytes at a time. */
  async function receive(
    bytes: Uint8Array,
    compression: MultifdCompression = 'none',
    decompressor?: PacketDecompressor,
  ) {
    let at = 0;
    const channel = new MultifdReceiveChannel({
      ...{ pages: new PacketPages(ram, 0), id: 0, compression, decompressor },
      transport: {
        read: async (into) => {
          const piece = bytes.subarray(at, at + Math.min(into.length, 1000));
          into.set(piece);
          at += piece.length;
          return piece.length;
        },
        write: async () => {},
        end: async () => {},
        destroy: () => {},
      },
    });
    return channel.receive();
  }

  const untouched = (): boolean =>
    ram.blocks.every((block) =>
      block.read(0, block.lengthBytes).every((byte) => byte === CANARY),
    ) && ram.blocks.every((block) => block.receivedCount() === 0);

  it('is not one that can', async () => {
    const sync = packet({ flags: 1, normalPages: 0, contentBytes: 0 }, [], new Uint8Array(0));
    const zero = packet({ zeroPages: 1, normalPages: 0 }, [BigInt(PAGE)], new Uint8Array(0));
    const all = Uint8Array.from([...packet({}, [BigInt(3 * PAGE)]), ...zero, ...sync]);
    expect(await receive(all)).toEqual({ ended: false, normalPages: 1, zeroPages: 1 });
    const block = ram.block('pc.ram')!;
    expect(block.read(3 * PAGE, PAGE).every((byte) => byte === 7)).toBe(true);
    expect(block.read(PAGE, PAGE).every((byte) => byte === 0)).toBe(true);
    expect([block.receivedCount(), block.isReceived(3), block.isReceived(1)]).toEqual([
      2,
      true,
      true,
    ]);
    expect(block.read(2 * PAGE, PAGE).every((byte) => byte === CANARY)).toBe(true);
    expect(await receive(new Uint8Array(0))).toMatchObject({ ended: true });
  });

  it.each<[string, Uint8Array, RegExp]>([
    [
      'a page outside its block',
      packet({}, [BigInt(8 * PAGE)]),
      /offset too long 32768 \(max 8000\)/,
    ],
    ['a page far outside', packet({}, [2n ** 64n - 4096n]), /offset too long 18446744073709547520/],
    ['half a page', packet({}, [2048n]), /offset 2048 is no multiple of 4096/],
    [
      'a zero page outside its block',
      packet({ zeroPages: 1 }, [0n, BigInt(9 * PAGE)]),
      /offset too long 36864/,
    ],
    ['an unknown block', packet({ block: 'vga.vram' }), /unknown ram block vga\.vram.*pc\.ram/],
    ['no block', packet({ block: '' }), /unknown ram block/],
    ['too many pages', packet({ normalPages: 129 }), /129 non-zero pages, which exceeds.*128/],
    ['too many zero pages', packet({ zeroPages: 128 }), /128 zero pages, expected maximum 127/],
    ['a larger packet', packet({ pagesAlloc: 129 }), /packet with 129 pages, expected 128/],
    ['compression', packet({ flags: 2 }), /flags received 2 flags expected 0/],
    ['device state', packet({ flags: 0x40 }), /device state/],
    ['no magic', packet({}).fill(0, 0, 4), /packet magic 0 expected 11223344/],
  ])('for %s is refused, and nothing is written', async (_, bytes, message) => {
    await expect(receive(bytes)).rejects.toThrowError(message);
    await expect(receive(bytes)).rejects.toMatchObject({
      code: 'MULTIFD_INVALID',
      path: expect.arrayContaining(['multifd', 'channel 0']),
      offset: 64,
    });
    expect(untouched()).toBe(true);
  });

  it('cut anywhere is refused, and no page counts as received', async () => {
    const bytes = packet({}, [0n]);
    for (const length of [1, 4, 320, 1343, 1344, 1345, bytes.length - 1]) {
      await expect(receive(bytes.subarray(0, length))).rejects.toThrowError(
        /unexpected end inside a packet.*channel 0/,
      );
    }
    expect(ram.blocks.every((block) => block.receivedCount() === 0)).toBe(true);
    for (const name of ['before', 'behind']) {
      const block = ram.block(name)!;
      expect(block.read(0, block.lengthBytes).every((byte) => byte === CANARY)).toBe(true);
    }
  });

  it.each<[string, number, number | Error, RegExp]>([
    ['a bomb', 100, 9 * PAGE, /packet size received more than 4096 size expected 4096/],
    ['too little', 100, 4095, /packet size received 4095 size expected 4096/],
    ['damaged data', 100, new Error('invalid block type'), /inflate failed: invalid block type/],
    ['no data', 0, PAGE, /packet of 0 compressed bytes/],
    ['more data than there can be', 2 ** 20 + 1, PAGE, /1048577 compressed bytes, expected 1 to/],
  ])('with %s behind compression is refused', async (_, contentBytes, result, message) => {
    const bytes = packet({ flags: 2, contentBytes }, [0n], new Uint8Array(100));
    const decompressor: PacketDecompressor = {
      decompress: async () => {
        if (result instanceof Error) throw result;
        return result;
      },
      close() {},
    };
    await expect(receive(bytes, 'zlib', decompressor)).rejects.toThrowError(message);
    expect(ram.blocks.every((block) => block.receivedCount() === 0)).toBe(true);
  });
});
