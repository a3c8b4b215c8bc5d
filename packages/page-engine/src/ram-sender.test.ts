import { beforeEach, describe, expect, it } from 'vitest';
import { FLAG_CONTINUE, FLAG_PAGE, FLAG_XBZRLE, FLAG_ZERO } from '../test/migrate.ts';
import { GuestRam } from './guest-ram.ts';
import type { GuestRamOptions } from './layout.ts';
import type { RamBlock } from './ram-block.ts';
import { RamReceiver } from './ram-receiver.ts';
import { RamSender } from './ram-sender.ts';

const KIB = 1024;

interface SentPage {
  readonly block: string;
  readonly page: number;
  readonly flags: number;
  readonly named: boolean;
}

/** Reads page records by the wire's definition. */
function parse(bytes: Uint8Array, previous?: string): SentPage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const pages: SentPage[] = [];
  let block = previous;
  let at = 0;
  while (at < bytes.length) {
    const word = view.getBigUint64(at);
    const flags = Number(word & 0xfffn);
    at += 8;
    const named = (flags & 0x20) === 0;
    if (named) {
      const length = bytes[at]!;
      block = new TextDecoder().decode(bytes.slice(at + 1, at + 1 + length));
      at += 1 + length;
    }
    expect([0x02, 0x08]).toContain(flags & ~0x20);
    at += (flags & 0x02) !== 0 ? 1 : 4096;
    pages.push({ block: block!, page: Number(word >> 12n), flags: flags & ~0x20, named });
  }
  expect(at).toBe(bytes.length);
  return pages;
}

describe('RamSender', () => {
  let ram: GuestRam;
  let sender: RamSender;

  beforeEach(async () => {
    ram = await GuestRam.create(
      [
        { name: 'small', lengthBytes: 64 * KIB, hostPageBytes: 4096 },
        { name: 'huge', lengthBytes: 256 * KIB, hostPageBytes: 64 * KIB },
      ],
      { ioBufferBytes: 32 * KIB, ioBuffers: 2 },
    );
    ram.setAllReceived(true);
    for (const block of ram.blocks) {
      for (let page = 0; page < block.pageCount; page++) {
        block.write(page * 4096, Uint8Array.of(page + 1));
      }
    }
    sender = new RamSender(ram);
    sender.syncDirty();
  });

  function takeAll(maxBytes?: number): SentPage[][] {
    const all: SentPage[][] = [];
    let previous: string | undefined;
    for (let chunk = sender.next(maxBytes); chunk; chunk = sender.next(maxBytes)) {
      all.push(parse(chunk.bytes, previous));
      previous = all.at(-1)!.at(-1)!.block;
      chunk.release();
    }
    return all;
  }

  it('sends ascending pages, each block named once', () => {
    const pages = takeAll().flat();
    expect(pages.map(({ block, page }) => `${block} ${page}`)).toEqual([
      ...Array.from({ length: 16 }, (_, i) => `small ${i}`),
      ...Array.from({ length: 64 }, (_, i) => `huge ${i}`),
    ]);
    expect(pages.filter(({ named }) => named).map(({ page }) => page)).toEqual([0, 0]);
    expect(sender.counters).toEqual({ normalPages: 80, zeroPages: 0, bytes: 80 * 4104 + 6 + 5 });
  });

  it('names the block again after reconnect', () => {
    const first = sender.next(1)!;
    expect(parse(first.bytes)).toEqual([{ block: 'small', page: 0, flags: 8, named: true }]);
    first.release();
    sender.reconnect();
    expect(parse(sender.next(1)!.bytes)[0]).toMatchObject({ page: 1, named: true });
  });

  it('owes after a reconnect what the destination lacks, host pages whole', () => {
    sender.enterPostcopy();
    sender.request(ram.block('small')!, 15 * 4096, 4096);
    sender.next(1)!.release();
    const [small, huge] = ram.blocks;
    sender.reconnect();
    expect(sender.hasRequests).toBe(false);
    sender.oweMissing(small!, Uint8Array.of(0xff, 0xfb, 0, 0)); // all but page 10
    sender.oweMissing(huge!, Uint8Array.of(0xff, 0xff, 0xff, 0xef, 0xff, 0xff, 0, 0)); // 28 and 48 on
    expect(sender.owedPages()).toBe(1 + 16 + 16);
    expect(
      takeAll()
        .flat()
        .map(({ block, page }) => `${block} ${page}`),
    ).toEqual([
      'small 10',
      ...Array.from({ length: 16 }, (_, i) => `huge ${16 + i}`),
      ...Array.from({ length: 16 }, (_, i) => `huge ${48 + i}`),
    ]);
    expect(() => sender.oweMissing(huge!, new Uint8Array(7))).toThrow(
      expect.objectContaining({ code: 'RANGE' }),
    );
  });

  it('owes what a destination’s own bitmap says, across banks and with a part of a byte', async () => {
    const spec = { name: 'long', lengthBytes: 2 ** 21 + 3 * 4096, hostPageBytes: 4096 };
    const options = { maxBankBytes: 2 ** 20, ioBufferBytes: 8192, ioBuffers: 1 };
    const [here, there] = [
      await GuestRam.create([spec], options),
      await GuestRam.create([spec], options),
    ];
    expect(here.banks.length).toBeGreaterThan(2);
    const missing = [0, 7, 8, 63, 200, 255, 256, 300, 511, 514];
    there.setAllReceived(true);
    const block = there.blocks[0]!;
    for (const page of missing) block.discardRange(page * 4096, 4096);
    sender = new RamSender(here);
    sender.oweAll();
    sender.oweMissing(here.blocks[0]!, block.receivedBitmap());
    expect(sender.owedPages()).toBe(missing.length);
    expect(
      takeAll()
        .flat()
        .map(({ page }) => page),
    ).toEqual(missing);
  });

  it('hands out no more buffers than it has, and each anew after its release', () => {
    const [a, b] = [sender.next()!, sender.next()!];
    expect(sender.next()).toBeUndefined();
    expect(sender.owedPages()).toBe(80 - a.normalPages - b.normalPages);
    a.release();
    a.release();
    const c = sender.next()!;
    expect(sender.next()).toBeUndefined();
    expect(c.bytes.byteOffset).toBe(a.bytes.byteOffset);
    expect(parse(b.bytes, 'small')[0]?.page).toBe(a.normalPages);
  });

  it('keeps a chunk within maxBytes', () => {
    const badOption = expect.objectContaining({ code: 'BAD_OPTION' });
    expect(() => sender.next(Number.NaN)).toThrow(badOption);
    expect(() => sender.next(0)).toThrow(badOption);
    for (const pages of takeAll(9000)) expect(pages.length).toBeLessThanOrEqual(2);
    expect(sender.owedPages()).toBe(0);
  });

  it('tells the end of a round, and takes up behind the cursor only in the next', () => {
    expect(sender.roundComplete).toBe(false);
    const first = sender.next()!;
    expect(first.endOfRound).toBe(false);
    first.release();
    ram.block('small')!.write(0, Uint8Array.of(9));
    sender.syncDirty();
    const round: SentPage[] = [];
    for (;;) {
      const chunk = sender.next()!;
      round.push(...parse(chunk.bytes, 'small'));
      chunk.release();
      if (chunk.endOfRound) break;
    }
    expect(round.filter(({ block, page }) => block === 'small' && page === 0)).toEqual([]);
    expect(sender.roundComplete).toBe(true);
    expect(sender.owedPages()).toBe(1);
    sender.startRound();
    expect(sender.roundComplete).toBe(false);
    const last = sender.next()!;
    expect(parse(last.bytes)).toMatchObject([{ block: 'small', page: 0 }]);
    expect(last.endOfRound).toBe(true);
    expect(sender.next()).toBeUndefined();
  });

  it('takes a page for zero, unread, until somebody may have written it', async () => {
    const fresh = await GuestRam.create([
      { name: 'small', lengthBytes: 32 * KIB, hostPageBytes: 4096 },
    ]);
    fresh.setAllReceived(true);
    const block = fresh.block('small')!;
    const { memory, ptr, dirtyPtr } = block.segments[0]!;
    const bytes = new Uint8Array(memory.buffer);
    sender = new RamSender(fresh);
    const sendAll = (): number[] => {
      const kinds = takeAll().flat();
      return kinds.filter(({ flags }) => flags === 8).map(({ page }) => page);
    };
    block.write(4096, Uint8Array.of(1)); // a device
    block.view(2 * 4096, 1)[0] = 1;
    bytes[ptr + 3 * 4096] = 1; // a vCPU, and its mark
    bytes[dirtyPtr] = 0b1000;
    bytes[ptr + 4 * 4096] = 1; // a vCPU that has not marked its write yet
    sender.oweAll();
    expect(sendAll()).toEqual([1, 2, 3]);
    expect(sender.counters).toMatchObject({ normalPages: 3, zeroPages: 5 });
    bytes[dirtyPtr] = 0b10000;
    sender.syncDirty();
    expect(sendAll()).toEqual([4]);
    sender.oweAll(); // what was written once is looked at from then on
    expect(sendAll()).toEqual([1, 2, 3, 4]);
  });

  it('takes the mark of a page when it sends it, so that a write before is not sent twice', () => {
    const small = ram.block('small')!;
    small.write(5 * 4096, Uint8Array.of(1));
    small.write(15 * 4096, Uint8Array.of(1));
    sender.next(1)!.release(); // page 0
    expect([small.dirtyCount(0, 1), small.dirtyCount()]).toEqual([0, 15]);
    small.write(0, Uint8Array.of(2)); // after it was sent
    sender.reconnect();
    const rest = takeAll().flat();
    expect(rest.filter(({ block }) => block === 'small').length).toBe(15);
    expect(sender.syncDirty()).toBe(1);
    sender.reconnect();
    expect(takeAll().flat()).toMatchObject([{ block: 'small', page: 0 }]);
    expect(sender.syncDirty()).toBe(0);
  });

  it('looks at pages that came from elsewhere', async () => {
    const specs = [{ name: 'small', lengthBytes: 32 * KIB, hostPageBytes: 4096 }];
    const [first, second] = [await GuestRam.create(specs), await GuestRam.create(specs)];
    first.block('small')!.write(4096, Uint8Array.of(7));
    const origin = new RamSender(first);
    origin.oweAll();
    const receiver = new RamReceiver(second);
    const chunk = origin.next()!;
    receiver.input.bytes.set(chunk.bytes);
    expect(receiver.decode(0, chunk.bytes.length).error).toBeUndefined();
    second.setAllReceived(true);
    sender = new RamSender(second);
    sender.oweAll();
    takeAll();
    expect(sender.counters).toMatchObject({ normalPages: 1, zeroPages: 7 });
  });

  it('sends zero pages in full when told so', () => {
    ram.block('small')!.write(0, new Uint8Array(64 * KIB));
    sender = new RamSender(ram, { zeroPages: false });
    sender.syncDirty();
    expect(
      takeAll()
        .flat()
        .every(({ flags }) => flags === 8),
    ).toBe(true);
    ram.block('small')!.write(0, new Uint8Array(64 * KIB));
    sender = new RamSender(ram);
    sender.syncDirty();
    expect(
      takeAll()
        .flat()
        .map(({ flags }) => flags),
    ).toEqual(Array(16).fill(2));
  });

  it('ends the host page on its way, then sends what is requested, then goes on from there', () => {
    sender.enterPostcopy();
    // The buffer of 32 KiB ends inside of a host page of 64 KiB.
    for (let i = 0; i < 3; i++) sender.next()!.release();
    expect(ram.block('huge')!.owedCount(0, 16)).toBeLessThan(16);
    expect(ram.block('huge')!.owedCount(0, 16)).toBeGreaterThan(0);
    const huge = ram.block('huge')!;
    sender.request(huge, 2 * 64 * KIB + 8192, 4096);
    sender.request(ram.block('small')!, 0, 4096);
    const order: number[] = [];
    const requested: boolean[] = [];
    for (let chunk = sender.next(); chunk; chunk = sender.next()) {
      const pages = parse(chunk.bytes, 'huge');
      expect(pages.every(({ block }) => block === 'huge')).toBe(true);
      order.push(...pages.map(({ page }) => page));
      requested.push(chunk.requested);
      chunk.release();
    }
    const rest = order.indexOf(32);
    expect(order.slice(0, rest)).toEqual(Array.from({ length: rest }, (_, i) => 16 - rest + i));
    // Host page 2 was asked for, 3 follows it, 1 is left for the end.
    expect(order.slice(rest)).toEqual([
      ...Array.from({ length: 32 }, (_, i) => 32 + i),
      ...Array.from({ length: 16 }, (_, i) => 16 + i),
    ]);
    // The first chunk has no room beside the rest of the host page.
    expect(requested.indexOf(true)).toBe(1);
    expect(requested.at(-1)).toBe(false);
  });

  it('passes over requests of pages that are gone', () => {
    sender.enterPostcopy();
    sender.next()!.release();
    const small = ram.block('small')!;
    expect(small.owedCount(0, 7)).toBe(0);
    sender.request(small, 0, 7 * 4096);
    sender.request(small, 12 * 4096, 4096);
    sender.request(small, 12 * 4096, 4096);
    const chunk = sender.next()!;
    expect(chunk.requested).toBe(true);
    expect(parse(chunk.bytes, 'small').map(({ page }) => page)).toEqual([12]);
  });

  it('refuses requests that cannot be', () => {
    const [small] = ram.blocks;
    const outside = expect.objectContaining({ code: 'REQUEST_OUT_OF_RANGE' });
    const unaligned = expect.objectContaining({ code: 'REQUEST_UNALIGNED' });
    expect(() => sender.request(small!, 64 * KIB, 4096)).toThrow(outside);
    expect(() => sender.request(small!, 0, 0)).toThrow(outside);
    expect(() => sender.request(small!, -4096, 8192)).toThrow(outside);
    expect(() => sender.request(small!, 0, 2 ** 60)).toThrow(outside);
    expect(() => sender.request(small!, 100, 4096)).toThrow(unaligned);
    expect(() => sender.request(small!, 0, 100)).toThrow(unaligned);
    expect(() => new RamSender(ram, { buffers: 3 })).toThrow(
      expect.objectContaining({ code: 'BAD_OPTION' }),
    );
  });

  describe('with XBZRLE', () => {
    const BLOCK = { name: 'ram', lengthBytes: 64 * KIB, hostPageBytes: 4096 };
    let block: RamBlock;

    async function start(xbzrleCacheBytes: number, options: GuestRamOptions = {}): Promise<void> {
      ram = await GuestRam.create([BLOCK], { xbzrleCacheBytes: 64 * KIB, ...options });
      ram.setAllReceived(true);
      block = ram.blocks[0]!;
      sender = new RamSender(ram, { xbzrleCacheBytes });
      for (let page = 0; page < 16; page++) block.write(page * 4096, Uint8Array.of(page + 1));
      sender.oweAll();
      expect(kinds()).toEqual(Array(16).fill(FLAG_PAGE));
    }

    /** Sends what is owed. @returns the kinds of the records, in order */
    function kinds(): number[] {
      const found: number[] = [];
      for (let chunk = sender.next(); chunk; chunk = sender.next()) {
        const view = new DataView(chunk.bytes.buffer, chunk.bytes.byteOffset, chunk.bytes.length);
        for (let at = 0; at < view.byteLength; ) {
          const flags = Number(view.getBigUint64(at) & 0xfffn);
          const kind = flags & ~FLAG_CONTINUE;
          at += (flags & FLAG_CONTINUE) === 0 ? 12 : 8;
          if (kind === FLAG_XBZRLE) expect(view.getUint8(at)).toBe(1);
          at += kind === FLAG_ZERO ? 1 : kind === FLAG_PAGE ? 4096 : 3 + view.getUint16(at + 1);
          found.push(kind);
        }
        chunk.release();
      }
      expect(sender.roundComplete).toBe(true);
      expect(sender.owedPages()).toBe(0);
      return found;
    }

    /** Writes pages, and sends them. */
    function round(...writes: readonly (readonly [page: number, fill: number, length?: number])[]) {
      for (const [page, fill, length = 1] of writes) {
        block.write(page * 4096, new Uint8Array(length).fill(fill));
      }
      sender.syncDirty();
      sender.startRound();
      return kinds();
    }

    it('sends a page in full, then its changes, and nothing where there are none', async () => {
      await start(64 * KIB);
      expect(round([3, 77], [4, 78])).toEqual([FLAG_PAGE, FLAG_PAGE]);
      expect(round([3, 79], [4, 78])).toEqual([FLAG_XBZRLE]);
      expect(round([4, 78])).toEqual([]);
      expect(round([3, 0], [4, 1, 4096])).toEqual([FLAG_ZERO, FLAG_PAGE]);
      expect(round([3, 1], [4, 1], [5, 1])).toEqual([FLAG_XBZRLE, FLAG_PAGE]);
      expect(sender.xbzrle).toEqual({
        cacheBytes: 64 * KIB,
        bytes: 6 + 4096 + 6, // two records of one byte, one page that overflowed
        pages: 6,
        cacheMiss: 3,
        overflow: 1,
        unchanged: 3,
      });
      expect(sender.counters).toMatchObject({ normalPages: 16 + 4, zeroPages: 1 });
    });

    it('gives a slot to another page once it was not used for two syncs', async () => {
      await start(4 * 4096);
      expect(round([1, 50])).toEqual([FLAG_PAGE]);
      expect(round([1, 51], [5, 50])).toEqual([FLAG_XBZRLE, FLAG_PAGE]); // 5 finds 1 in its slot
      expect(round([5, 51])).toEqual([FLAG_PAGE]);
      expect(round([5, 52])).toEqual([FLAG_PAGE]); // takes the slot
      expect(round([1, 52], [5, 53])).toEqual([FLAG_PAGE, FLAG_XBZRLE]);
    });

    it('ends with precopy, and begins anew with all', async () => {
      await start(64 * KIB);
      round([3, 77]);
      sender.oweAll();
      expect(kinds()).toEqual(Array(16).fill(FLAG_PAGE));
      expect(round([3, 78])).toEqual([FLAG_PAGE]);
      expect(round([3, 79])).toEqual([FLAG_XBZRLE]);
      sender.enterPostcopy();
      expect(round([3, 80])).toEqual([FLAG_PAGE]);
    });

    it('shares its cache among banks', async () => {
      const options = { maxBankBytes: 2 ** 20, ioBufferBytes: 8192, ioBuffers: 1 };
      ram = await GuestRam.create([{ ...BLOCK, lengthBytes: 2 ** 21 }], {
        ...options,
        xbzrleCacheBytes: 64 * KIB,
      });
      expect(ram.banks.length).toBeGreaterThan(2);
      ram.setAllReceived(true);
      block = ram.blocks[0]!;
      sender = new RamSender(ram, { xbzrleCacheBytes: 16 * KIB });
      sender.oweAll();
      kinds();
      const last = block.pageCount - 1;
      expect(round([0, 1], [last, 1])).toEqual([FLAG_PAGE, FLAG_PAGE]);
      expect(round([0, 2], [last, 2])).toEqual([FLAG_XBZRLE, FLAG_XBZRLE]);
    });

    it('refuses a cache that the guest memory has no place for', async () => {
      const badOption = expect.objectContaining({ code: 'BAD_OPTION' });
      expect(() => new RamSender(ram, { xbzrleCacheBytes: 4096 })).toThrow(badOption);
      await start(64 * KIB);
      expect(() => new RamSender(ram, { xbzrleCacheBytes: 128 * KIB })).toThrow(badOption);
      expect(() => new RamSender(ram, { xbzrleCacheBytes: 12 * KIB })).toThrow(badOption);
      expect(new RamSender(ram).xbzrle).toBeUndefined();
    });
  });

  it('widens discards to host pages and lists at most 12 ranges', () => {
    takeAll();
    for (const page of [0, 2, 4, 6, 8, 10, 12, 14]) {
      ram.block('small')!.write(page * 4096, Uint8Array.of(1));
    }
    ram.block('huge')!.write(20 * 4096, Uint8Array.of(1));
    ram.block('huge')!.write(63 * 4096, Uint8Array.of(1));
    sender.syncDirty();
    const discards = [...sender.discards()].map(({ block, ranges }) => [block.name, ranges]);
    expect(discards).toEqual([
      ['small', [0, 2, 4, 6, 8, 10, 12, 14].map((page) => [page * 4096, 4096])],
      [
        'huge',
        [
          [64 * KIB, 64 * KIB],
          [192 * KIB, 64 * KIB],
        ],
      ],
    ]);
    expect(sender.owedPages()).toBe(8 + 32);
  });

  it('lists a range that goes on in another bank as one', async () => {
    const options = { maxBankBytes: 2 ** 20, ioBufferBytes: 8192 };
    const block = { name: 'ram', lengthBytes: 2 ** 21, hostPageBytes: 4096 };
    ram = await GuestRam.create([block], options);
    expect(ram.banks.length).toBeGreaterThan(2);
    sender = new RamSender(ram);
    sender.oweAll();
    expect([...sender.discards()].map(({ ranges }) => ranges)).toEqual([[[0, 2 ** 21]]]);
  });
});
