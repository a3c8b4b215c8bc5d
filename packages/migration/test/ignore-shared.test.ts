import type { RamBlockSpec } from '@wherry/page-engine';
import { describe, expect, it } from 'vitest';
import {
  type Capability,
  DEFAULT_PARAMETERS,
  DestinationMigration,
  type SharedRam,
  SourceMigration,
} from '../src/index.ts';
import { MemoryFile } from './memory-file.ts';
import { BLOCKS } from './simulate.ts';
import { RunningGuests, SimulatedGuest } from './simulated-guest.ts';
import { VirtualClock } from './virtual-clock.ts';

/** Files of blocks, in memory. */
type Files = Map<string, Uint8Array>;

/** A guest of which one block lies in a file. */
async function guestWith(
  options: { name: string; clock: VirtualClock; all: RunningGuests; blocks?: RamBlockSpec[] },
  files: Files,
  sharedBlock: string | undefined,
): Promise<SimulatedGuest & { shared: SharedRam }> {
  const guest = await SimulatedGuest.create({ blocks: [...BLOCKS], seed: 4, ...options });
  const shared = guest.ram.blocks.filter(({ name }) => name === sharedBlock);
  return Object.assign(guest, {
    shared: {
      blocks: new Set(shared),
      save: async () => {
        for (const block of shared) files.set(block.name, block.read(0, block.lengthBytes));
      },
      load: async () => {
        for (const block of shared) {
          for (const { firstPage, bytes } of block.fillable(0, block.pageCount)) {
            const at = firstPage * 4096;
            bytes.set(files.get(block.name)!.subarray(at, at + bytes.length));
          }
        }
      },
    },
  });
}

/** Moves a guest that runs through a file, `hugemem` being shared at the source. */
async function move(
  capabilities: readonly Capability[],
  destination: { readonly shared?: string; readonly blocks?: RamBlockSpec[] },
) {
  const clock = new VirtualClock();
  const all = new RunningGuests();
  const files: Files = new Map();
  const from = await guestWith({ name: 'source', clock, all }, files, 'hugemem');
  from.ram.setAllReceived(true);
  from.fill();
  from.start();
  const file = new MemoryFile();
  const options = { clock, capabilities: new Set(capabilities) };
  const source = new SourceMigration({
    ...options,
    guest: from,
    transport: file.open(0, (bytes) => clock.sleep(bytes / 20_000)),
    parameters: () => ({ ...DEFAULT_PARAMETERS, 'max-bandwidth': 0, 'downtime-limit': 2 }),
  });
  await clock.runUntil(source.run());
  expect(source.error).toBeUndefined();
  const { blocks } = destination;
  const named = { name: 'destination', clock, all, ...(blocks === undefined ? {} : { blocks }) };
  const to = await guestWith(named, files, destination.shared);
  const migration = new DestinationMigration({ ...options, guest: to, transport: file.open() });
  await clock.runUntil(migration.run());
  return { clock, source, file, to, migration };
}

describe('x-ignore-shared', () => {
  it.each([[['x-ignore-shared']], [['x-ignore-shared', 'mapped-ram']]] as const)(
    'leaves the pages of a shared block out, %s',
    async (capabilities) => {
      const moved = await move(capabilities, { shared: 'hugemem' });
      const { clock, source, file, to, migration } = moved;
      expect(migration.error).toBeUndefined();
      expect(source.info.ram!.total).toBe(BLOCKS[0]!.lengthBytes);
      expect(migration.counters.normalPages).toBeLessThanOrEqual(source.info.ram!.normal);
      // Pages that hold what they were filled with: 7 of 8, no more than once each round.
      expect(file.bytes.length).toBeLessThan(2 * 2 ** 20);
      await clock.runUntil(clock.sleep(20));
      await clock.runUntil(to.stop());
      to.checkAllPages();
      expect(to.violations).toEqual([]);
    },
  );

  it.each([
    ['x-ignore-shared', /No page of a RAM block came.*hugemem/],
    ['mapped-ram', /A block is not in the file.*hugemem/],
  ] as const)('is refused where the block is private, %s', async (capability, message) => {
    const { migration } = await move(['x-ignore-shared', capability], {});
    expect(migration.error).toMatchObject({ message: expect.stringMatching(message) });
  });

  it('is refused where the block lies at another address', async () => {
    const blocks = [...BLOCKS].reverse();
    const { migration } = await move(['x-ignore-shared'], { shared: 'hugemem', blocks });
    expect(migration.error?.message).toContain('Mismatched GPAs for block hugemem 524288!= 0');
  });
});
