// The engine held against its twin: the same calls on the same memory leave the same memory.

import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Engine } from '../src/engine-module.ts';
import { GuestRam, RamReceiver, RamSender } from '../src/index.ts';
import { ENTRY_BYTES, RECEIVER_PTR, RX_POSTCOPY, SENDER_PTR } from '../src/layout.ts';
import { FLAG_CONTINUE, FLAG_PAGE, FLAG_XBZRLE, FLAG_ZERO, join, KIB, record } from './migrate.ts';
import { twinEngine } from './twin/engine.ts';

const BLOCKS = [
  { name: 'a', lengthBytes: 80 * KIB, hostPageBytes: 4096 },
  { name: 'b', lengthBytes: 128 * KIB, hostPageBytes: 16 * KIB },
];
const OPTIONS = { ioBufferBytes: 32 * KIB, ioBuffers: 1, xbzrleCacheBytes: 32 * KIB };

/** The same guest memory twice, for the engine and for its twin. */
async function both() {
  const rams = [await GuestRam.create(BLOCKS, OPTIONS), await GuestRam.create(BLOCKS, OPTIONS)];
  const [real, twin] = rams.map(({ banks }) => banks[0]!);
  const { plan } = rams[0]!;
  const { edgesPtr } = plan;
  return {
    rams,
    plan,
    /** Fills both memories alike. */
    prepare(fill: (ram: GuestRam) => void): void {
      fill(rams[0]!);
      twin!.bytes.set(real!.bytes);
    },
    /** Makes one call on each, and compares all but what is room for the call's own use. */
    call(
      run: (engine: Pick<Engine, 'decode' | 'encode' | 'hashPages'>) => number | bigint,
    ): number {
      const results = [run(real!.engine), run(twinEngine(twin!.memory))];
      expect(BigInt.asUintN(64, BigInt(results[0]!))).toBe(BigInt.asUintN(64, BigInt(results[1]!)));
      const sent = plan.banks[0]!.sendPtrs[0]! + Number(BigInt.asUintN(31, BigInt(results[0]!)));
      for (const { bytes } of [real!, twin!]) {
        bytes.fill(0, edgesPtr, edgesPtr + 8256);
        bytes.fill(0, sent, plan.banks[0]!.inputPtrs[0]!);
      }
      expect(Buffer.compare(real!.bytes, twin!.bytes)).toBe(0);
      return Number(results[0]);
    },
  };
}

const content = fc.array(
  fc.record({
    block: fc.nat(1),
    page: fc.nat(11),
    at: fc.nat(4095),
    fill: fc.nat(255),
    length: fc.constantFrom(1, 30, 700, 4500),
  }),
  { maxLength: 20 },
);
type Content = typeof content extends fc.Arbitrary<infer T> ? T : never;

function write(ram: GuestRam, writes: Content): void {
  for (const { block, page, at, fill, length } of writes) {
    const { lengthBytes } = BLOCKS[block]!;
    const offset = (page * 4096 + at) % (lengthBytes - length);
    ram.blocks[block]!.write(offset, new Uint8Array(length).fill(fill));
  }
}

describe('the engine and its twin', () => {
  let pair: Awaited<ReturnType<typeof both>>;
  beforeAll(async () => {
    pair = await both();
  });

  it('write the same records, with the cache and without, whatever room there is', () => {
    const call = fc.record({
      block: fc.nat(1),
      named: fc.nat(1),
      from: fc.nat(11),
      length: fc.nat(12),
      room: fc.oneof(fc.nat(32 * KIB), fc.constant(32 * KIB), fc.constant(32 * KIB)),
      findZeroPages: fc.nat(1),
      writes: content,
    });
    fc.assert(
      fc.property(
        fc.boolean(),
        content,
        fc.array(call, { maxLength: 8 }),
        (caches, first, calls) => {
          pair.prepare((ram) => {
            ram.setAllReceived(true);
            const sender = new RamSender(ram, { xbzrleCacheBytes: caches ? 32 * KIB : 0 });
            write(ram, first);
            sender.oweAll();
            while (sender.owedPages() > 0) sender.next()?.release(); // the cache is in use from here on
          });
          for (const { block, named, from, length, room, findZeroPages, writes } of calls) {
            pair.prepare((ram) => write(ram, writes));
            const { pages, owedPtr } = pair.rams[0]!.blocks[block]!.segments[0]!;
            const [first, end] = [Math.min(from, pages), Math.min(from + length, pages)];
            pair.prepare(({ banks }) => banks[0]!.engine.setRange(owedPtr, first, end));
            const out = pair.plan.banks[0]!.sendPtrs[0]!;
            const entry = pair.plan.tablePtr + block * ENTRY_BYTES;
            pair.call((engine) =>
              engine.encode(SENDER_PTR, entry, named, first, end, out, out + room, findZeroPages),
            );
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('read the same of any records, right or wrong', () => {
    const name = fc.constantFrom('a', 'a', 'a', 'b', 'b', 'b', 'c');
    const right = [FLAG_ZERO, FLAG_PAGE, FLAG_XBZRLE];
    const flags = fc.constantFrom(...right, ...right, ...right, 0x10, 0x42);
    const one = fc
      .record({
        page: fc.oneof({ weight: 9, arbitrary: fc.nat(33) }, fc.constant(2 ** 30)),
        flag: flags,
        continues: fc.constantFrom(false, false, true),
        name,
        fill: fc.constantFrom(0, 0, 0, 7),
        changes: fc.uint8Array({ maxLength: 6 }),
        bad: fc.constantFrom(0, 0, 0, 1, 2),
      })
      .map(({ page, flag, continues, name, fill, changes, bad }) => {
        const encoding = Uint8Array.of(0, changes.length + 1, 9, ...changes);
        const xbzrle = bad === 2 ? join([encoding, Uint8Array.of(0, 0)]) : encoding;
        const body =
          flag === FLAG_PAGE
            ? new Uint8Array(4096).fill(fill + 1)
            : flag === FLAG_XBZRLE
              ? Uint8Array.of(bad === 1 ? 2 : 1, 0, xbzrle.length, ...xbzrle)
              : Uint8Array.of(fill);
        const options = continues ? { body } : { name, body };
        return record(page * 4096, continues ? flag | FLAG_CONTINUE : flag, options);
      });
    /** A host page of the second block, whole and in order. */
    const hostPage = fc
      .nat(7)
      .map((host) =>
        join(
          Array.from({ length: 4 }, (_, i) =>
            record((host * 4 + i) * 4096, FLAG_ZERO, { name: 'b', body: Uint8Array.of(0) }),
          ),
        ),
      );
    const stream = fc.array(fc.oneof(one, hostPage), { maxLength: 7 });
    fc.assert(
      fc.property(stream, fc.boolean(), content, fc.nat(200), (records, postcopy, writes, cut) => {
        const bytes = join(records);
        pair.prepare((ram) => {
          ram.setAllReceived(true);
          write(ram, writes);
          if (postcopy) ram.setAllReceived(false);
          else ram.blocks[0]!.discardRange(0, 8 * 4096);
          const receiver = new RamReceiver(ram);
          if (postcopy) receiver.enterPostcopy();
          ram.banks[0]!.bytes.set(bytes.subarray(0, 32 * KIB), pair.plan.banks[0]!.inputPtrs[0]!);
        });
        expect(pair.rams[1]!.banks[0]!.getU32(RECEIVER_PTR + RX_POSTCOPY)).toBe(postcopy ? 1 : 0);
        const { tablePtr, slots } = pair.plan;
        const at = pair.plan.banks[0]!.inputPtrs[0]!;
        const end = at + Math.max(0, Math.min(bytes.length, 32 * KIB) - cut);
        pair.call((engine) => engine.decode(RECEIVER_PTR, tablePtr, BLOCKS.length, slots, at, end));
      }),
      { numRuns: 500 },
    );
  });

  it('have the same checksums', () => {
    fc.assert(
      fc.property(content, fc.bigInt(0n, 2n ** 64n - 1n), (writes, previous) => {
        pair.prepare((ram) => write(ram, writes));
        const { ptr, pages } = pair.rams[0]!.blocks[1]!.segments[0]!;
        pair.call((engine) => engine.hashPages(ptr, pages, previous));
      }),
      { numRuns: 10 },
    );
  });
});
