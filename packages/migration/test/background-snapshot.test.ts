import { describe, expect, it } from 'vitest';
import {
  type Capability,
  DEFAULT_PARAMETERS,
  DestinationMigration,
  type MigrationStatus,
  SourceMigration,
} from '../src/index.ts';
import { MemoryFile } from './memory-file.ts';
import { BLOCKS } from './simulate.ts';
import { RunningGuests, randomFrom, SimulatedGuest } from './simulated-guest.ts';
import { VirtualClock } from './virtual-clock.ts';

/** Saves a guest that writes a page every 50 µs into a file that takes 4 KiB in 1 ms. */
async function save(seed: number, capabilities: readonly Capability[], failAfterBytes = Infinity) {
  const clock = new VirtualClock();
  const common = { blocks: BLOCKS, clock };
  const guest = await SimulatedGuest.create({
    ...{ ...common, all: new RunningGuests(), name: 'source', seed, writeEveryMs: 0.05 },
  });
  guest.ram.setAllReceived(true);
  guest.fill();
  guest.start();
  await clock.runUntil(clock.sleep(randomFrom(seed)(10)));
  const file = new MemoryFile();
  let written = 0;
  const transport = file.open(0, (bytes) => {
    written += bytes;
    if (written > failAfterBytes) throw new Error('the disk is full');
    return clock.sleep(bytes / 4096);
  });
  const statuses: MigrationStatus[] = [];
  const source = new SourceMigration({
    guest,
    transport,
    clock,
    capabilities: new Set(capabilities),
    parameters: () => ({ ...DEFAULT_PARAMETERS, 'max-bandwidth': 1 }), // is not kept
    onStatus: (status) => statuses.push(status),
  });
  const writesBefore = guest.writes;
  return { clock, common, guest, file, source, statuses, writesBefore };
}

async function expectGuestIsWhole(clock: VirtualClock, guest: SimulatedGuest): Promise<void> {
  const before = guest.writes;
  await clock.runUntil(clock.sleep(20));
  expect(guest.writes).toBeGreaterThan(before);
  await clock.runUntil(guest.stop());
  guest.checkAllPages();
  expect(guest.violations).toEqual([]);
}

describe('a background snapshot', () => {
  const modes = [['background-snapshot'], ['background-snapshot', 'mapped-ram']] as const;
  const cases = [...Array(12).keys()].map((seed) => [seed, modes[seed % 2]!] as const);
  it.each(cases)('is of one moment, seed %i, %s', async (seed, capabilities) => {
    const { clock, common, guest, file, source, statuses, writesBefore } = await save(
      seed,
      capabilities,
    );
    await clock.runUntil(source.run());
    expect(source.error).toBeUndefined();
    expect(statuses).toEqual(['setup', 'active', 'completed']);
    expect(source.info.downtime).toBeLessThan(2);
    expect(guest.running).toBe(true);
    const { writes } = guest;
    expect(writes).toBeGreaterThan(writesBefore + 3n);
    const loaded = await SimulatedGuest.create({
      ...{ ...common, all: new RunningGuests(), name: 'loaded', seed: 99 },
    });
    const destination = new DestinationMigration({
      guest: loaded,
      transport: file.open(),
      clock,
      capabilities: new Set(capabilities.filter((name) => name === 'mapped-ram')),
    });
    await clock.runUntil(destination.run());
    expect(destination.error).toBeUndefined();
    expect(loaded.writes).toBeLessThan(writes);
    await expectGuestIsWhole(clock, loaded);
    await expectGuestIsWhole(clock, guest);
  });

  it.each([3, 4])('that cannot be written leaves the guest running, seed %i', async (seed) => {
    const { clock, guest, source } = await save(seed, modes[seed % 2]!, 300_000);
    await clock.runUntil(source.run());
    expect(source.status).toBe('failed');
    expect(source.error?.message).toContain('the disk is full');
    await expectGuestIsWhole(clock, guest);
  });

  it('that is cancelled leaves the guest running', async () => {
    const { clock, guest, source } = await save(5, ['background-snapshot']);
    const run = source.run();
    await clock.runUntil(clock.sleep(40));
    expect(source.status).toBe('active');
    source.cancel();
    await clock.runUntil(run);
    expect(source.status).toBe('cancelled');
    await expectGuestIsWhole(clock, guest);
  });
});
