import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createQcow2, MemoryFile } from '@wherry/machine';
import { QmpClient, QmpCommandError } from '@wherry/qmp';
import { afterAll, beforeAll, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { SimulatedHost } from '../simulated-host.ts';

type Step = readonly [command: string, data: Readonly<Record<string, unknown>>];

const bitmap = (node: string, name: string) => ({ node, name });
const write = (node: string, range: string): Step => [
  'human-monitor-command',
  { 'command-line': `qemu-io ${node} "write ${range}"` },
];
const looks: Step = ['query-named-block-nodes', {}];

/** What an operator does to bitmaps, and what an operator may do wrong. */
const SCRIPT: readonly Step[] = [
  ['block-dirty-bitmap-add', { node: 'drive0', name: 'a' }],
  ['block-dirty-bitmap-add', { node: 'disk0', name: 'a' }],
  ['block-dirty-bitmap-add', { node: 'disk0', name: 'b', granularity: 4096, persistent: true }],
  ['block-dirty-bitmap-add', { node: 'disk0', name: 'c', disabled: true }],
  ['block-dirty-bitmap-add', { node: 'disk0', name: '' }],
  ['block-dirty-bitmap-add', { node: 'none', name: 'a' }],
  ['block-dirty-bitmap-add', { node: 'disk0', name: 'd', granularity: 1000 }],
  ['block-dirty-bitmap-add', { node: 'null0', name: 'n' }],
  looks,
  write('drive0', '128k 200k'),
  write('null0', '5000 1'),
  looks,
  ['block-dirty-bitmap-clear', bitmap('disk0', 'a')],
  ['block-dirty-bitmap-clear', bitmap('disk0', 'none')],
  ['block-dirty-bitmap-clear', bitmap('none', 'a')],
  ['block-dirty-bitmap-disable', bitmap('disk0', 'b')],
  ['block-dirty-bitmap-enable', bitmap('disk0', 'c')],
  write('disk0', '1M 4k'),
  looks,
  [
    'block-dirty-bitmap-merge',
    { node: 'disk0', target: 'a', bitmaps: ['b', bitmap('disk0', 'c')] },
  ],
  ['block-dirty-bitmap-merge', { node: 'disk0', target: 'a', bitmaps: ['none'] }],
  ['block-dirty-bitmap-merge', { node: 'disk0', target: 'a', bitmaps: [bitmap('null0', 'n')] }],
  looks,
  [
    'transaction',
    {
      actions: [
        { type: 'block-dirty-bitmap-clear', data: bitmap('disk0', 'a') },
        { type: 'block-dirty-bitmap-add', data: bitmap('disk0', 'new') },
        { type: 'block-dirty-bitmap-remove', data: bitmap('disk0', 'b') },
        // Not block-dirty-bitmap-enable: every QEMU dies of taking back one that failed.
        { type: 'block-dirty-bitmap-clear', data: bitmap('disk0', 'none') },
      ],
    },
  ],
  looks,
  [
    'transaction',
    {
      actions: [
        { type: 'block-dirty-bitmap-clear', data: bitmap('disk0', 'a') },
        { type: 'block-dirty-bitmap-disable', data: bitmap('disk0', 'c') },
      ],
    },
  ],
  looks,
  ['block-dirty-bitmap-remove', bitmap('disk0', 'b')],
  ['block-dirty-bitmap-remove', bitmap('disk0', 'b')],
  ['transaction', { actions: [{ type: 'block-dirty-bitmap-add' }] }],
  looks,
];

interface Node {
  readonly 'node-name': string;
  readonly 'dirty-bitmaps'?: readonly Readonly<Record<string, unknown>>[];
}

/** Answers but for what no two disks have in common: only nodes with their bitmaps. */
async function answers(qmp: QmpClient): Promise<unknown[]> {
  const all: unknown[] = [];
  for (const [command, data] of SCRIPT) {
    try {
      const answer = await qmp.execute(command as 'query-status', data as Record<string, never>);
      if (command === 'human-monitor-command') continue; // QEMU tells how long it took
      all.push(
        Array.isArray(answer)
          ? (answer as Node[])
              .filter((node) => node['dirty-bitmaps'] !== undefined)
              .map((node) => [node['node-name'], node['dirty-bitmaps']?.map(withoutStatus)])
          : answer,
      );
    } catch (error) {
      if (!(error instanceof QmpCommandError)) throw error;
      all.push(`${error.qmpClass}: ${inLaterWords(error.desc)}`);
    }
  }
  return all;
}

/** What later releases say differently. */
function inLaterWords(desc: string): string {
  return desc
    .replace(/device=(\w+) nor node_name=(\w+)/, "device='$1' nor node-name='$2'")
    .replace(/of different sizes \(.*\) and/, 'incompatible and');
}

/** 5.2 still tells the state in one word, too. */
function withoutStatus({ status: _, ...info }: Readonly<Record<string, unknown>>) {
  return info;
}

const DISKS = [
  ...['-drive', 'file=disk.qcow2,format=qcow2,if=none,id=drive0,node-name=disk0'],
  ...['-blockdev', 'driver=null-co,node-name=null0,size=1048576,read-zeroes=on'],
];

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-block-'));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

for (const release of releases) {
  peerTest(
    release,
    'the same script on its bitmaps gets the same answers from a host',
    async (peer) => {
      const image = new MemoryFile();
      createQcow2(image, { sizeBytes: 64 * 2 ** 20 });
      const path = join(directory, `${release}.qcow2`);
      writeFileSync(path, image.toBytes());
      await using real = await QemuProcess.start(peer, {
        args: ['-S', ...DISKS.map((arg) => arg.replace('disk.qcow2', path))],
      });
      const there = await answers(real.qmp);
      await real.close();
      writeFileSync(path, image.toBytes());
      const socket = join(directory, `${release}.qmp`);
      await using _ = await SimulatedHost.start(socket, [
        ...['--ram', 'pc.ram=1M', '--vcpu', 'idle'],
        ...DISKS.map((arg) => arg.replace(/^-/, '--').replace('disk.qcow2', path)),
      ]);
      const channel = await connectQmpSocket(socket);
      const client = await QmpClient.connect(channel);
      const here = await answers(client);
      client.close();
      expect(here).toEqual(there);
      expect(here.length).toBe(SCRIPT.length - 3);
    },
  );
}
