import { setTimeout as sleep } from 'node:timers/promises';
import { skip } from '@wherry/bytes';
import {
  type Capability,
  DestinationMigration,
  type GuestPort,
  type Transport,
} from '@wherry/migration';
import { GuestRam, type RamBlockSpec } from '@wherry/page-engine';
import type { Device } from '@wherry/vmstate';
import { SharedRamFiles } from '../apps/wherry/src/host/shared-ram.ts';
import { walkStream } from './walk-stream.ts';

/** Bytes as a file that is read from an offset on. */
function fileOf(bytes: Uint8Array, offset: number): Transport {
  let position = offset;
  const readAt = async (into: Uint8Array, from: number): Promise<number> => {
    const piece = bytes.subarray(from, from + into.length);
    into.set(piece);
    return piece.length;
  };
  return {
    async read(into) {
      const count = await readAt(into, position);
      position += count;
      return count;
    },
    write: async () => {
      throw new Error('a file that is read takes nothing');
    },
    end: async () => {},
    destroy() {},
    get file() {
      return {
        position,
        seek: (to: number) => {
          position = to;
        },
        readAt,
        writeAt: async () => {
          throw new Error('a file that is read takes nothing');
        },
      };
    },
  };
}

/** Takes a section as it is, whatever it holds. */
function taker(idstr: string, instanceId: number, version: number, lengthBytes: number): Device {
  return {
    ...{ idstr, instanceId, version, olderNames: [], priority: 'default' },
    ...{ earlySetup: false, unmigratable: false, isNeeded: () => false },
    save: () => ({ name: idstr, instance_id: instanceId }),
    load: (reader) => skip(reader, lengthBytes),
  };
}

/** What a destination made of a file. */
export interface LoadedFile {
  readonly ram: GuestRam;
  readonly destination: DestinationMigration;
}

/**
 * Loads a file that a real QEMU has written into a guest with its blocks, as a host's `-incoming file:`
 * does.
 *
 * @param sharedFiles files of shared RAM blocks, by their names
 */
export async function loadFile(
  bytes: Uint8Array,
  capabilities: readonly Capability[],
  offset = 0,
  sharedFiles: ReadonlyMap<string, string> = new Map(),
): Promise<LoadedFile> {
  const { devices, ram: list, configuration } = walkStream(bytes);
  const blocks: RamBlockSpec[] = (list?.blocks ?? []).map(({ name, usedBytes }) => ({
    ...{ name, lengthBytes: usedBytes, hostPageBytes: 4096 },
  }));
  const ram = await GuestRam.create(blocks);
  const shared = await SharedRamFiles.open(ram, sharedFiles);
  const guest: GuestPort = {
    machineType: configuration?.machineType ?? '',
    ram,
    shared,
    devices: devices
      .filter(({ idstr }) => idstr !== 'globalstate')
      .map((d) => taker(d.idstr, d.instanceId, d.version, d.bodyLengthBytes)),
    running: false,
    faults: {
      wait: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
      take: () => [],
      repeat() {},
    },
    start() {},
    async stop() {},
  };
  const destination = new DestinationMigration({
    guest,
    transport: fileOf(bytes, offset),
    clock: {
      now: () => performance.now(),
      sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
      yield: () => sleep(0),
    },
    capabilities: new Set(capabilities),
  });
  await destination.run();
  await shared.close();
  return { ram, destination };
}
