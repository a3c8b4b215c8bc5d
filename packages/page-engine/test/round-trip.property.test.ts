import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam, type GuestRamOptions, RamReceiver, type RamSender } from '../src/index.ts';
import { drain, feed, join, KIB, runningSender, sameContent, writePages } from './migrate.ts';

const BLOCKS = [
  { name: 'pc.ram', lengthBytes: 1200 * KIB, hostPageBytes: 4096 },
  { name: 'pc.bios', lengthBytes: 20 * KIB, hostPageBytes: 4096 },
  { name: 'hugemem', lengthBytes: 512 * KIB, hostPageBytes: 64 * KIB },
];
const PAGES = BLOCKS.map(({ lengthBytes }) => lengthBytes / 4096);

const SHAPES: [string, GuestRamOptions][] = [
  ['plain', { ioBufferBytes: 64 * KIB }],
  ['shared', { ioBufferBytes: 64 * KIB, shared: true }],
  ['in several banks', { ioBufferBytes: 8 * KIB, ioBuffers: 1, maxBankBytes: 1024 * KIB }],
];

const pagesOfEach = fc.tuple(
  ...PAGES.map((pages) => fc.uniqueArray(fc.nat(pages - 1), { maxLength: 40 })),
);
const sizes = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 70_000 })),
  {
    minLength: 1,
    maxLength: 4,
  },
);

async function pair(options: GuestRamOptions): Promise<[GuestRam, GuestRam]> {
  return [await GuestRam.create(BLOCKS, options), await GuestRam.create(BLOCKS, options)];
}

function write(ram: GuestRam, pages: readonly number[][], generation: number): void {
  pages.forEach((list, block) => {
    writePages(ram.blocks[block]!, list, generation);
  });
}

/** Feeds what the sender has, each chunk cut by the sizes. */
function send(
  sender: RamSender,
  receiver: RamReceiver,
  cuts: readonly number[],
  max?: number,
): void {
  feed(receiver, join(drain(sender, max)), cuts);
  expect(sender.owedPages()).toBe(0);
}

describe.each(SHAPES)('a migration of guest memory, %s', (_, options) => {
  it('needs no more than rounds of dirty pages to be the same', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(pagesOfEach, { minLength: 1, maxLength: 4 }),
        sizes,
        fc.option(fc.integer({ min: 1, max: 20_000 }), { nil: undefined }),
        async (rounds, cuts, maxBytes) => {
          const [source, destination] = await pair(options);
          const sender = runningSender(source);
          const receiver = new RamReceiver(destination);
          write(source, rounds[0]!, 0);
          sender.oweAll();
          expect(sender.owedBytes).toBe(source.totalBytes);
          send(sender, receiver, cuts, maxBytes);
          expect(sender.counters.zeroPages).toBe(
            PAGES.reduce((a, b) => a + b) - rounds[0]!.flat().length,
          );
          rounds.slice(1).forEach((pages, generation) => {
            write(source, pages, generation + 1);
            // A page that becomes zero again.
            source.blocks[0]!.write(0, new Uint8Array(4096));
            const dirty = pages.flat().length + (pages[0]!.includes(0) ? 0 : 1);
            expect(sender.syncDirty()).toBe(dirty);
            sender.startRound();
            send(sender, receiver, cuts, maxBytes);
          });
          sameContent(source, destination);
          expect(receiver.counters.normalPages).toBe(sender.counters.normalPages);
          expect(receiver.counters.zeroPages).toBe(sender.counters.zeroPages);
          for (const block of destination.blocks) {
            expect(block.receivedCount()).toBe(block.pageCount);
          }
        },
      ),
      { numRuns: 12 },
    );
  });

  it('needs no more where the changes of pages are sent, whatever fits into the cache', async () => {
    const change = fc.tuple(fc.nat(2), fc.nat(1 << 20), fc.nat(40), fc.nat(255));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(change, { maxLength: 30 }), { minLength: 2, maxLength: 7 }),
        fc.constantFrom(4096, 16 * KIB, 256 * KIB),
        fc.boolean(),
        sizes,
        async (rounds, xbzrleCacheBytes, zeroPages, cuts) => {
          const source = await GuestRam.create(BLOCKS, { ...options, xbzrleCacheBytes: 256 * KIB });
          const destination = await GuestRam.create(BLOCKS, options);
          const sender = runningSender(source, { xbzrleCacheBytes, zeroPages });
          const receiver = new RamReceiver(destination);
          sender.oweAll();
          for (const changes of rounds) {
            for (const [index, at, length, fill] of changes) {
              const block = source.blocks[index]!;
              // Pages 0 to 11 of each block, so that most are sent again; often as they were.
              const offset = (at % (12 * 4096)) % (block.lengthBytes - 40);
              block.write(offset, new Uint8Array(length).fill(fill));
            }
            send(sender, receiver, cuts);
            expect(sender.roundComplete).toBe(true);
            sender.syncDirty();
            sender.startRound();
          }
          send(sender, receiver, cuts);
          sameContent(source, destination);
          const { xbzrlePages, normalPages } = receiver.counters;
          expect(normalPages).toBe(sender.counters.normalPages);
          const { pages, overflow, unchanged, ...rest } = sender.xbzrle!;
          expect(xbzrlePages).toBe(pages - overflow - unchanged);
          expect(rest.cacheBytes).toBe(xbzrleCacheBytes);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('discards what is owed, then gets each host page once and whole', async () => {
    await fc.assert(
      fc.asyncProperty(
        pagesOfEach,
        pagesOfEach,
        fc.nat(6),
        fc.array(fc.tuple(fc.nat(PAGES.length - 1), fc.nat(1 << 20)), { maxLength: 6 }),
        sizes,
        async (first, second, precopyChunks, requests, cuts) => {
          const [source, destination] = await pair(options);
          const sender = runningSender(source);
          const receiver = new RamReceiver(destination);
          write(source, first, 0);
          sender.oweAll();
          for (let i = 0; i < precopyChunks; i++) {
            const chunk = sender.next(10_000);
            if (chunk === undefined) break;
            feed(receiver, chunk.bytes.slice(), cuts);
            chunk.release();
          }
          write(source, second, 1);
          sender.syncDirty();
          for (const { block, ranges } of sender.discards()) {
            expect(ranges.length).toBeGreaterThan(0);
            expect(ranges.length).toBeLessThanOrEqual(12);
            for (const [start, length] of ranges) {
              destination.block(block.name)!.discardRange(start, length);
            }
          }
          // The destination holds exactly the pages that the source does not owe.
          for (const block of source.blocks) {
            const other = destination.block(block.name)!;
            for (let page = 0; page < block.pageCount; page++) {
              expect(other.isReceived(page)).toBe(block.owedCount(page, page + 1) === 0);
            }
          }
          sender.enterPostcopy();
          receiver.enterPostcopy();
          const owed = sender.owedPages();
          for (const [index, at] of requests) {
            const block = source.blocks[index]!;
            const page = at % block.pageCount;
            sender.request(block, page * 4096, 4096);
            const chunk = sender.next(9_000);
            if (chunk === undefined) break;
            feed(receiver, chunk.bytes.slice(), cuts);
            chunk.release();
          }
          send(sender, receiver, cuts, 9_000);
          sameContent(source, destination);
          const { normalPages, zeroPages } = receiver.counters;
          const sent = sender.counters.normalPages + sender.counters.zeroPages;
          expect(normalPages + zeroPages).toBe(sent);
          expect(receiver.counters.placedHostPages > 0).toBe(owed > 0);
          expect(receiver.hostPageIncomplete).toBe(false);
        },
      ),
      { numRuns: 12 },
    );
  });
});
