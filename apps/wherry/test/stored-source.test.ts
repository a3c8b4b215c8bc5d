import { inflateSync } from 'node:zlib';
import { ByteReader, runParser } from '@wherry/bytes';
import {
  type Capability,
  DEFAULT_PARAMETERS,
  DestinationMigration,
  SourceMigration,
  StoredSource,
  type StoredSourceOptions,
  type Transport,
} from '@wherry/migration';
import { RamIndex, type RandomAccess, StoredGuest, StreamWalk } from '@wherry/snapshot';
import { describe, expect, test } from 'vitest';
import { BLOCKS, KIB } from '../../../packages/migration/test/simulate.ts';
import {
  RunningGuests,
  randomFrom,
  SimulatedGuest,
} from '../../../packages/migration/test/simulated-guest.ts';
import { VirtualClock } from '../../../packages/migration/test/virtual-clock.ts';
import {
  type NetworkOptions,
  virtualConnection,
} from '../../../packages/migration/test/virtual-network.ts';

const HOST_PAGES = new Map(BLOCKS.map(({ name, hostPageBytes }) => [name, hostPageBytes]));

/** A connection that keeps what is written: the stream of a source without a return path. */
function recorder(): { readonly transport: Transport; stream(): Buffer } {
  const pieces: Buffer[] = [];
  const transport: Transport = {
    read: async () => 0,
    write: async (bytes) => void pieces.push(Buffer.from(bytes)),
    end: async () => {},
    destroy: () => {},
  };
  return { transport, stream: () => Buffer.concat(pieces) };
}

/** A guest that ran, saved in rounds while it went on, and the clock on which all happens. */
async function savedGuest(seed: number) {
  const clock = new VirtualClock();
  const all = new RunningGuests();
  const common = { blocks: BLOCKS, clock, all };
  const guest = await SimulatedGuest.create({ ...common, name: 'saved', seed });
  guest.ram.setAllReceived(true);
  guest.fill();
  guest.start();
  await clock.runUntil(clock.sleep(20));
  const file = recorder();
  const source = new SourceMigration({
    guest,
    transport: file.transport,
    clock,
    capabilities: new Set(),
    parameters: () => ({ ...DEFAULT_PARAMETERS, 'max-bandwidth': 20_000_000, 'downtime-limit': 2 }),
  });
  await clock.runUntil(source.run());
  expect(source.error).toBeUndefined();
  const destination = await SimulatedGuest.create({ ...common, name: 'restored', seed: seed + 1 });
  return { clock, stream: file.stream(), destination, saved: guest, all };
}

function open(stream: Buffer): StoredGuest {
  const file: RandomAccess = {
    sizeBytes: stream.length,
    read: (into, offset) => {
      const piece = stream.subarray(offset, offset + into.length);
      into.set(piece);
      return piece.length;
    },
  };
  const ramSink = new RamIndex(file, {
    scratch: () => {
      throw new Error('no page has to be put together');
    },
    inflate: (packed) => inflateSync(packed),
  });
  const walk = new StreamWalk({ ramSink });
  const reader = ByteReader.over(stream);
  runParser(walk.walkFile(reader), reader);
  return new StoredGuest(walk.model, ramSink, file);
}

/** Restores a saved guest, over as many connections as it takes, and checks all of it. */
async function restore(
  seed: number,
  postcopy: boolean,
  networks: readonly Partial<NetworkOptions>[],
): Promise<readonly StoredSource[]> {
  const { clock, stream, destination: guest, saved, all } = await savedGuest(seed);
  const capabilities = new Set<Capability>(postcopy ? ['postcopy-ram'] : ['return-path']);
  const connect = (network: Partial<NetworkOptions>): [Transport, Transport] =>
    virtualConnection(clock, { latencyMs: 0.3, bytesPerMs: 3000, ...network });
  const options = (transport: Transport): StoredSourceOptions => ({
    ...{ guest: open(stream), transport, clock, postcopy, returnPath: true },
    hostPageBytes: (block) => HOST_PAGES.get(block)!,
  });
  const [there, here] = connect(networks[0]!);
  const first = new StoredSource(options(there));
  const destination = new DestinationMigration({ guest, transport: here, clock, capabilities });
  await clock.runUntil(Promise.all([first.run(), destination.run()]));
  const sources = [first];
  for (const network of networks.slice(1)) {
    if (destination.status !== 'postcopy-paused') break;
    await clock.runUntil(clock.sleep(10)); // the guest goes on until it touches what is missing
    const [there, here] = connect(network);
    const next = new StoredSource(options(there)); // as another process: nothing is remembered
    sources.push(next);
    await clock.runUntil(Promise.all([next.recover(), destination.recover(here)]));
  }
  await clock.runUntil(clock.sleep(50));
  expect([sources.at(-1)!.error, destination.error]).toEqual([undefined, undefined]);
  expect([sources.at(-1)!.status, destination.status]).toEqual(['completed', 'completed']);
  expect(sources.at(-1)!.progress.owedPages).toBe(0);
  expect(all.names).toEqual(['restored']);
  await clock.runUntil(guest.stop());
  guest.checkAllPages();
  expect([...saved.violations, ...guest.violations, ...all.violations]).toEqual([]);
  expect(guest.writes).toBeGreaterThan(saved.writes);
  return sources;
}

describe('a guest out of a file', () => {
  test.each([1, 2, 3, 4])('in precopy, seed %i', async (seed) => {
    const random = randomFrom(seed);
    const [source] = await restore(seed, false, [{ readSize: () => 1 + random(9000) }]);
    const { normalPages, zeroPages, requests } = source!.progress;
    // Each page once, however many rounds the file has.
    expect(normalPages + zeroPages).toBe((512 + 256) / 4);
    expect(requests).toBe(0);
  });

  test.each([1, 2, 3, 4, 5, 6])('in postcopy, seed %i', async (seed) => {
    const random = randomFrom(seed);
    const [source] = await restore(seed, true, [
      { bytesPerMs: 500, readSize: () => 1 + random(9000) },
    ]);
    const { normalPages, zeroPages, requests } = source!.progress;
    expect(normalPages + zeroPages).toBe((512 + 256) / 4);
    expect(requests).toBeGreaterThan(3);
  });

  test.each(Array.from({ length: 24 }, (_, i) => i))(
    'in postcopy over a link that breaks at any byte, case %i',
    async (i) => {
      const random = randomFrom(700 + i);
      const cut = (least: number, span: number): Partial<NetworkOptions> =>
        random(3) > 0
          ? { cutAfterBytes: least + random(span) }
          : { cutAfterBytesBack: 60 + random(300) };
      const sources = await restore(800 + i, true, [
        { cutAfterBytes: 150 * KIB + random(300 * KIB), bytesPerMs: 500 },
        ...Array.from({ length: random(4) }, () => cut(4, [60, 400, 200 * KIB][random(3)]!)),
        { readSize: () => 1 + random(9000) },
      ]);
      expect(sources[0]!.status).toBe('postcopy-paused');
    },
  );

  test('is still there when precopy breaks', async () => {
    const { clock, stream, destination: guest, all } = await savedGuest(5);
    const network = { latencyMs: 0.3, bytesPerMs: 3000, cutAfterBytes: 100 * KIB };
    const [transport, here] = virtualConnection(clock, network);
    const source = new StoredSource({
      ...{ guest: open(stream), transport, clock, postcopy: false, returnPath: true },
    });
    const destination = new DestinationMigration({
      ...{ guest, transport: here, clock, capabilities: new Set<Capability>() },
    });
    await clock.runUntil(Promise.all([source.run(), destination.run()]));
    expect(source.status).toBe('failed');
    expect(source.error).toMatchObject({ code: 'CONNECTION_LOST' });
    expect(all.names).toEqual([]);
  });

  test('may run at the destination when the connection breaks at its end', async () => {
    for (const postcopy of [false, true]) {
      const { clock, stream, destination: guest } = await savedGuest(7);
      // The guest is there, and its answer is lost.
      const network = { latencyMs: 0.3, bytesPerMs: 3000, cutAfterBytesBack: postcopy ? 20 : 18 };
      const [transport, here] = virtualConnection(clock, network);
      const source = new StoredSource({
        ...{ guest: open(stream), transport, clock, postcopy, returnPath: true },
        hostPageBytes: (block) => HOST_PAGES.get(block)!,
      });
      const capabilities = new Set<Capability>(postcopy ? ['postcopy-ram'] : []);
      const destination = new DestinationMigration({
        ...{ guest, transport: here, clock, capabilities },
      });
      await clock.runUntil(Promise.all([source.run(), destination.run()]));
      expect(source.status).toBe('failed');
      expect(source.error).toMatchObject({ code: 'OUTCOME_UNKNOWN' });
      if (guest.running) await clock.runUntil(guest.stop());
    }
  });

  test('that the destination refuses fails with its word', async () => {
    const { clock, stream } = await savedGuest(6);
    const other = await SimulatedGuest.create({
      ...{ blocks: BLOCKS, clock, all: new RunningGuests(), name: 'other', seed: 1 },
      machineType: 'pc-i440fx-5.2',
    });
    const [transport, here] = virtualConnection(clock, { latencyMs: 0.3, bytesPerMs: 3000 });
    const source = new StoredSource({
      ...{ guest: open(stream), transport, clock, postcopy: true, returnPath: true },
      hostPageBytes: (block) => HOST_PAGES.get(block)!,
    });
    const destination = new DestinationMigration({
      ...{
        guest: other,
        transport: here,
        clock,
        capabilities: new Set<Capability>(['postcopy-ram']),
      },
    });
    await clock.runUntil(Promise.all([source.run(), destination.run()]));
    expect(source.status).toBe('failed');
    expect(source.error).toMatchObject({ code: 'CONNECTION_LOST' });
    expect(destination.error).toMatchObject({ code: 'MACHINE_MISMATCH' });
  });
});
