import { PacketPages, type RamBlockSpec } from '@wherry/page-engine';
import { expect } from 'vitest';
import {
  type Capability,
  DEFAULT_PARAMETERS,
  DestinationMigration,
  type MigrationStatus,
  MultifdSendChannel,
  type Parameters,
  SourceMigration,
  type Transport,
} from '../src/index.ts';
import {
  RunningGuests,
  randomFrom,
  SimulatedGuest,
  type SimulatedGuestOptions,
} from './simulated-guest.ts';
import { receiveChannel, ZERO_UUID } from './virtual-channels.ts';
import { VirtualClock } from './virtual-clock.ts';
import { type NetworkOptions, virtualConnection } from './virtual-network.ts';

/** Bytes. */
export const KIB: number = 1024;
export const BLOCKS: readonly RamBlockSpec[] = [
  { name: 'pc.ram', lengthBytes: 512 * KIB, hostPageBytes: 4 * KIB },
  { name: 'hugemem', lengthBytes: 256 * KIB, hostPageBytes: 64 * KIB },
];

/** What is special about one migration. */
export interface Scenario {
  readonly seed: number;
  readonly capabilities: readonly Capability[];
  readonly network?: Partial<NetworkOptions>;
  readonly parameters?: Partial<Parameters>;
  readonly startPostcopyAfterMs?: number;
  readonly cancelAfterMs?: number;
  readonly pauseAfterMs?: number;
  readonly pauseAt?: 'source' | 'destination';
  readonly source?: Partial<SimulatedGuestOptions>;
  readonly destination?: Partial<SimulatedGuestOptions>;
  readonly destinationCapabilities?: readonly Capability[];
  readonly paused?: boolean;
  /** The channels of multifd; both sides know how many there are. */
  readonly channels?: readonly Partial<NetworkOptions>[];
  /** Connections for as long as the migration is paused. */
  readonly recoveries?: readonly (Partial<NetworkOptions> & {
    /** The channel for requested pages; default as the main one. */
    readonly preempt?: Partial<NetworkOptions>;
  })[];
  /** The channel for requested pages; default as the main one. */
  readonly preemptNetwork?: Partial<NetworkOptions>;
  /** Nobody answers where a further connection goes. */
  readonly refuseChannels?: boolean;
}

/** How it went. */
export interface Outcome {
  readonly clock: VirtualClock;
  readonly source: SourceMigration;
  readonly destination: DestinationMigration;
  readonly sourceGuest: SimulatedGuest;
  readonly destinationGuest: SimulatedGuest;
  readonly sourceStatuses: readonly MigrationStatus[];
  readonly destinationStatuses: readonly MigrationStatus[];
  readonly running: RunningGuests;
}

/** Runs one migration to its end, lets the guest go on, and checks the invariants. */
export async function simulate(scenario: Scenario): Promise<Outcome> {
  const clock = new VirtualClock();
  const running = new RunningGuests();
  const random = randomFrom(scenario.seed);
  const common = { blocks: BLOCKS, clock, all: running };
  const sourceGuest = await SimulatedGuest.create({
    ...common,
    name: 'source',
    seed: scenario.seed,
    ...scenario.source,
  });
  const destinationGuest = await SimulatedGuest.create({
    ...common,
    name: 'destination',
    seed: scenario.seed + 1,
    ...scenario.destination,
  });
  const connect = (network: Partial<NetworkOptions> = {}): [Transport, Transport] =>
    virtualConnection(clock, { latencyMs: 0.3, bytesPerMs: 20_000, ...network });
  /** Further connections, in the order in which they were opened. */
  const channels = (network: Partial<NetworkOptions> = {}) => {
    const opened: Transport[] = [];
    let wake = (): void => {};
    const openChannel = async (): Promise<Transport> => {
      await clock.sleep(0.3);
      if (scenario.refuseChannels) throw new Error('Connection refused');
      const [there, here] = connect(network);
      opened.push(here);
      wake();
      return there;
    };
    const acceptChannel = async (signal: AbortSignal): Promise<Transport> => {
      for (;;) {
        signal.throwIfAborted();
        const transport = opened.shift();
        if (transport !== undefined) return transport;
        await new Promise<void>((resolve) => {
          wake = resolve;
          signal.addEventListener('abort', () => resolve(), { once: true });
        });
      }
    };
    return { openChannel, acceptChannel };
  };
  const [there, here] = connect(scenario.network);
  const { openChannel, acceptChannel } = channels(scenario.preemptNetwork ?? scenario.network);
  const sourceStatuses: MigrationStatus[] = [];
  const destinationStatuses: MigrationStatus[] = [];
  const capabilities = new Set(scenario.capabilities);
  const parameters: Parameters = {
    ...DEFAULT_PARAMETERS,
    'max-bandwidth': 0,
    'downtime-limit': 2,
    ...scenario.parameters,
  };
  const links = scenario.channels?.map(connect);
  const detection = parameters['zero-page-detection'];
  const sendPorts = links?.map(
    ([transport], id) =>
      new MultifdSendChannel({
        pages: new PacketPages(sourceGuest.ram, id),
        ...{ id, transport, uuid: ZERO_UUID, compression: 'none' },
        findZeroPages: detection === 'multifd',
      }),
  );
  const receivePorts = links?.map(([, transport]) =>
    receiveChannel(destinationGuest.ram, transport, links.length),
  );
  const source = new SourceMigration({
    guest: sourceGuest,
    ...(sendPorts === undefined ? {} : { multifd: sendPorts }),
    transport: there,
    openChannel,
    clock,
    capabilities,
    parameters: () => parameters,
    onStatus: (status) => sourceStatuses.push(status),
  });
  const destination = new DestinationMigration({
    guest: destinationGuest,
    ...(receivePorts === undefined ? {} : { multifd: receivePorts }),
    transport: here,
    acceptChannel,
    clock,
    capabilities: new Set(scenario.destinationCapabilities ?? scenario.capabilities),
    onStatus: (status) => destinationStatuses.push(status),
  });
  sourceGuest.ram.setAllReceived(true);
  sourceGuest.fill();
  if (!scenario.paused) sourceGuest.start();
  await clock.runUntil(clock.sleep(random(30)));
  const runs = Promise.all([source.run(), destination.run()]);
  if (scenario.startPostcopyAfterMs !== undefined) {
    void clock.sleep(scenario.startPostcopyAfterMs).then(() => source.startPostcopy());
  }
  if (scenario.cancelAfterMs !== undefined) {
    void clock.sleep(scenario.cancelAfterMs).then(() => {
      try {
        source.cancel();
      } catch (error) {
        expect(error).toMatchObject({ code: 'STATE' });
      }
    });
  }
  if (scenario.pauseAfterMs !== undefined) {
    const side = scenario.pauseAt === 'destination' ? destination : source;
    void clock.sleep(scenario.pauseAfterMs).then(() => side.pause());
  }
  await clock.runUntil(runs);
  for (const network of scenario.recoveries ?? []) {
    if (source.status !== 'postcopy-paused' || destination.status !== 'postcopy-paused') break;
    await clock.runUntil(clock.sleep(random(20))); // the guest goes on until it touches what is missing
    const [there, here] = connect(network);
    const { openChannel, acceptChannel } = channels(network.preempt ?? network);
    await clock.runUntil(
      Promise.all([
        source.resume(Promise.resolve(there), openChannel),
        destination.recover(here, acceptChannel),
      ]),
    );
  }
  await clock.runUntil(clock.sleep(100));

  expect(running.violations).toEqual([]);
  for (const guest of [sourceGuest, destinationGuest]) {
    if (guest.running) {
      await clock.runUntil(guest.stop());
      if (source.status !== 'postcopy-paused') guest.checkAllPages();
      expect(guest.violations).toEqual([]);
      running.start(guest.name); // for the outcome
    }
  }
  return {
    clock,
    source,
    destination,
    sourceGuest,
    destinationGuest,
    sourceStatuses,
    destinationStatuses,
    running,
  };
}

/** Sees that the guest runs at the destination, with the devices that it had. */
export function expectMoved(outcome: Outcome): void {
  const { source, destination, running } = outcome;
  expect(source.error ?? destination.error).toBeUndefined();
  expect([source.status, destination.status]).toEqual(['completed', 'completed']);

  expect(running.names).toEqual(['destination']);
  expect(source.info.ram?.remaining).toBe(0);
  expect(destination.deviceStates).toEqual(source.deviceStates);
  expect(outcome.destinationGuest.writes).toBeGreaterThan(outcome.sourceGuest.writes);
}
