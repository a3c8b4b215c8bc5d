import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam, PageBitmap, type RamRun, RamSender } from '../src/index.ts';
import { KIB, writePages } from './migrate.ts';

const PAGE = 4096;
const PAGES = 96;

/** What a page is before a round: never written, written with content, or written with zeroes. */
const page = fc.constantFrom('untouched', 'content', 'zero');

/** Takes all that is owed, chunk by chunk, as runs. */
function collect(sender: RamSender, maxBytes: number): RamRun[] {
  const runs: RamRun[] = [];
  for (let chunk = sender.next(maxBytes); chunk; chunk = sender.next(maxBytes)) {
    expect(chunk.bytes.length).toBe(0);
    const pages = (isZero: boolean): number =>
      chunk!.runs.reduce((sum, run) => sum + (run.isZero === isZero ? run.pages : 0), 0);
    expect([chunk.normalPages, chunk.zeroPages]).toEqual([pages(false), pages(true)]);
    expect(chunk.lengthBytes).toBe(chunk.normalPages * PAGE);
    expect(chunk.lengthBytes).toBeLessThanOrEqual(Math.max(maxBytes, 2 * PAGE));
    runs.push(...chunk.runs);
    chunk.release();
  }
  return runs;
}

describe.each(['in one bank', 'in several banks'])('runs of owed pages, %s', (banks) => {
  it('are the owed pages, each once, as the twin finds them', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(page, { minLength: PAGES, maxLength: PAGES }),
        fc.array(fc.nat(PAGES - 1), { maxLength: 20 }),
        fc.integer({ min: 1, max: 40 * PAGE }),
        async (pages, rewritten, maxBytes) => {
          const ram = await GuestRam.create(
            [
              { name: 'a', lengthBytes: 32 * PAGE, hostPageBytes: PAGE },
              { name: 'b', lengthBytes: 64 * PAGE, hostPageBytes: 16 * KIB },
            ],
            banks === 'in one bank'
              ? {}
              : { maxBankBytes: 2 ** 20, ioBufferBytes: 65536, reservedBytes: 400 * KIB },
          );
          expect(ram.banks.length > 1).toBe(banks !== 'in one bank');
          ram.setAllReceived(true);
          const place = (at: number) =>
            at < 32 ? { block: ram.block('a')!, at } : { block: ram.block('b')!, at: at - 32 };
          const twin = pages.map((kind) => kind === 'content');
          for (const [i, kind] of pages.entries()) {
            const { block, at } = place(i);
            if (kind === 'content') writePages(block, [at], 1);
            else if (kind === 'zero') block.write(at * PAGE, new Uint8Array(PAGE));
          }
          const sender = new RamSender(ram, { runs: true });
          sender.oweAll();
          const check = (runs: readonly RamRun[], owed: readonly number[]): void => {
            const seen: number[] = [];
            for (const { block, firstPage, pages: count, isZero, bytes } of runs) {
              expect(bytes.length).toBe(count * PAGE);
              expect(Buffer.compare(bytes, block.read(firstPage * PAGE, count * PAGE))).toBe(0);
              for (let page = firstPage; page < firstPage + count; page++) {
                const i = block.name === 'a' ? page : page + 32;
                seen.push(i);
                expect(isZero).toBe(!twin[i]);
              }
            }
            expect(seen.sort((x, y) => x - y)).toEqual([...owed].sort((x, y) => x - y));
          };
          check(collect(sender, maxBytes), [...pages.keys()]);
          expect(sender.owedPages()).toBe(0);
          for (const i of rewritten) {
            const { block, at } = place(i);
            block.write(at * PAGE, new Uint8Array(PAGE)); // a page may become zero again
            twin[i] = false;
          }
          sender.syncDirty();
          check(collect(sender, maxBytes), [...new Set(rewritten)]);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe('a snapshot', () => {
  it('keeps every page from the guest until the chunk that holds it is released', async () => {
    const ram = await GuestRam.create([{ name: 'a', lengthBytes: 16 * PAGE, hostPageBytes: PAGE }]);
    ram.setAllReceived(true);
    const [block] = ram.blocks;
    writePages(block!, [1, 2, 9], 1);
    const sender = new RamSender(ram);
    sender.oweAll();
    sender.enterSnapshot();
    expect(block!.receivedCount()).toBe(0);
    sender.request(block!, 9 * PAGE, PAGE);
    const first = sender.next(PAGE)!;
    expect(first.requested).toBe(true);
    expect(block!.isReceived(9)).toBe(false);
    first.release();
    expect(block!.isReceived(9)).toBe(true);
    for (let chunk = sender.next(); chunk; chunk = sender.next()) chunk.release();
    expect(block!.receivedCount()).toBe(16);
  });
});

describe('fillable', () => {
  it('gives the memory of pages, which a sender then finds written', async () => {
    const ram = await GuestRam.create(
      [{ name: 'a', lengthBytes: 320 * PAGE, hostPageBytes: PAGE }],
      { maxBankBytes: 2 ** 20, ioBufferBytes: 65536, ioBuffers: 1 },
    );
    const [block] = ram.blocks;
    expect(block!.segments.length).toBeGreaterThan(1);
    const views = block!.fillable(10, 300);
    expect(views[0]!.firstPage).toBe(10);
    let next = 10;
    for (const { firstPage, bytes } of views) {
      expect(firstPage).toBe(next);
      next += bytes.length / PAGE;
      bytes.fill(7);
    }
    expect(next).toBe(300);
    expect(block!.receivedCount()).toBe(0);
    expect(block!.dirtyCount()).toBe(0);
    ram.setAllReceived(true);
    const sender = new RamSender(ram, { runs: true });
    sender.oweAll();
    const bitmap = await PageBitmap.create(320);
    for (const { firstPage, pages, isZero } of collect(sender, 2 ** 20)) {
      if (!isZero) bitmap.set(firstPage, firstPage + pages);
    }
    expect([...bitmap.runs()]).toEqual([[10, 300]]);
  });
});
