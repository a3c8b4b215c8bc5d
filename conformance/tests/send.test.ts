import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { expectGoesOn, save, send } from '../sent-guest.ts';

const args = ['-device', 'virtio-net-pci,romfile='];

async function waiting(peer: Peer, postcopy: boolean): Promise<QemuProcess> {
  const destination = await QemuProcess.start(peer, { args, incoming: 'defer' });
  await destination.listen('unix:in.sock', postcopy ? { capabilities: ['postcopy-ram'] } : {});
  return destination;
}

// Streams are the matrix’s.
describe.each(['10.0', '11.1'] as const)('wherry send to %s', (release) => {
  for (const mode of ['precopy', 'postcopy'] as const) {
    peerTest(release, `a guest goes on out of a mapped-ram file, ${mode}`, async (peer) => {
      await using source = await QemuProcess.start(peer, { args });
      const file = await save(source, 'mapped-ram');
      await using destination = await waiting(peer, mode === 'postcopy');
      const uri = `unix:${join(destination.directory, 'in.sock')}`;
      const { exitCode, stdout, stderr } = await send(
        file,
        uri,
        ...(mode === 'postcopy' ? ['--postcopy'] : []),
      );
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
      expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', mode, confirmed: true });
      await destination.waitForMigration();
      await expectGoesOn(source, destination);
    });
  }
});

describe.each(releases)('wherry send to %s', (release) => {
  peerTest(release, 'pages that the guest waits for come before the others', async (peer) => {
    const rangeStart = 200 * 2 ** 20;
    const guest = { rangeStart, rangeEnd: rangeStart + 64 * 4096 };
    await using source = await QemuProcess.start(peer, { ram: '256M', guest });
    const file = await save(source, 'stream');
    await using destination = await QemuProcess.start(peer, {
      ...{ ram: '256M', guest, incoming: 'defer' },
    });
    await destination.listen('unix:in.sock', { capabilities: ['postcopy-ram'] });
    const uri = `unix:${join(destination.directory, 'in.sock')}`;
    const { exitCode, stdout } = await send(file, uri, '--postcopy');
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout).requests).toBeGreaterThan(0);
    await expectGoesOn(source, destination);
  });

  peerTest(release, 'a refusal is told, and explained out of its log', async (peer) => {
    await using source = await QemuProcess.start(peer, { args });
    const file = await save(source, 'stream');
    for (const mode of ['precopy', 'postcopy']) {
      await using other = await QemuProcess.start(peer, { incoming: 'defer' }); // without a network card
      const capabilities = mode === 'postcopy' ? (['postcopy-ram'] as const) : [];
      await other.listen('unix:in.sock', { capabilities });
      const log = join(other.directory, 'qemu.log');
      writeFileSync(log, '');
      const uri = `unix:${join(other.directory, 'in.sock')}`;
      const argv = [file, uri, ...(mode === 'postcopy' ? ['--postcopy'] : [])];
      const copying = setInterval(() => {
        writeFileSync(`${log}.new`, other.stderr);
        renameSync(`${log}.new`, log);
      }, 5);
      const { exitCode, stdout } = await send(...argv, '--log', log);
      clearInterval(copying);
      expect(exitCode).toBe(1);
      const report = JSON.parse(stdout);
      expect(report.status).toBe('failed');
      const causes = report.log.map(({ cause }: { readonly cause: string }) => cause);
      // 11.1 says in postcopy only that the devices were not loaded.
      if (mode === 'precopy' || release !== '11.1') expect(causes).toContain('UNKNOWN_SECTION');
      else expect(other.stderr).toContain('loadvm failed during postcopy');
    }
  });
});
