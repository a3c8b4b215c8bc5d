import { Worker } from 'node:worker_threads';
import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import type { RamBlockSpec } from '@wherry/page-engine';
import { onTestFinished } from 'vitest';
import {
  Machine,
  type MachineOptions,
  type VcpuThread,
  type VcpuThreadInit,
} from '../src/index.ts';

const MiB = 2 ** 20;

export const smallBlocks: readonly RamBlockSpec[] = [
  { name: 'pc.ram', lengthBytes: 4 * MiB, hostPageBytes: 4096 },
  { name: 'hugemem', lengthBytes: 4 * MiB, hostPageBytes: 2 * MiB },
];

export function spawnWorker(init: VcpuThreadInit): VcpuThread {
  const worker = new Worker(new URL('./vcpu-worker.ts', import.meta.url), { workerData: init });
  return {
    terminate: () => worker.terminate(),
    onError: (callback) => worker.on('error', callback),
  };
}

/** Makes a small machine with two vCPUs, closed when the test is over. */
export async function createMachine(options: Partial<MachineOptions> = {}): Promise<Machine> {
  const machine = await Machine.create({
    blocks: smallBlocks,
    vcpus: [
      { workload: 'hotset', pagesPerSecond: Infinity },
      { workload: 'random', pagesPerSecond: Infinity },
    ],
    spawn: spawnWorker,
    now: Date.now,
    ...options,
  });
  onTestFinished(() => machine.close());
  return machine;
}

/** Sleeps until something holds. */
export async function until(condition: () => boolean, timeoutMs = 5000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within ${timeoutMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Saves the needed devices' sections, in order. */
export function saveDevices(machine: Machine): { idstr: string; bytes: Uint8Array }[] {
  return machine.devices
    .filter((device) => device.isNeeded())
    .map((device) => {
      const writer = new ByteWriter();
      device.save(writer);
      return { idstr: `${device.idstr}:${device.instanceId}`, bytes: writer.finish() };
    });
}

/** Loads saved sections into another machine's devices. */
export function loadDevices(machine: Machine, sections: ReturnType<typeof saveDevices>): void {
  for (const { idstr, bytes } of sections) {
    const device = machine.devices.find((d) => `${d.idstr}:${d.instanceId}` === idstr)!;
    const reader = ByteReader.over(bytes);
    runParser(device.load(reader, device.version), reader);
  }
}

/** Copies all of a machine's RAM into a machine that has none, as present pages. */
export function copyRam(from: Machine, to: Machine): void {
  for (const block of from.ram.blocks) {
    to.ram.block(block.name)!.write(0, block.read(0, block.lengthBytes));
  }
  to.ram.setAllReceived(true);
}
