import { randomFillSync } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Peer } from '../../conformance/peers/peers.ts';
import { QemuProcess } from '../../conformance/qemu.ts';
import { type Guest, type Host, runMigration } from './migration-run.ts';

const CHUNK_BYTES = 2 ** 24;

/** Halts at the reset vector. */
const HALTED = new Uint8Array(65536).fill(0xf4);
/** As many as make a megabyte of device state, 60 KB each. */
const STATEFUL_DEVICES = 17;

/**
 * Starts a QEMU; its memory is anonymous, and untouched unless it is a preallocated destination's. An idle
 * guest is halted, and has so many virtqueues that its devices have a megabyte of state.
 */
export function startQemu(
  peer: Peer,
  { ramBytes, idle = false, preallocated = false }: Guest,
  incoming: boolean,
): Promise<QemuProcess> {
  const devices = Array.from({ length: STATEFUL_DEVICES }, (_, i) => [
    '-device',
    `virtio-scsi-pci,num_queues=1000,vectors=0,addr=${(i + 2).toString(16)}`,
  ]);
  return QemuProcess.start(peer, {
    ram: `${ramBytes / 2 ** 20}M`,
    args: [
      ...(idle ? devices.flat() : ['-S']),
      ...(incoming && preallocated ? preallocate(ramBytes) : []),
    ],
    ...(idle ? { firmware: HALTED } : {}),
    ...(incoming ? { incoming: 'defer' } : {}),
  });
}

function preallocate(ramBytes: number): string[] {
  const backend = `memory-backend-ram,id=pc.ram,size=${ramBytes},prealloc=on`;
  return ['-object', backend, '-machine', 'memory-backend=pc.ram'];
}

/**
 * Starts a QEMU whose memory is random pages: another one that maps a file of them migrates to it, so
 * that in the end they lie in anonymous memory, as those of a guest that has run.
 */
export async function startRandomQemu(peer: Peer, guest: Guest): Promise<Host> {
  const { ramBytes } = guest;
  const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'wherry-'));
  try {
    const path = join(directory, 'ram');
    writeRandomFile(path, ramBytes);
    const backend = `memory-backend-file,id=pc.ram,mem-path=${path},size=${ramBytes},share=off`;
    await using origin = await QemuProcess.start(peer, {
      ram: `${ramBytes / 2 ** 20}M`,
      args: ['-S', '-object', backend, '-machine', 'memory-backend=pc.ram'],
    });
    const host = await startQemu(peer, { ...guest, preallocated: false }, true);
    try {
      await runMigration(origin, host);
      return host;
    } catch (error) {
      await host.close();
      throw error;
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function writeRandomFile(path: string, lengthBytes: number): void {
  const file = openSync(path, 'w');
  try {
    const chunk = randomFillSync(new Uint8Array(CHUNK_BYTES)); // nobody compares its pages
    for (let at = 0; at < lengthBytes; at += CHUNK_BYTES) {
      writeSync(file, chunk, 0, Math.min(CHUNK_BYTES, lengthBytes - at));
    }
  } finally {
    closeSync(file);
  }
}
