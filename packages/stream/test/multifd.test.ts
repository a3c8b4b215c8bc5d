import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeMultifdInit,
  encodeMultifdInit,
  getMultifdHead,
  MULTIFD_MAGIC,
  putMultifdHead,
} from '../src/index.ts';

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
const u32 = fc.nat(2 ** 32 - 1);

describe('the packet that begins a channel', () => {
  it('is what a QEMU sends', () => {
    const bytes = encodeMultifdInit(7, '00112233-4455-6677-8899-aabbccddeeff');
    expect(hex(bytes)).toBe(
      `1122334400000001${'00112233445566778899aabbccddeeff'}07${'00'.repeat(39)}`,
    );
    expect(decodeMultifdInit(bytes)).toEqual({
      magic: MULTIFD_MAGIC,
      version: 1,
      uuid: '00112233-4455-6677-8899-aabbccddeeff',
      id: 7,
    });
  });
});

describe('the head of a packet', () => {
  it('is what a QEMU sends', () => {
    const bytes = new Uint8Array(1344);
    putMultifdHead(bytes, {
      ...{ flags: 2, pagesAlloc: 128, normalPages: 3, contentBytes: 0x1234 },
      ...{ packetNum: 0x1_0000_0002n, zeroPages: 5, block: 'pc.ram' },
    });
    expect(hex(bytes.subarray(0, 72))).toBe(
      '112233440000000100000002000000800000000300001234' +
        `000000010000000200000005${'00'.repeat(28)}${hex(new TextEncoder().encode('pc.ram'))}0000`,
    );
    expect(bytes.subarray(70).every((byte) => byte === 0)).toBe(true);
  });

  it('gives back what was put in', () => {
    const head = fc.record({
      ...{ flags: u32, pagesAlloc: u32, normalPages: u32, contentBytes: u32, zeroPages: u32 },
      packetNum: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      block: fc.stringMatching(/^[a-z0-9./@-]{0,255}$/),
    });
    fc.assert(
      fc.property(head, (fields) => {
        const bytes = new Uint8Array(1344);
        putMultifdHead(bytes, fields);
        expect(getMultifdHead(bytes)).toEqual({ ...fields, magic: MULTIFD_MAGIC, version: 1 });
      }),
    );
  });

  it('ends a name that no NUL ends', () => {
    const bytes = new Uint8Array(1344).fill(0x61);
    expect(getMultifdHead(bytes).block).toBe('a'.repeat(255));
  });
});
