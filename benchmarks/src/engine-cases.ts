import { EngineLimits, GuestRam, type RamBlock, RamReceiver, RamSender } from '@wherry/page-engine';
import * as twin from '../../packages/page-engine/test/twin/xbzrle.ts';
import type { EngineCase, Timed } from './engine-case.ts';
import { changeBytes, changeWords, fillRandom, fillZero, fillZeroButLast } from './pages.ts';

const ZERO_SCAN_MARK = 0.9;
const ENCODE_MARK = 0.7;
const DECODE_MARK = 0.7;
const HUGE_PAGE_BYTES = 2 ** 21;
const BITMAP_MARK = 0.5;
const XBZRLE_MARK = 0.15;
const XBZRLE_TWIN_MARK = 8;
/** Runs that the engine lists in one call. */
const RUNS_AT_ONCE = 512;

/** How much memory the cases work on. */
export interface EngineSizes {
  /** Bytes of the RAM block that is scanned for zero pages. */
  readonly scanBytes: number;
  /** Bytes of the RAM block that is encoded, decoded. */
  readonly blockBytes: number;
  /** The same where each run takes new memory. */
  readonly freshBytes: number;
  /** Bytes of the pages that plain TypeScript encodes. */
  readonly twinBytes: number;
  /** Bytes of the guest whose bitmaps are synchronised and walked; its memory is never touched. */
  readonly bitmapGuestBytes: number;
}

/** Lists the cases of the page engine, on shared memory as a host has it. */
export function engineCases(sizes: EngineSizes): EngineCase[] {
  const { scanBytes, blockBytes, freshBytes, twinBytes, bitmapGuestBytes } = sizes;
  const content = { lengthBytes: blockBytes, limitIs: 'read of the same bytes' };
  const scanned = { ...content, lengthBytes: scanBytes, mark: ZERO_SCAN_MARK };
  const copied = { lengthBytes: blockBytes, limitIs: 'memory.copy of the same pages' };
  return [
    {
      name: 'zero scan, zero pages',
      ...scanned,
      set: () => zeroScan(scanBytes, fillZero, scanBytes / 4096),
    },
    {
      name: 'zero scan, zero but for the last byte',
      ...scanned,
      set: () => zeroScan(scanBytes, fillZeroButLast, 0),
    },
    {
      name: 'zero scan, random pages',
      ...scanned,
      set: () => zeroScan(scanBytes, fillRandom, 0),
    },
    {
      name: 'RAM encode, random pages',
      ...copied,
      mark: ENCODE_MARK,
      set: () => encode(blockBytes, fillRandom),
    },
    {
      name: 'RAM encode, zero pages',
      ...content,
      set: () => encode(blockBytes, fillZero),
    },
    {
      name: 'RAM decode, random pages, touched memory',
      ...copied,
      mark: DECODE_MARK,
      set: () => decode(blockBytes, { postcopy: false, hostPageBytes: 4096 }),
    },
    {
      name: 'RAM decode, random pages, fresh memory',
      ...copied,
      lengthBytes: freshBytes,
      limitIs: 'memory.copy to fresh memory',
      mark: DECODE_MARK,
      expensive: true,
      set: () => decodeFresh(freshBytes),
    },
    {
      name: 'RAM placement in postcopy, 4 KiB pages',
      ...copied,
      mark: DECODE_MARK,
      set: () => decode(blockBytes, { postcopy: true, hostPageBytes: 4096 }),
    },
    {
      name: 'RAM placement in postcopy, 2 MiB pages',
      ...copied,
      mark: DECODE_MARK,
      set: () => decode(blockBytes, { postcopy: true, hostPageBytes: HUGE_PAGE_BYTES }),
    },
    ...[
      { name: 'words', change: changeWords, marks: { read: XBZRLE_MARK, twin: XBZRLE_TWIN_MARK } },
      { name: 'single bytes', change: changeBytes, marks: { read: XBZRLE_MARK } },
    ].flatMap(({ name, change, marks }): EngineCase[] => [
      {
        name: `XBZRLE encode, 5 % of each page changed, ${name}`,
        lengthBytes: 2 * blockBytes,
        limitIs: 'read of both pages',
        mark: marks.read,
        set: () => xbzrleEncode(blockBytes, change, 'read'),
      },
      {
        name: `XBZRLE encode, 5 % of each page changed, ${name}, beside TypeScript`,
        lengthBytes: 2 * twinBytes,
        limitIs: 'the same in plain TypeScript',
        ...(marks.twin !== undefined && { mark: marks.twin }),
        set: () => xbzrleEncode(twinBytes, change, 'twin'),
      },
    ]),
    ...(['clean', 'sparse', 'denser', 'full'] as const).flatMap((density): EngineCase[] => {
      const bitmap = {
        lengthBytes: bitmapGuestBytes / 4096 / 8,
        limitIs: "read of the bitmap's bytes",
        ...((density === 'clean' || density === 'sparse') && { mark: BITMAP_MARK }),
      };
      const { name } = DENSITIES[density];
      return [
        {
          name: `dirty-bitmap sync, ${name}`,
          ...bitmap,
          set: () => sync(bitmapGuestBytes, density),
        },
        {
          name: `dirty-bitmap walk, ${name}`,
          ...bitmap,
          set: () => walk(bitmapGuestBytes, density),
        },
      ];
    }),
  ];
}

type Fill = (block: RamBlock) => void;

async function guestOf(lengthBytes: number, hostPageBytes = 4096): Promise<GuestRam> {
  return GuestRam.create([{ name: 'pc.ram', lengthBytes, hostPageBytes }], { shared: true });
}

function expectEqual<T>(what: string, found: T, expected: T): void {
  if (found !== expected) throw new Error(`${what}: ${found}, expected ${expected}`);
}

async function zeroScan(lengthBytes: number, fill: Fill, zeroPages: number) {
  const ram = await guestOf(lengthBytes);
  const block = ram.blocks[0]!;
  fill(block);
  expectEqual('zero pages', block.zeroScan(), zeroPages);
  const limits = new EngineLimits(ram);
  return {
    figure: { run: () => void block.zeroScan() },
    limit: { run: () => void limits.read(block) },
  };
}

async function encode(lengthBytes: number, fill: Fill) {
  const ram = await guestOf(lengthBytes);
  const block = ram.blocks[0]!;
  ram.setAllReceived(true);
  fill(block);
  const records = encodeAll(ram);
  const copy = await decodeAll(await guestOf(lengthBytes), records);
  expectEqual('checksum after encode and decode', copy.checksum(), block.checksum());
  const sender = new RamSender(ram);
  const figure: Timed = {
    prepare: () => sender.oweAll(),
    run: () => {
      for (let chunk = sender.next(); chunk; chunk = sender.next()) chunk.release();
    },
  };
  if (fill === fillZero) {
    const limits = new EngineLimits(ram);
    return { figure, limit: { run: () => void limits.read(block) } };
  }
  return { figure, limit: await copyLimit(lengthBytes) };
}

/** Copies the pages of a block that was touched before to another such block. */
async function copyLimit(lengthBytes: number): Promise<Timed> {
  const { limits, from, to } = await twoBlocks(lengthBytes);
  limits.copy(to, from);
  return { run: () => limits.copy(to, from) };
}

async function twoBlocks(lengthBytes: number) {
  const spec = { lengthBytes, hostPageBytes: 4096 };
  const ram = await GuestRam.create(
    [
      { name: 'from', ...spec },
      { name: 'to', ...spec },
    ],
    { shared: true },
  );
  const from = ram.block('from')!;
  fillRandom(from);
  return { ram, limits: new EngineLimits(ram), from, to: ram.block('to')! };
}

/** Encodes a guest into chunks of whole records. */
function encodeAll(ram: GuestRam): Uint8Array[] {
  const sender = new RamSender(ram);
  sender.oweAll();
  const records: Uint8Array[] = [];
  for (let chunk = sender.next(); chunk; chunk = sender.next()) {
    records.push(chunk.bytes.slice());
    chunk.release();
  }
  return records;
}

/** Decodes chunks of whole records. @returns the milliseconds of it, without the copies to the input buffer */
function timeDecode(receiver: RamReceiver, records: readonly Uint8Array[]): number {
  let totalMs = 0;
  for (const bytes of records) {
    receiver.input.bytes.set(bytes); // a socket reads to there
    const startedAt = performance.now();
    const { consumed, error } = receiver.decode(0, bytes.length);
    totalMs += performance.now() - startedAt;
    if (error !== undefined) throw error;
    expectEqual('bytes decoded', consumed, bytes.length);
  }
  return totalMs;
}

async function decodeAll(ram: GuestRam, records: readonly Uint8Array[]): Promise<RamBlock> {
  timeDecode(new RamReceiver(ram), records);
  return ram.blocks[0]!;
}

/** Encodes a guest of random pages; `checksum` is that of its block. */
async function randomRecords(lengthBytes: number, hostPageBytes = 4096) {
  const ram = await guestOf(lengthBytes, hostPageBytes);
  const block = ram.blocks[0]!;
  ram.setAllReceived(true);
  fillRandom(block);
  return { records: encodeAll(ram), checksum: block.checksum() };
}

interface DecodeOptions {
  readonly postcopy: boolean;
  readonly hostPageBytes: number;
}

async function decode(lengthBytes: number, { postcopy, hostPageBytes }: DecodeOptions) {
  const { records, checksum } = await randomRecords(lengthBytes, hostPageBytes);
  const ram = await guestOf(lengthBytes, hostPageBytes);
  const block = ram.blocks[0]!;
  const receiver = new RamReceiver(ram);
  if (postcopy) receiver.enterPostcopy();
  const prepare = (): void => block.discardRange(0, block.lengthBytes);
  const run = (): number => timeDecode(receiver, records);
  run();
  expectEqual('checksum', block.checksum(), checksum);
  expectEqual('pages received', block.receivedCount(), block.pageCount);
  if (postcopy) {
    const { placedHostPages } = receiver.counters;
    expectEqual('host pages placed', placedHostPages, lengthBytes / hostPageBytes);
  }
  return { figure: { prepare, run }, limit: await copyLimit(lengthBytes) };
}

async function decodeFresh(lengthBytes: number) {
  const { records, checksum } = await randomRecords(lengthBytes);
  const check = await decodeAll(await guestOf(lengthBytes), records);
  expectEqual('checksum', check.checksum(), checksum);
  let receiver: RamReceiver;
  let copy: () => void;
  return {
    figure: {
      prepare: async () => {
        receiver = new RamReceiver(await guestOf(lengthBytes));
      },
      run: () => timeDecode(receiver, records),
    },
    limit: {
      prepare: async () => {
        const { limits, from, to } = await twoBlocks(lengthBytes);
        copy = () => limits.copy(to, from);
      },
      run: () => copy(),
    },
  };
}

/** Encodes how each page of a block differs from that of another; `limit` is what to do beside it. */
async function xbzrleEncode(lengthBytes: number, change: Fill, limit: 'read' | 'twin') {
  const { ram, limits, from, to } = await twoBlocks(lengthBytes);
  limits.copy(to, from);
  change(to);
  const { engine, plan, bytes } = ram.banks[0]!;
  const [old, page, out] = [from.segments[0]!.ptr, to.segments[0]!.ptr, plan.sendPtrs[0]!];
  const encode = (at: number): number =>
    engine.encodeXbzrle(old + at, page + at, out, ram.plan.edgesPtr);
  const eachPage = (visit: (at: number) => unknown): void => {
    for (let at = 0; at < lengthBytes; at += 4096) visit(at);
  };
  const twinOf = (at: number): Uint8Array | undefined =>
    twin.encodeXbzrle(
      bytes.subarray(old + at, old + at + 4096),
      bytes.subarray(page + at, page + at + 4096),
    );
  for (let at = 0; at < Math.min(lengthBytes, 2 ** 20); at += 4096) {
    const found = bytes.subarray(out, out + encode(at));
    expectEqual('encoding', Buffer.compare(found, twinOf(at)!), 0);
  }
  const read = (): void => {
    limits.read(from);
    limits.read(to);
  };
  return {
    figure: { run: () => eachPage(encode) },
    limit: { run: limit === 'read' ? read : () => eachPage(twinOf) },
  };
}

/** How many pages a bitmap holds: one of every so many, spread evenly; 0 for none. */
const DENSITIES = {
  clean: { name: 'no page dirty', every: 0 },
  sparse: { name: '1 page of 8192 dirty', every: 8192 },
  denser: { name: '1 page of 1024 dirty', every: 1024 },
  full: { name: 'all pages dirty', every: 1 },
} as const;

interface Bitmap {
  readonly bytes: Uint8Array;
  readonly pages: number;
}

function setDensity(bitmaps: readonly Bitmap[], density: keyof typeof DENSITIES): void {
  const { every } = DENSITIES[density];
  for (const { bytes, pages } of bitmaps) {
    bytes.fill(every === 1 ? 0xff : 0);
    if (every > 1) for (let page = 0; page < pages; page += every) bytes[page >> 3] = 1;
  }
}

function countSet({ bytes, pages }: Bitmap): number {
  let count = 0;
  for (let page = 0; page < pages; page++) count += (bytes[page >> 3]! >> (page & 7)) & 1;
  return count;
}

/** Makes a guest whose memory is never touched, and the bitmaps of a kind. */
async function bitmapGuest(lengthBytes: number, which: 'dirtyPtr' | 'owedPtr') {
  const ram = await guestOf(lengthBytes);
  const { segments } = ram.blocks[0]!;
  const bitmapsOf = (name: 'dirtyPtr' | 'owedPtr'): Bitmap[] =>
    segments.map(({ memory, [name]: ptr, pages }) => ({
      bytes: new Uint8Array(memory.buffer, ptr, pages >> 3),
      pages,
    }));
  const limit: Timed = {
    run: () => {
      for (const { bank, [which]: ptr, pages } of segments) {
        ram.banks[bank]!.engine.readTouch(ptr, pages >> 3);
      }
    },
  };
  return { ram, bitmapsOf, limit };
}

async function sync(lengthBytes: number, density: keyof typeof DENSITIES) {
  const { ram, bitmapsOf, limit } = await bitmapGuest(lengthBytes, 'dirtyPtr');
  const dirty = bitmapsOf('dirtyPtr');
  const owed = bitmapsOf('owedPtr');
  setDensity(dirty, density);
  const expected = dirty.reduce((sum, bitmap) => sum + countSet(bitmap), 0);
  const sender = new RamSender(ram);
  expectEqual('pages newly owed', sender.syncDirty(), expected);
  expectEqual(
    'pages owed',
    owed.reduce((sum, bitmap) => sum + countSet(bitmap), 0),
    expected,
  );
  expectEqual('pages newly owed at once after', sender.syncDirty(), 0);
  const prepare = (): void => setDensity(owed, 'clean');
  return { figure: { prepare, run: () => void sender.syncDirty() }, limit };
}

async function walk(lengthBytes: number, density: keyof typeof DENSITIES) {
  const { ram, bitmapsOf, limit } = await bitmapGuest(lengthBytes, 'owedPtr');
  const { runsPtr } = ram.plan;
  const { segments } = ram.blocks[0]!;
  setDensity(bitmapsOf('owedPtr'), density);
  const eachRun = (visit?: (first: number, end: number) => void): void => {
    for (const { bank, owedPtr, pages } of segments) {
      const { engine, u32 } = ram.banks[bank]!;
      for (let from = 0; from < pages; ) {
        const count = engine.findRuns(owedPtr, from, pages, runsPtr, RUNS_AT_ONCE);
        const at = runsPtr >>> 2;
        if (visit) for (let i = 0; i < 2 * count; i += 2) visit(u32[at + i]!, u32[at + i + 1]!);
        from = count === RUNS_AT_ONCE ? u32[at + 2 * count - 1]! : pages;
      }
    }
  };
  let found = 0;
  eachRun((first, end) => {
    found += end - first;
  });
  const expected = bitmapsOf('owedPtr').reduce((sum, bitmap) => sum + countSet(bitmap), 0);
  expectEqual('pages found', found, expected);
  return { figure: { run: () => eachRun() }, limit };
}
