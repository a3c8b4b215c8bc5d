import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import type { Peer, Release } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { migrate, SimulatedHost } from '../simulated-host.ts';

const WHERRY = fileURLToPath(new URL('../../apps/wherry/dist/main.js', import.meta.url));
const GUEST = ['--ram', 'pc.ram=4M', '--vcpu', 'idle'];

/** What a host has of itself, at the same addresses. */
const OWN = [
  ...['-blockdev', 'driver=null-co,node-name=disk0,size=1048576,read-zeroes=on'],
  ...['-device', 'virtio-net-pci,addr=02.0,romfile='],
  ...['-device', 'virtio-blk-pci,addr=03.0,drive=disk0'],
  ...['-device', 'virtio-balloon-pci,addr=04.0'],
];

/** What QEMU wants behind `-device DRIVER`, and the objects behind that. */
const NEEDS: Readonly<Record<string, readonly string[]>> = {
  nvme: [',serial=x'],
  'virtio-crypto-pci': [',cryptodev=c0', '-object', 'cryptodev-backend-builtin,id=c0'],
  'virtio-sound-pci': [',audiodev=a0', '-audiodev', 'driver=none,id=a0'],
  'ivshmem-plain': [',memdev=m0', '-object', 'memory-backend-ram,id=m0,size=1M,share=on'],
};

function qemuArguments(devices: readonly string[]): string[] {
  return devices.flatMap((device) => {
    const [properties = '', ...objects] = NEEDS[device.split(',')[0]!] ?? [];
    return [...objects, '-device', device + properties];
  });
}

const hostArguments = (devices: readonly string[]): string[] =>
  devices.flatMap((device) => ['--device', device]);

interface Blocked {
  readonly reasons: readonly string[] | undefined;
  readonly refusal: string;
  readonly after: unknown;
}

async function askWhatBlocks(client: QmpClient): Promise<Blocked> {
  const { 'blocked-reasons': reasons } = await client.execute('query-migrate');
  const refusal = await client.execute('migrate', { uri: 'tcp:127.0.0.1:1' }).then(
    () => 'none',
    (error: { desc: string }) => error.desc,
  );
  return { reasons, refusal, after: await client.execute('query-migrate') };
}

async function ofQemu(peer: Peer, devices: readonly string[]): Promise<Blocked> {
  await using qemu = await QemuProcess.start(peer, { args: [...OWN, ...qemuArguments(devices)] });
  return await askWhatBlocks(qemu.qmp);
}

async function ofHost(devices: readonly string[]): Promise<Blocked> {
  const directory = await mkdtemp(join(tmpdir(), 'wherry-blockers-'));
  try {
    const path = join(directory, 'qmp');
    await using _ = await SimulatedHost.start(path, [...GUEST, ...hostArguments(devices)]);
    const client = await QmpClient.connect(await connectQmpSocket(path));
    const blocked = await askWhatBlocks(client);
    client.close();
    return blocked;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Runs a command that does not start. @returns the last line that it wrote, without its own name */
async function refusalOf(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const child = spawn(file, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect(code).not.toBe(0);
  return text
    .trim()
    .split('\n')
    .at(-1)!
    .replace(/^(wherry|\S+: -device [^:]*): /, '');
}

const DEVICES: readonly (readonly [Release, readonly string[]])[] = [
  ['7.2', ['nvme', 'rocker', 'virtio-crypto-pci', 'amd-iommu', 'ivshmem-plain']],
  ['10.0', ['nvme', 'ufs', 'rocker', 'virtio-crypto-pci', 'virtio-sound-pci', 'amd-iommu']],
  ['10.0', ['ivshmem-plain']],
  ['11.1', ['ufs', 'rocker', 'virtio-crypto-pci', 'virtio-sound-pci', 'amd-iommu']],
  ['11.1', ['ivshmem-plain']],
];

describe('what blocks migration is what QEMU says', () => {
  for (const [release, devices] of DEVICES) {
    for (const device of devices) {
      peerTest(release, `with ${device}`, async (peer) => {
        const qemu = await ofQemu(peer, [device]);
        expect(qemu.reasons).toHaveLength(1);
        expect(await ofHost([device])).toEqual(qemu);
        const { file, argv, env } = peer.command([
          ...['-nodefaults', '-M', 'pc-q35-5.2', '-display', 'none', '-only-migratable'],
          ...qemuArguments([device]),
        ]);
        expect(
          await refusalOf(process.execPath, [
            ...[WHERRY, 'host', '--qmp', 'unix:never', ...GUEST, '--only-migratable'],
            ...hostArguments([device]),
          ]),
        ).toBe(await refusalOf(file, argv, env));
      });
    }
  }

  peerTest(
    '7.2',
    'and `wherry migrate` tells all of it before anything is changed',
    async (peer) => {
      const devices = ['nvme', 'ivshmem-plain', 'rocker'];
      const second = ['-qmp', 'unix:second.sock,server=on,wait=off']; // the first has a client already
      await using source = await QemuProcess.start(peer, {
        args: [...OWN, ...qemuArguments(devices), ...second],
      });
      await using destination = await QemuProcess.start(peer, {
        args: [...OWN, ...second],
        incoming: 'defer',
      });
      const sockets = [source, destination].map(({ directory }) => join(directory, 'second.sock'));
      await expect(migrate(sockets[0]!, sockets[1]!, 'tcp:127.0.0.1:0')).rejects.toThrow(
        [
          'wherry: The guest cannot be migrated; nothing was changed on either side:',
          "  Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
          '  non-migratable device: 0000:00:06.0/rocker',
          '  non-migratable device: 0000:00:01.0/nvme',
          'Unplug what blocks it, or start the guest without it',
        ].join('\n'),
      );
      expect(await destination.qmp.execute('query-migrate')).toEqual({});
    },
  );

  for (const release of ['7.2', '10.0'] as const) {
    peerTest(release, 'with several, the first of which QEMU names', async (peer) => {
      const devices = ['rocker', 'ivshmem-plain', 'nvme,addr=10.0', 'amd-iommu', 'nvme'];
      const qemu = await ofQemu(peer, devices);
      const host = await ofHost(devices);
      expect(host.reasons).toEqual(qemu.reasons);
      expect(host.reasons).toHaveLength(devices.length);
      expect(host.refusal.split('; ')).toHaveLength(devices.length);
      expect(host.refusal.split('; ')[0]).toBe(qemu.refusal);
      expect(host.after).toEqual(qemu.after);
    });
  }
});
