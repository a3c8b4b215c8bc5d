import { randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Capability,
  type Clock,
  DestinationMigration,
  type MigrationStatus,
  type OpenChannel,
  type PageFault,
} from '@wherry/migration';
import { GuestRam, type RamBlockSpec } from '@wherry/page-engine';
import { type Listener, listen } from '@wherry/transport';
import { describe, field, i64, unused, vmstateDevice } from '@wherry/vmstate';

const clock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
  yield: () => sleep(0),
};

/** The one device of a machine `none`. */
const timer = describe({
  name: 'timer',
  version: 2,
  fields: [
    field('cpu_ticks_offset', i64),
    field('unused', unused(8)),
    field('cpu_clock_offset', i64),
  ],
});

/**
 * A destination for a real QEMU of machine `none`, whose guest has no vCPU: from RUN on it touches
 * missing pages at random, one at a time, with a pause between.
 */
export class PagingDestination {
  readonly ram: GuestRam;
  readonly migration: DestinationMigration;
  readonly #guest: TouchingGuest;

  private constructor(ram: GuestRam, migration: DestinationMigration, guest: TouchingGuest) {
    this.ram = ram;
    this.migration = migration;
    this.#guest = guest;
  }

  /** Takes the connections of a source; resolves once the first is there. */
  static async accept(
    listener: Listener,
    blocks: readonly RamBlockSpec[],
    capabilities: readonly Capability[],
  ): Promise<PagingDestination> {
    const ram = await GuestRam.create(blocks);
    const guest = new TouchingGuest(ram);
    const migration = new DestinationMigration({
      guest,
      transport: await listener.accept(),
      acceptChannel: accepting(listener),
      clock,
      capabilities: new Set(capabilities),
    });
    return new PagingDestination(ram, migration, guest);
  }

  /** Runs the migration to its end or to a pause. */
  run(): Promise<MigrationStatus> {
    return this.migration.run();
  }

  /** Goes on over the connections of another listener. */
  async recover(listener: Listener): Promise<MigrationStatus> {
    return this.migration.recover(await listener.accept(), accepting(listener));
  }

  /** Ends the guest. */
  close(): void {
    this.#guest.ended = true;
  }
}

/** Listens on a free port. */
export function listenAnywhere(): Promise<Listener> {
  return listen('tcp:127.0.0.1:0');
}

function accepting(listener: Listener): OpenChannel {
  return (signal) => listener.accept({ signal });
}

class TouchingGuest {
  readonly machineType = 'none';
  readonly ram: GuestRam;
  readonly devices = [
    vmstateDevice({
      idstr: 'timer',
      description: timer,
      get: () => ({ cpu_ticks_offset: 0n, cpu_clock_offset: 0n }),
      set: () => {},
    }),
  ];
  running = false;
  ended = false;
  #new: PageFault[] = [];
  #awaited: PageFault | undefined;
  #wake = Promise.withResolvers<void>();

  constructor(ram: GuestRam) {
    this.ram = ram;
  }

  readonly faults = {
    wait: async (signal: AbortSignal): Promise<void> => {
      signal.addEventListener('abort', () => this.#wake.resolve());
      if (this.#new.length === 0 && !signal.aborted) await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    },
    take: (): PageFault[] => this.#new.splice(0),
    repeat: (): void => {
      if (this.#awaited !== undefined) this.#new = [this.#awaited];
    },
  };

  start(): void {
    this.running = true;
    void this.#touch();
  }

  async stop(): Promise<void> {}

  async #touch(): Promise<void> {
    for (let turn = 0; turn < 100_000 && !this.ended; turn++) {
      const block = this.ram.blocks[randomInt(this.ram.blocks.length)]!;
      const length = block.hostPageBytes;
      const offset = randomInt(block.lengthBytes / length) * length;
      if (block.isRangeReceived(offset, length)) {
        if (turn % 100 === 0) await sleep(0);
        continue;
      }
      this.#awaited = { block, offsetBytes: offset, lengthBytes: length };
      this.#new.push(this.#awaited);
      this.#wake.resolve();
      while (!block.isRangeReceived(offset, length) && !this.ended) await sleep(1);
      this.#awaited = undefined;
      await sleep(length > 4096 ? 50 : 1);
    }
  }
}
