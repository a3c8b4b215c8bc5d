import fc from 'fast-check';
import { expect, it } from 'vitest';
import { GuestRam, RamReceiver } from '../src/index.ts';
import { FLAG_CONTINUE, FLAG_ZERO, KIB, record } from './migrate.ts';

const PER_HOST = 16;
const HOST_PAGES = 24;

it('discardRange makes exactly its host pages missing, and what comes anew hides what was there', async () => {
  const ram = await GuestRam.create(
    [{ name: 'huge', lengthBytes: HOST_PAGES * PER_HOST * 4096, hostPageBytes: 64 * KIB }],
    { maxBankBytes: 1024 * KIB, ioBufferBytes: 64 * KIB, ioBuffers: 1 },
  );
  const block = ram.blocks[0]!;
  expect(block.segments.length).toBeGreaterThan(1);
  const range = fc
    .tuple(fc.nat(HOST_PAGES), fc.nat(HOST_PAGES))
    .map(([a, b]): [number, number] => [Math.min(a, b), Math.max(a, b)]);
  fc.assert(
    fc.property(fc.array(range, { maxLength: 4 }), fc.nat(HOST_PAGES - 1), (ranges, again) => {
      ram.setAllReceived(true);
      block.write(0, new Uint8Array(block.lengthBytes).fill(7));
      const missing = new Set<number>();
      for (const [from, to] of ranges) {
        block.discardRange(from * 64 * KIB, (to - from) * 64 * KIB);
        for (let page = from; page < to; page++) missing.add(page);
      }
      for (let page = 0; page < HOST_PAGES; page++) {
        const [from, to] = [page * PER_HOST, (page + 1) * PER_HOST];
        expect(block.receivedCount(from, to)).toBe(missing.has(page) ? 0 : PER_HOST);
      }
      if (!missing.has(again)) return;
      const receiver = new RamReceiver(ram);
      receiver.enterPostcopy();
      for (let page = again * PER_HOST; page < (again + 1) * PER_HOST; page++) {
        const bytes = record(
          page * 4096,
          page % PER_HOST === 0 ? FLAG_ZERO : FLAG_ZERO | FLAG_CONTINUE,
          {
            ...(page % PER_HOST === 0 && { name: 'huge' }),
            body: Uint8Array.of(0),
          },
        );
        receiver.input.bytes.set(bytes);
        expect(receiver.decode(0, bytes.length).error).toBeUndefined();
      }
      // What was there before is not seen again.
      expect(block.zeroScan(again * PER_HOST, (again + 1) * PER_HOST)).toBe(PER_HOST);
      expect(block.receivedCount(again * PER_HOST, (again + 1) * PER_HOST)).toBe(PER_HOST);
    }),
  );
});
