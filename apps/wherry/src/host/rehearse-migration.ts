import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  DestinationMigration,
  defaultParameters,
  type GuestPort,
  MigrationError,
  SourceMigration,
  type Transport,
} from '@wherry/migration';
import { GuestRam } from '@wherry/page-engine';
import { connect, listen } from '@wherry/transport';
import type { Device } from '@wherry/vmstate';
import { wallClock } from '../wall-clock.ts';

/** Of memory that is never touched: its zero pages are enough for the engine to compile its code for speed. */
const RAM_BYTES = 2 ** 30;
const ROUNDS = 2;

/**
 * Migrates a guest of these devices, and memory of its own, to itself, while they stand still.
 *
 * A device that cannot load what it saves is found before it matters; and the code of a migration, which
 * takes up to ten times as long when it runs for the first time, has run before a guest stands still for it.
 *
 * @throws MigrationError of the device that cannot be saved or loaded; TransportError where no socket can
 *   be made in the temporary folder
 */
export async function rehearseMigration(
  machineType: string,
  devices: readonly Device[],
): Promise<void> {
  const parameters = defaultParameters(machineType);
  const here = await makeGuest(machineType, devices);
  const there = await makeGuest(machineType, devices);
  here.ram.setAllReceived(true);
  for (let round = 0; round < ROUNDS; round++) {
    const [outgoing, incoming] = await connectedPair();
    const given = { clock: wallClock, capabilities: new Set(['return-path'] as const) };
    const source = new SourceMigration({
      ...given,
      guest: here,
      transport: outgoing,
      parameters: () => parameters,
    });
    const destination = new DestinationMigration({ ...given, guest: there, transport: incoming });
    await Promise.all([source.run(), destination.run()]);
    const [saving, loading] = [source.error, destination.error];
    const isLoading = saving instanceof MigrationError && saving.code === 'DESTINATION_FAILED';
    const error = isLoading ? loading : (saving ?? loading);
    if (error !== undefined) throw error;
  }
}

async function makeGuest(machineType: string, devices: readonly Device[]): Promise<GuestPort> {
  const block = { name: 'pc.ram', lengthBytes: RAM_BYTES, hostPageBytes: 4096 };
  return {
    machineType,
    ram: await GuestRam.create([block], { shared: true }),
    devices,
    faults: { wait: async () => {}, take: () => [], repeat: () => {} },
    running: false,
    start: () => {},
    stop: async () => {},
  };
}

async function connectedPair(): Promise<[Transport, Transport]> {
  const directory = await mkdtemp(join(tmpdir(), 'wherry-'));
  try {
    const listener = await listen({ kind: 'unix', path: join(directory, 'rehearsal') });
    const pair = await Promise.all([connect(listener.uri), listener.accept()]);
    await listener.close();
    return pair;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
