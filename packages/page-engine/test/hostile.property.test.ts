import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam, RamReceiver } from '../src/index.ts';
import { FLAG_CONTINUE, FLAG_PAGE, FLAG_XBZRLE, FLAG_ZERO, join, KIB, record } from './migrate.ts';

/** Returns the bytes of every bank outside of RAM that a stream must never change, hashed. */
function outside(ram: GuestRam): string {
  return ram.banks
    .map(({ bytes, plan }) => {
      const ramStart = plan.segments[0]!.ptr;
      const inputPtr = plan.inputPtrs[0]!;
      const control = Buffer.from(bytes.slice(192, ram.plan.banks[0]!.segments[0]!.dirtyPtr));
      const between = Buffer.from(bytes.slice(plan.reservedPtr, inputPtr));
      const gap = plan.segments.map(({ ptr, pages }, i) => {
        const end = ptr + pages * 4096;
        return Buffer.from(bytes.slice(end, plan.segments[i + 1]?.ptr ?? bytes.length));
      });
      const slack = Buffer.from(bytes.slice(inputPtr + ram.plan.inputBytes, ramStart));
      return Buffer.concat([control, between, slack, ...gap]).toString('latin1');
    })
    .join('|');
}

describe('a hostile stream', () => {
  const name = fc.constantFrom('a', 'b', 'c', '', 'aa', 'b'.repeat(255));
  const offset = fc.oneof(
    fc.nat(40).map((page) => BigInt(page) << 12n),
    fc.bigInt(0n, (1n << 52n) - 1n).map((page) => page << 12n),
  );
  const flags = fc.oneof(
    fc.constantFrom(FLAG_ZERO, FLAG_PAGE, FLAG_ZERO | FLAG_CONTINUE, FLAG_PAGE | FLAG_CONTINUE),
    fc.nat(0xfff),
  );
  const pageRecord = fc
    .tuple(offset, flags, name, fc.constantFrom(0, 0, 0, 0xff), fc.nat(30))
    .map(([at, flag, block, fill, short]) => {
      const body = new Uint8Array((flag & FLAG_ZERO) !== 0 ? 1 : 4096).fill(fill);
      const bytes = record(at, flag, { ...(!(flag & FLAG_CONTINUE) && { name: block }), body });
      return short === 30 ? bytes.subarray(0, bytes.length >> 1) : bytes;
    });
  // Of a page that is here or not: with data that are right, or begin so.
  const xbzrleRecord = fc
    .tuple(offset, name, fc.constantFrom(0, 1, 1, 1), fc.nat(6), fc.uint8Array({ maxLength: 12 }))
    .map(([at, block, encoding, longer, data]) => {
      const head = Uint8Array.of(
        encoding,
        longer === 6 ? 0xff : 0,
        data.length + 4 + ((longer % 6) >> 2),
      );
      return record(at, FLAG_XBZRLE, {
        name: block,
        body: join([head, Uint8Array.of(0, 2, 9, 9), data]),
      });
    });
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 500 }),
    fc.nat(2000).map((length) => new Uint8Array(length).fill(0xff)),
    fc.nat(2000).map((length) => new Uint8Array(length)),
  );
  const stream = fc.oneof(
    { weight: 4, arbitrary: fc.array(pageRecord, { maxLength: 12 }).map(join) },
    {
      weight: 4,
      arbitrary: fc.array(fc.oneof(pageRecord, xbzrleRecord), { maxLength: 12 }).map(join),
    },
    { weight: 1, arbitrary: noise },
  );

  it.each([
    ['precopy', false, undefined],
    ['postcopy', true, undefined],
    ['precopy in several banks', false, 2 ** 20],
    ['postcopy in several banks', true, 2 ** 20],
  ])('never writes outside of a block, %s', async (_, postcopy, maxBankBytes) => {
    const blocks = [
      { name: 'a', lengthBytes: 64 * KIB, hostPageBytes: 4096 },
      { name: 'b', lengthBytes: 768 * KIB, hostPageBytes: 64 * KIB },
      { name: 'c', lengthBytes: 160 * KIB, hostPageBytes: 16 * KIB },
    ];
    const options = { ioBufferBytes: 64 * KIB, ioBuffers: 1, reservedBytes: 4096 };
    const ram = await GuestRam.create(blocks, {
      ...options,
      ...(maxBankBytes && { maxBankBytes }),
    });
    expect(ram.banks.length > 1).toBe(maxBankBytes !== undefined);
    const before = outside(ram);
    fc.assert(
      fc.property(stream, (bytes) => {
        ram.setAllReceived(false);
        const receiver = new RamReceiver(ram);
        if (postcopy) receiver.enterPostcopy();
        receiver.input.bytes.set(bytes);
        const result = receiver.decode(0, bytes.length);
        expect(result.consumed).toBeLessThanOrEqual(bytes.length);
        if (result.status === 'error') {
          expect(result.error?.details.position).toBe(result.consumed);
        }
        if (result.status === 'need-more') {
          expect(result.bytesNeeded).toBeGreaterThan(bytes.length - result.consumed);
          expect(result.bytesNeeded).toBeLessThanOrEqual(8 + 256 + 3 + 4096);
        }
        expect(outside(ram) === before).toBe(true);
      }),
      { numRuns: 150 },
    );
  });
});
