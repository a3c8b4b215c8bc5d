import { beforeEach, describe, expect, it } from 'vitest';
import {
  FLAG_CONTINUE,
  FLAG_EOS,
  FLAG_PAGE,
  FLAG_XBZRLE,
  FLAG_ZERO,
  join,
  record,
} from '../test/migrate.ts';
import { GuestRam } from './guest-ram.ts';
import { SLOT_BLOCK, SLOT_PAGE, SLOT_STATE, WAITING_PTR } from './layout.ts';
import { type DecodeResult, RamReceiver } from './ram-receiver.ts';

const KIB = 1024;
const page = (fill: number): Uint8Array => new Uint8Array(4096).fill(fill);
const zero = (offset: number, name?: string, fill = 0): Uint8Array =>
  name === undefined
    ? record(offset, FLAG_ZERO | FLAG_CONTINUE, { body: Uint8Array.of(fill) })
    : record(offset, FLAG_ZERO, { name, body: Uint8Array.of(fill) });
const normal = (offset: number, fill: number, name?: string): Uint8Array =>
  name === undefined
    ? record(offset, FLAG_PAGE | FLAG_CONTINUE, { body: page(fill) })
    : record(offset, FLAG_PAGE, { name, body: page(fill) });
const xbzrle = (offset: number, data: number[], name?: string): Uint8Array =>
  record(offset, name === undefined ? FLAG_XBZRLE | FLAG_CONTINUE : FLAG_XBZRLE, {
    ...(name !== undefined && { name }),
    body: Uint8Array.of(1, 0, data.length, ...data),
  });

describe.each([
  ['one bank', undefined],
  ['several banks', 2 ** 20],
])('RamReceiver in %s', (_, maxBankBytes) => {
  let ram: GuestRam;
  let receiver: RamReceiver;

  beforeEach(async () => {
    ram = await GuestRam.create(
      [
        { name: 'small', lengthBytes: 512 * KIB, hostPageBytes: 4096 },
        { name: 'other', lengthBytes: 512 * KIB, hostPageBytes: 4096 },
        { name: 'huge', lengthBytes: 128 * KIB, hostPageBytes: 64 * KIB },
      ],
      { ioBufferBytes: 128 * KIB, ioBuffers: 1, ...(maxBankBytes && { maxBankBytes }) },
    );
    receiver = new RamReceiver(ram);
  });

  function decode(...records: Uint8Array[]): DecodeResult {
    const bytes = join(records);
    receiver.input.bytes.set(bytes, 3);
    return receiver.decode(3, 3 + bytes.length);
  }

  function refused(code: string, ...records: Uint8Array[]): DecodeResult {
    const result = decode(...records);
    expect(result.status).toBe('error');
    expect(result.error).toMatchObject({ code });
    return result;
  }

  it('stops in front of every other record', () => {
    for (const flags of [0, 0x01, 0x04, FLAG_EOS, 0x20, 0x0a, 0x42, 0x80, 0x100, 0x200, 0xff]) {
      const first = normal(0, 1, 'small');
      const result = decode(first, record(0, flags));
      expect(result).toMatchObject({ status: 'record', flags, consumed: first.length });
    }
    expect(receiver.counters.normalPages).toBe(11);
  });

  it('asks for more at every cut, applies nothing of the cut record, and goes on', () => {
    const whole = normal(8192, 7, 'other');
    for (const cut of [0, 1, 7, 8, 9, 13, 14, 15, 4000, whole.length - 1]) {
      const result = decode(whole.subarray(0, cut));
      expect(result).toMatchObject({ status: 'need-more', consumed: 0, flags: 0 });
      expect(result.bytesNeeded).toBeGreaterThan(cut);
      expect(result.bytesNeeded).toBeLessThanOrEqual(whole.length);
    }
    expect(ram.block('other')!.receivedCount()).toBe(0);
    expect(receiver.currentBlock).toBeUndefined();
    expect(decode(whole)).toMatchObject({ status: 'need-more', consumed: whole.length });
    expect(receiver.currentBlock?.name).toBe('other');
    expect(ram.block('other')!.read(8191, 3)).toEqual(Uint8Array.of(0, 7, 7));
  });

  it('keeps the last copy of a page, zero or not, and remembers the block', () => {
    decode(normal(0, 1, 'small'), zero(0), normal(4096, 2), normal(0, 3), zero(8192));
    decode(normal(0, 9, 'huge'), normal(4096, 2), zero(0));
    expect(ram.block('small')!.read(0, 1)).toEqual(Uint8Array.of(3));
    expect(ram.block('huge')!.zeroScan()).toBe(31);
    expect(ram.block('small')!.receivedCount()).toBe(3);
    expect(receiver.counters).toEqual({
      normalPages: 5,
      zeroPages: 3,
      xbzrlePages: 0,
      placedHostPages: 0,
    });
    expect(ram.block('small')!.dirtyCount()).toBe(0);
  });

  it('changes a page that is present as XBZRLE says', () => {
    const small = ram.block('small')!;
    decode(
      zero(0, 'small'),
      normal(4096, 7),
      xbzrle(0, [3, 2, 8, 9]),
      xbzrle(4096, [0, 1, 5], 'small'),
    );
    expect(small.read(0, 6)).toEqual(Uint8Array.of(0, 0, 0, 8, 9, 0));
    expect(small.read(4096, 3)).toEqual(Uint8Array.of(5, 7, 7));
    expect(receiver.counters).toMatchObject({ normalPages: 1, zeroPages: 1, xbzrlePages: 2 });
    const whole = xbzrle(0, [3, 2, 8, 1], 'small');
    for (let cut = 0; cut < whole.length; cut++) {
      const result = decode(whole.subarray(0, cut));
      expect(result).toMatchObject({ status: 'need-more', consumed: 0 });
      expect(result.bytesNeeded).toBeGreaterThan(cut);
      expect(result.bytesNeeded).toBeLessThanOrEqual(whole.length);
    }
    decode(whole, xbzrle(4096, []), zero(0)); // memory that was zero is written now, and cleared
    expect(small.read(4, 1)).toEqual(Uint8Array.of(0));
    expect(small.zeroScan()).toBe(small.pageCount - 1);
    receiver.enterPostcopy();
    expect(decode(whole)).toMatchObject({ status: 'record', flags: FLAG_XBZRLE });
  });

  it('refuses XBZRLE of a page that is missing, and what is no encoding', () => {
    const small = ram.block('small')!;
    expect(refused('XBZRLE_PAGE_MISSING', xbzrle(8192, [0, 1, 5], 'small')).error?.details).toEqual(
      {
        block: 'small',
        offsetBytes: 8192n,
        flags: FLAG_XBZRLE,
        position: 3,
        expected: 'a page that is present',
        found: 'page 2, missing',
      },
    );
    decode(normal(0, 7, 'small'));
    const body = (...bytes: number[]): Uint8Array =>
      record(0, FLAG_XBZRLE | FLAG_CONTINUE, { body: Uint8Array.from(bytes) });
    const found = (bytes: Uint8Array): string | undefined =>
      refused('XBZRLE_INVALID', bytes).error?.details.found;
    expect(found(body(2, 0, 1, 0))).toBe('encoding 2');
    expect(found(body(1, 0x10, 1))).toBe('4097 bytes');
    expect(found(xbzrle(0, [0, 1, 9, 0xff, 0x1f, 2, 1, 1]))).toBe(
      'something else from byte 5 of the data',
    );
    expect(small.read(0, 2)).toEqual(Uint8Array.of(7, 7));
    receiver.reset();
    refused('NO_PREVIOUS_BLOCK', body(1, 0, 0));
  });

  it('clears a page that the guest or a device wrote before', () => {
    const small = ram.block('small')!;
    small.write(0, Uint8Array.of(1));
    ram.setAllReceived(true);
    small.view(4096, 1)[0] = 5;
    ram.setAllReceived(false);
    decode(zero(0, 'small'), zero(4096));
    expect(small.zeroScan()).toBe(small.pageCount);
    // Received as zero, then written by a vCPU of a guest that ran here.
    small.view(0, 1)[0] = 5;
    ram.setAllReceived(false);
    decode(zero(0));
    expect(small.zeroScan()).toBe(small.pageCount);
    decode(normal(0, 1));
    small.discardRange(0, 4096);
    expect(small.isReceived(0)).toBe(false);
    receiver.enterPostcopy();
    decode(zero(0));
    expect(small.zeroScan()).toBe(small.pageCount);
  });

  it('takes long runs of zero pages, up to the record that does not go on', () => {
    const block = ram.block('small')!;
    const run = (from: number, to: number, fillAt?: number): Uint8Array[] =>
      Array.from({ length: to - from }, (_, i) =>
        zero((from + i) * 4096, undefined, +(from + i === fillAt)),
      );
    decode(normal(70 * 4096, 7, 'small'));
    // The word that holds the written page goes one by one, the other one at once.
    expect(decode(...run(0, 128)).error).toBeUndefined();
    expect([block.receivedCount(), ...block.read(70 * 4096, 2)]).toEqual([128, 0, 0]);
    expect(receiver.counters).toMatchObject({ normalPages: 1, zeroPages: 128 });

    block.discardRange(0, block.lengthBytes);
    const { error } = refused('ZERO_PAGE_FILL', ...run(0, 64, 40));
    expect(error?.details.position).toBe(3 + 40 * 9);
    expect(block.receivedCount()).toBe(40);
    // One is left out: those before and after it come all the same.
    expect(decode(...run(64, 90), ...run(91, 128)).error).toBeUndefined();
    expect([block.receivedCount(), block.isReceived(90)]).toEqual([40 + 63, false]);
    const short = decode(...run(0, 64).slice(0, -1), zero(63 * 4096).slice(0, 8));
    expect([short.consumed, short.status]).toEqual([63 * 9, 'need-more']);
  });

  it('refuses what is wrong and names it', () => {
    const good = normal(0, 1, 'small');
    expect(refused('NO_PREVIOUS_BLOCK', normal(0, 1)).consumed).toBe(0);
    const unknown = refused('UNKNOWN_BLOCK', good, zero(0, 'pc.rom'));
    expect(unknown.consumed).toBe(good.length);
    expect(unknown.error?.details).toEqual({
      offsetBytes: 0n,
      flags: FLAG_ZERO,
      position: 3 + good.length,
      expected: 'one of "small", "other", "huge"',
      found: '"pc.rom"',
    });
    refused('UNKNOWN_BLOCK', zero(0, 'smal'));
    refused('UNKNOWN_BLOCK', zero(0, ''));
    expect(refused('OFFSET_OUT_OF_RANGE', zero(512 * KIB)).error?.details).toMatchObject({
      block: 'small',
      offsetBytes: 0x80000n,
      expected: 'an offset below 0x80000',
    });
    refused('OFFSET_OUT_OF_RANGE', record(0xfffffffffffff000n, FLAG_PAGE | FLAG_CONTINUE));
    refused('OFFSET_OUT_OF_RANGE', record(1n << 44n, FLAG_PAGE | FLAG_CONTINUE));
    expect(refused('ZERO_PAGE_FILL', zero(4096, 'huge', 7)).error?.details.found).toBe(
      'fill byte 7',
    );
    expect(() => receiver.decode(0, receiver.input.bytes.length + 1)).toThrow(
      expect.objectContaining({ code: 'RANGE' }),
    );
    receiver.reset();
    refused('NO_PREVIOUS_BLOCK', normal(0, 1));
  });

  it('has its input where the pages go, so that they are copied once', () => {
    const bankOf = (): number =>
      ram.banks.findIndex(({ memory }) => memory.buffer === receiver.input.bytes.buffer);
    const { segments } = ram.block('huge')!;
    expect(bankOf()).toBe(0);
    decode(normal(0, 1, 'huge'));
    expect(bankOf()).toBe(segments[0]!.bank);
    decode(normal(0, 2, 'small'), normal(4096, 3), normal(0, 4, 'huge'), record(0, FLAG_EOS));
    expect(bankOf()).toBe(segments[0]!.bank);
    const part = normal(8192, 5, 'small').subarray(0, 100);
    expect(decode(normal(4096, 4, 'small'), part)).toMatchObject({ status: 'need-more' });
    expect(bankOf()).toBe(0);
    expect(ram.block('small')!.read(4096, 1)).toEqual(Uint8Array.of(4));
    expect(ram.block('huge')!.read(0, 1)).toEqual(Uint8Array.of(4));
  });

  it('makes a host page present at once, when it is whole', () => {
    const huge = ram.block('huge')!;
    receiver.enterPostcopy();
    for (let i = 0; i < 15; i++) {
      const at = 64 * KIB + i * 4096;
      decode(i === 7 ? zero(at) : normal(at, 1 + i, 'huge'));
      expect(huge.receivedCount()).toBe(0);
      expect(receiver.hostPageIncomplete).toBe(true);
    }
    expect(decode(record(0, FLAG_EOS)).status).toBe('record');
    decode(normal(64 * KIB + 15 * 4096, 15));
    expect(huge.receivedCount(16, 32)).toBe(16);
    expect(huge.receivedCount()).toBe(16);
    expect(receiver.counters.placedHostPages).toBe(1);
    expect(receiver.hostPageIncomplete).toBe(false);
    expect(huge.zeroScan(16, 32)).toBe(1);
  });

  it('wakes the vCPU that waits for a page of the host page placed, and no other', () => {
    const huge = ram.block('huge')!;
    const { memory, firstPage } = huge.segments.findLast((s) => s.firstPage <= 16)!;
    const words = new Int32Array(memory.buffer);
    const slot = ram.vcpuSlotPtr(0);
    words[WAITING_PTR >> 2] = 1;
    words[(slot + SLOT_BLOCK) >> 2] = huge.index;
    words[(slot + SLOT_PAGE) >> 2] = 16 - firstPage;
    words[(slot + SLOT_STATE) >> 2] = 1;
    receiver.enterPostcopy();
    const hostPage = (from: number): Uint8Array[] =>
      Array.from({ length: 16 }, (_, i) => zero((from + i) * 4096, 'huge'));
    decode(zero(16 * 4096, 'small'), ...hostPage(0), ...hostPage(16).slice(0, 15));
    expect(words[(slot + SLOT_STATE) >> 2]).toBe(1);
    decode(...hostPage(16).slice(15));
    expect(words[(slot + SLOT_STATE) >> 2]).toBe(0);
    words[(slot + SLOT_STATE) >> 2] = 1;
    ram.faults.wakeAll();
    expect(words[(slot + SLOT_STATE) >> 2]).toBe(0);
  });

  it('refuses a host page out of order, interrupted, or twice', () => {
    receiver.enterPostcopy();
    const first = normal(0, 1, 'huge');
    expect(refused('HOST_PAGE_ORDER', normal(4096, 1, 'huge')).error?.details).toMatchObject({
      expected: 'page 0 of RAM block huge',
      found: 'page 1 of RAM block huge',
    });
    const order = refused('HOST_PAGE_ORDER', first, normal(8192, 1));
    expect(order.error?.details.expected).toBe('page 1 of RAM block huge');
    refused('HOST_PAGE_ORDER', normal(0, 1));
    expect(refused('HOST_PAGE_ORDER', zero(4096, 'small')).error?.details).toMatchObject({
      expected: 'page 1 of RAM block huge',
      found: 'page 1 of RAM block small',
    });
    receiver.reset();
    const whole = Array.from({ length: 15 }, (_, i) => zero((i + 1) * 4096));
    expect(decode(first, ...whole).status).toBe('need-more');
    refused('PAGE_ALREADY_RECEIVED', normal(0, 1));
    decode(zero(4096, 'small'));
    refused('PAGE_ALREADY_RECEIVED', normal(4096, 1));
    expect(ram.block('small')!.zeroScan()).toBe(128);
  });
});
