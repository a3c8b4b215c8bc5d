import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { GuestRam, PAGES_PER_PACKET, PacketPages, RamReceiver, RamSender } from '../src/index.ts';

const PAGE = 4096;
/** A bank holds less than the first block: its pages and packets lie in several. */
const BLOCKS = [
  { name: 'pc.ram', lengthBytes: 1200 * PAGE, hostPageBytes: PAGE },
  { name: 'small', lengthBytes: 3 * PAGE, hostPageBytes: PAGE },
  { name: 'hugemem', lengthBytes: 64 * PAGE, hostPageBytes: 16 * PAGE },
];
const OPTIONS = {
  maxBankBytes: 4 * 2 ** 20,
  ioBufferBytes: 65536,
  ioBuffers: 1,
  multifdChannels: 2,
};

const offsetsOf = (head: Uint8Array, pages: number): bigint[] => {
  const view = new DataView(head.buffer, head.byteOffset);
  return Array.from({ length: pages }, (_, i) => view.getBigUint64(320 + 8 * i));
};

/** Runs of pages, of which a third hold zeroes that were written. */
const runs = fc.array(
  fc.record({ at: fc.nat(1266), pages: fc.integer({ min: 1, max: 300 }), fill: fc.nat(2) }),
  { maxLength: 6 },
);

async function guest(): Promise<GuestRam> {
  const ram = await GuestRam.create(BLOCKS, OPTIONS);
  expect(ram.banks.length).toBeGreaterThan(1);
  return ram;
}

function write(ram: GuestRam, written: readonly { at: number; pages: number; fill: number }[]) {
  for (const { at, pages, fill } of written) {
    for (let i = at; i < Math.min(at + pages, 1267); i++) {
      const [block, page] =
        i < 1200
          ? [ram.blocks[0]!, i]
          : i < 1203
            ? [ram.blocks[1]!, i - 1200]
            : [ram.blocks[2]!, i - 1203];
      block.write(page * PAGE, new Uint8Array(PAGE).fill(fill === 0 ? 0 : i + fill));
    }
  }
}

describe('PacketPages', () => {
  it.each(['channels', 'sender', 'nobody'] as const)(
    'brings all pages over, zero pages found by %s',
    async (finder) => {
      await fc.assert(
        fc.asyncProperty(
          runs,
          runs,
          fc.integer({ min: 1, max: 400 }),
          async (first, second, most) => {
            const [source, destination] = [await guest(), await guest()];
            source.setAllReceived(true);
            const sender = new RamSender(source, { pageLists: 4, zeroPages: finder === 'sender' });
            const receiver = new RamReceiver(destination);
            const out = [0, 1].map((channel) => new PacketPages(source, channel));
            const back = [0, 1].map((channel) => new PacketPages(destination, channel));
            let packets = 0;
            let zeroes = 0;
            const sendAll = (): void => {
              for (let chunk = sender.next(most * PAGE); chunk; chunk = sender.next(most * PAGE)) {
                receiver.input.bytes.set(chunk.bytes);
                expect(receiver.decode(0, chunk.bytes.length).consumed).toBe(chunk.bytes.length);
                chunk.release();
                const { list } = chunk;
                if (list === undefined) continue;
                expect(list.pages).toBeLessThanOrEqual(most);
                for (let from = 0; from < list.pages; from += PAGES_PER_PACKET) {
                  const [there, here] = [out[packets % 2]!, back[packets++ % 2]!];
                  const counts = there.fill(list, from, finder === 'channels');
                  zeroes += counts.zeroPages;
                  const { normalPages, zeroPages } = counts;
                  const block = destination.blocks[list.block]!;
                  here.startHead().set(there.head);
                  expect(here.checkOffsets(block, normalPages + zeroPages)).toBeUndefined();
                  const content = there.content(packets % 3 === 0);
                  for (const [i, offset] of offsetsOf(
                    there.head,
                    normalPages + zeroPages,
                  ).entries()) {
                    const page = source.blocks[list.block]!.read(Number(offset), PAGE);
                    if (i >= normalPages) expect(page.every((byte) => byte === 0)).toBe(true);
                    else if (i < 3) expect(page).toEqual(content.slice(i * PAGE, (i + 1) * PAGE));
                  }
                  here.room(normalPages).set(content);
                  here.place(counts);
                }
                sender.releaseList(list);
              }
            };
            write(source, first);
            sender.oweAll();
            sendAll();
            write(source, second);
            sender.syncDirty();
            sendAll();
            expect(sender.owedPages()).toBe(0);
            expect(finder !== 'channels' && zeroes > 0).toBe(false);
            for (const [i, block] of source.blocks.entries()) {
              const copy = destination.blocks[i]!;
              expect(copy.receivedCount()).toBe(block.pageCount);
              expect(
                Buffer.compare(copy.read(0, copy.lengthBytes), block.read(0, block.lengthBytes)),
              ).toBe(0);
            }
          },
        ),
        { numRuns: 12 },
      );
    },
  );

  it('refuses every offset that is no page of the block, and writes nothing', async () => {
    const ram = await guest();
    const packet = new PacketPages(ram, 1);
    await fc.assert(
      fc.asyncProperty(
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.integer({ min: 0, max: 127 }),
        async (offset, at) => {
          const head = packet.startHead().fill(0);
          new DataView(head.buffer, head.byteOffset).setBigUint64(320 + 8 * at, offset);
          const isPage = offset % 4096n === 0n && offset < 1200n * 4096n;
          expect(packet.checkOffsets(ram.blocks[0]!, 128)).toBe(isPage ? undefined : offset);
          // One that lies behind those that count is not looked at.
          expect(packet.checkOffsets(ram.blocks[0]!, at)).toBeUndefined();
        },
      ),
    );
    expect(ram.blocks[0]!.receivedCount()).toBe(0);
  });

  it('needs memory with room for its channel', async () => {
    const ram = await guest();
    expect(() => new PacketPages(ram, 2)).toThrowError(
      /channel 2 of a guest memory for 2 channels/,
    );
    expect(() => new RamSender(ram, { pageLists: 5 })).toThrowError(/pageLists is 5/);
  });
});
