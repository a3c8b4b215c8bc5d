import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, type Release, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { expectGoesOn, save, send } from '../sent-guest.ts';
import { TLS_HOSTNAME, tlsFolder, tlsObject } from '../tls-credentials.ts';

const RANGE_START = 200 * 2 ** 20;
const guest = { rangeStart: RANGE_START, rangeEnd: RANGE_START + 64 * 4096 };
const common = { ram: '256M', guest };

/** Machine types that have the channel from the beginning, and from when postcopy begins. */
function machinesOf(release: Release): readonly string[] {
  return release === '7.2' ? ['pc-q35-5.2'] : ['pc-q35-5.2', 'pc-q35-10.0'];
}

/** Sends a guest whose pages are at the end of its memory into a QEMU with a channel for them. */
async function moves(peer: Peer, machine: string, isTls: boolean): Promise<void> {
  await using source = await QemuProcess.start(peer, { ...common, machine });
  const file = await save(source);
  await using destination = await QemuProcess.start(peer, {
    ...{ ...common, machine, incoming: 'defer' },
    args: isTls ? tlsObject(tlsFolder('good'), 'server') : [],
  });
  await destination.listen('unix:in.sock', {
    capabilities: ['postcopy-ram', 'postcopy-preempt'],
    ...(isTls ? { parameters: { 'tls-creds': 'tls0' } } : {}),
  });
  const { exitCode, stdout, stderr } = await send(
    ...[file, `unix:${join(destination.directory, 'in.sock')}`, '--postcopy', '--preempt'],
    ...(isTls ? ['--tls-creds', tlsFolder('good'), '--tls-hostname', TLS_HOSTNAME] : []),
  );
  expect({ exitCode, stderr }, destination.stderr).toEqual({ exitCode: 0, stderr: '' });
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ status: 'completed', mode: 'postcopy' });
  expect(report.requests).toBeGreaterThan(0);
  await destination.waitForMigration();
  await expectGoesOn(source, destination);
}

describe.each(releases.filter((release) => release !== '5.2'))(
  'wherry send --preempt to %s',
  (release) => {
    for (const machine of machinesOf(release)) {
      for (const isTls of [false, true]) {
        peerTest(release, `${machine}${isTls ? ', TLS' : ''}: the guest goes on`, (peer) =>
          moves(peer, machine, isTls),
        );
      }
    }

    peerTest(release, 'one error where it has no such channel', async (peer) => {
      const machine = machinesOf(release).at(-1)!;
      await using source = await QemuProcess.start(peer, { machine });
      const file = await save(source);
      await using destination = await QemuProcess.start(peer, { machine, incoming: 'defer' });
      await destination.listen('unix:in.sock', { capabilities: ['postcopy-ram'] });
      const uri = `unix:${join(destination.directory, 'in.sock')}`;
      const { exitCode, stdout, stderr } = await send(file, uri, '--postcopy', '--preempt');
      // 7.2 may refuse it only when its guest runs: the postcopy is paused then.
      expect(release === '7.2' ? [1, 3] : [1]).toContain(exitCode);
      expect(stderr).toContain('postcopy-preempt is off there');
      expect(JSON.parse(stdout)).toMatchObject({
        status: exitCode === 3 ? 'postcopy-paused' : 'failed',
      });
    });
  },
);
