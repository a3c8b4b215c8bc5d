import { ByteWriter } from '@wherry/bytes';
import { RamFlag, writeRamWord } from '@wherry/stream';
import { describe, expect, it } from 'vitest';
import {
  type Capability,
  DEFAULT_PARAMETERS,
  DestinationMigration,
  type FilePiece,
  type PageFile,
  SourceMigration,
} from '../src/index.ts';
import { MemoryFile } from './memory-file.ts';
import { BLOCKS } from './simulate.ts';
import { RunningGuests, randomFrom, SimulatedGuest } from './simulated-guest.ts';
import { VirtualClock } from './virtual-clock.ts';

const MAPPED = new Set<Capability>(['mapped-ram']);
const MIB = 2 ** 20;

/** Threads of a file: pieces come out, or in, in any order, each at its time. */
function threadsOf(file: MemoryFile, clock: VirtualClock, seed: number) {
  const random = randomFrom(seed);
  const seen = { pieces: 0, isClosed: false };
  const each = async <T>(pieces: readonly FilePiece[], run: (piece: FilePiece) => Promise<T>) =>
    Promise.all(
      pieces.map(async (piece) => {
        seen.pieces += 1;
        await clock.sleep(random(40) / 10);
        return run(piece);
      }),
    );
  const { readAt, writeAt } = file.open().file!;
  const open = async (): Promise<PageFile> => ({
    write: async (pieces) => {
      await each(pieces, ({ bytes, offset }) => writeAt(bytes, offset));
    },
    read: async (pieces) => {
      await each(pieces, ({ bytes, offset }) => readAt(bytes, offset));
      return undefined;
    },
    close: async () => {
      seen.isClosed = true;
    },
  });
  return { open, seen };
}

/** A guest that runs writes itself into a file; its clock goes on while it is written. */
async function save(seed: number, offset = 0, isThreaded = false) {
  const clock = new VirtualClock();
  const running = new RunningGuests();
  const common = { blocks: BLOCKS, clock, all: running };
  const guest = await SimulatedGuest.create({ ...common, name: 'source', seed, writeEveryMs: 0.2 });
  guest.ram.setAllReceived(true);
  guest.fill();
  guest.start();
  await clock.runUntil(clock.sleep(randomFrom(seed)(30)));
  const file = new MemoryFile();
  const threads = threadsOf(file, clock, seed);
  const source = new SourceMigration({
    guest,
    transport: file.open(offset),
    ...(isThreaded ? { openPageFile: threads.open } : {}),
    clock,
    capabilities: MAPPED,
    parameters: () => ({
      ...DEFAULT_PARAMETERS,
      'max-bandwidth': 20 * MIB,
      'downtime-limit': (isThreaded ? 20 : 1) + (seed % 5),
    }),
  });
  await clock.runUntil(source.run());
  return { clock, running, common, guest, file, source, threads };
}

async function load(
  { clock, common }: Awaited<ReturnType<typeof save>>,
  file: MemoryFile,
  offset = 0,
) {
  const guest = await SimulatedGuest.create({ ...common, name: 'destination', seed: 77 });
  const destination = new DestinationMigration({
    guest,
    transport: file.open(offset),
    clock,
    capabilities: MAPPED,
  });
  await clock.runUntil(destination.run());
  return { guest, destination };
}

describe('a mapped-ram file', () => {
  it.each([...Array(12).keys()])('holds a guest that ran on, seed %i', async (seed) => {
    const offset = seed % 2 === 0 ? 0 : 12_345;
    const saved = await save(seed, offset);
    expect(saved.source.error).toBeUndefined();
    const { guest, destination } = await load(saved, saved.file, offset);
    expect(destination.error).toBeUndefined();
    expect(destination.deviceStates).toEqual(saved.source.deviceStates);
    expect(guest.running).toBe(true);
    await saved.clock.runUntil(saved.clock.sleep(50));
    await saved.clock.runUntil(guest.stop());
    guest.checkAllPages();
    expect(guest.violations).toEqual([]);
    expect(guest.writes).toBeGreaterThan(saved.guest.writes);
  });

  it.each([...Array(12).keys()])('is written and read by threads, seed %i', async (seed) => {
    const saved = await save(seed, 0, true);
    const { clock, file, source, common } = saved;
    expect(source.error).toBeUndefined();
    expect(source.info.ram!['dirty-sync-count']).toBeGreaterThan(1);
    expect(saved.threads.seen.isClosed).toBe(true);
    const guest = await SimulatedGuest.create({ ...common, name: 'destination', seed: 77 });
    const reading = threadsOf(file, clock, seed + 1);
    const destination = new DestinationMigration({
      ...{ guest, transport: file.open(), clock, capabilities: MAPPED },
      openPageFile: reading.open,
    });
    await clock.runUntil(destination.run());
    expect(destination.error).toBeUndefined();
    expect(reading.seen.pieces).toBeGreaterThan(1);
    expect(reading.seen.isClosed).toBe(true);
    await clock.runUntil(guest.stop());
    guest.checkAllPages();
    expect(guest.violations).toEqual([]);
  });

  it('writes pages of later rounds over those of earlier ones', async () => {
    const { source, file } = await save(3);
    expect(source.info.ram!['dirty-sync-count']).toBeGreaterThan(2);
    expect(source.info.ram!.normal).toBeGreaterThan((768 / 4) * 0.875);
    // Two blocks, each begun at a whole MiB.
    expect(file.bytes.length).toBeLessThan(2 * MIB + 768 * 1024);
  });

  const damages: [what: string, damage: (file: MemoryFile) => void, message: RegExp][] = [
    [
      'is cut off in its pages',
      (file) => {
        file.bytes = file.bytes.slice(0, MIB + 4096);
      },
      /The input ends too early/,
    ],
    [
      'has a header of a later version',
      (file) => file.bytes.set([2], headerAt(file) + 3),
      /The list of RAM blocks is not usable.*version 1.*2/s,
    ],
    [
      'counts in other pages',
      (file) => file.bytes.set([0x20, 0], headerAt(file) + 10),
      /The file counts in other target pages than this guest.*4096 bytes.*8192 bytes/s,
    ],
    [
      'has pages that are not aligned',
      (file) => {
        const at = headerAt(file, 'hugemem') + 20;
        const pages = Number(new DataView(file.bytes.buffer).getBigUint64(at));
        const gap = new Uint8Array(2048);
        file.bytes = Uint8Array.from(
          Buffer.concat([file.bytes.slice(0, pages), gap, file.bytes.slice(pages)]),
        );
        new DataView(file.bytes.buffer).setBigUint64(at, BigInt(pages + gap.length));
      },
      /region has bad alignment/,
    ],
    [
      'has its pages before its bitmap',
      (file) => file.bytes.set([0, 0, 0], headerAt(file) + 25),
      /a bitmap of 16 bytes from/,
    ],
    [
      'has its pages at the end of all numbers',
      (file) => file.bytes.set([0, 0x1f, 255, 255, 255, 255, 0xf0, 0], headerAt(file) + 20),
      /The list of RAM blocks is not usable/,
    ],
    [
      'holds a page in its stream',
      (file) => {
        const end = Buffer.from(file.bytes).lastIndexOf(Buffer.from('0300000001', 'hex'));
        const writer = new ByteWriter();
        writeRamWord(writer, 0, RamFlag.page);
        file.bytes.set(writer.counted('pc.ram').finish(), end + 5);
      },
      /no page in the stream: mapped-ram keeps them elsewhere in the file/,
    ],
  ];
  it.each(damages)('that %s is refused', async (_, damage, message) => {
    const saved = await save(1);
    damage(saved.file);
    const { guest, destination } = await load(saved, saved.file);
    expect(destination.status).toBe('failed');
    expect(destination.error?.message).toMatch(message);
    expect(guest.running).toBe(false);
  });

  it('is needed by both sides', async () => {
    const { clock, common } = await save(1);
    const guest = await SimulatedGuest.create({ ...common, name: 'other', seed: 5 });
    const { file: _, ...stream } = new MemoryFile().open();
    const options = { guest, transport: stream, clock, capabilities: MAPPED };
    const source = new SourceMigration({ ...options, parameters: () => DEFAULT_PARAMETERS });
    await clock.runUntil(source.run());
    expect(source.error?.message).toContain('Migration requires seekable transport (e.g. file)');
    const destination = new DestinationMigration(options);
    await clock.runUntil(destination.run());
    expect(destination.error?.message).toContain('Migration requires seekable transport');
  });
});

describe('a mapped-ram file that is loaded behind the guest', () => {
  const BEHIND = new Set<Capability>(['mapped-ram', 'postcopy-ram']);

  /** Starts a guest from a file that gives 4 KiB in 1 ms, and fails as `fail` says. */
  async function begin(seed: number, fail: (readBytes: number) => void = () => {}) {
    const saved = await save(seed);
    const { clock, common, file } = saved;
    const guest = await SimulatedGuest.create({
      ...{ ...common, name: 'destination', seed: seed + 50, writeEveryMs: 0.1 },
    });
    const statuses: string[] = [];
    let readBytes = 0;
    const destination = new DestinationMigration({
      guest,
      transport: file.open(0, async (bytes) => {
        fail((readBytes += bytes));
        await clock.sleep(bytes / 4096);
      }),
      clock,
      capabilities: BEHIND,
      onStatus: (status) => statuses.push(`${status} ${guest.running}`),
    });
    return { ...saved, guest, destination, statuses };
  }

  async function expectWhole(clock: VirtualClock, guest: SimulatedGuest): Promise<void> {
    await clock.runUntil(guest.stop());
    guest.checkAllPages();
    expect(guest.violations).toEqual([]);
  }

  it.each([...Array(8).keys()])('runs before its pages are there, seed %i', async (seed) => {
    const { clock, guest, destination, statuses, source } = await begin(seed);
    const run = destination.run();
    await clock.runUntil(until(clock, () => guest.running));
    expect(guest.ram.blocks.some((block) => block.receivedCount() < block.pageCount)).toBe(true);
    const before = guest.writes;
    await clock.runUntil(run);
    expect(destination.error).toBeUndefined();
    expect(statuses).toEqual([
      ...['setup false', 'active false', 'postcopy-active false', 'completed true'],
    ]);
    expect(guest.writes).toBeGreaterThan(before); // it ran meanwhile
    expect(destination.deviceStates).toEqual(source.deviceStates);
    await expectWhole(clock, guest);
  });

  it('pauses when the file fails, and goes on with it, or with a copy', async () => {
    const { clock, guest, file, destination, statuses } = await begin(2, (bytes) => {
      if (bytes > 500_000) throw new Error('EIO: i/o error, read');
    });
    await clock.runUntil(destination.run());
    expect(destination.status).toBe('postcopy-paused');
    expect(destination.error?.message).toMatch(
      /^\(pc\.ram\) failed to read from file offset [0-9a-f]+: found EIO: i\/o error, read/,
    );
    expect(guest.running).toBe(true);
    await clock.runUntil(clock.sleep(10));
    const cutOff = new MemoryFile();
    cutOff.bytes = file.bytes.slice(0, MIB + 300_000);
    await clock.runUntil(destination.recover(cutOff.open()));
    expect(destination.error?.message).toMatch(/\(pc\.ram\) failed to read page \d+ from file off/);
    await clock.runUntil(destination.recover(file.open()));
    expect(destination.error).toBeUndefined();
    expect(statuses.slice(-3)).toEqual([
      ...['postcopy-recover true', 'postcopy-active true', 'completed true'],
    ]);
    await expectWhole(clock, guest);
  });
});

/** Waits for what becomes true, on the virtual clock. */
async function until(clock: VirtualClock, isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await clock.sleep(0.1);
}

/** Where a block's header begins: behind its name and length. */
function headerAt({ bytes }: MemoryFile, block = 'pc.ram'): number {
  return Buffer.from(bytes).indexOf(block, 30) + block.length + 8;
}
