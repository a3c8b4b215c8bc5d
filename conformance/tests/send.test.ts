import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type MigrationCapability, QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { HugePages } from '../huge-pages.ts';
import { peerTest } from '../peer-test.ts';
import { type Peer, type Release, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { expectGoesOn, save, send } from '../sent-guest.ts';

const args = ['-device', 'virtio-net-pci,romfile='];

/** The formats that a release writes. */
function formatsOf(release: Release): readonly ('stream' | 'mapped-ram')[] {
  return release === '5.2' || release === '7.2' ? ['stream'] : ['stream', 'mapped-ram'];
}

async function waiting(
  peer: Peer,
  postcopy: boolean,
  further: readonly string[] = [],
  preempt = false,
): Promise<QemuProcess> {
  const destination = await QemuProcess.start(peer, {
    args: [...args, ...further],
    incoming: 'defer',
  });
  const capabilities: MigrationCapability[] = postcopy ? ['postcopy-ram'] : [];
  if (preempt) capabilities.push('postcopy-preempt');
  await destination.listen('unix:in.sock', { capabilities });
  return destination;
}

describe.each(releases)('wherry send to %s', (release) => {
  for (const format of formatsOf(release)) {
    for (const mode of ['precopy', 'postcopy'] as const) {
      peerTest(release, `a guest goes on out of a ${format} file, ${mode}`, async (peer) => {
        await using source = await QemuProcess.start(peer, { args });
        const file = await save(source, format);
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
  }

  for (const preempt of release === '5.2' ? [[]] : [[], ['--preempt']]) {
    peerTest(
      release,
      `${['a postcopy', ...preempt].join(' ')} whose link is cut goes on out of the file`,
      async (peer) => {
        await using source = await QemuProcess.start(peer, { args });
        const file = await save(source, 'stream');
        // While its guest waits for a page, a destination may answer to nothing but out-of-band commands.
        const second = ['-qmp', 'unix:second.sock,server=on,wait=off'];
        await using destination = await waiting(peer, true, second, preempt.length > 0);
        const path = (name: string): string => join(destination.directory, name);
        const qmp = await QmpClient.connect(await connectQmpSocket(path('second.sock')), {
          enable: ['oob'],
        });
        let sent = 0;
        const link = createServer((near) => {
          const far = connect(path('in.sock'));
          far.on('error', () => near.destroy()).pipe(near);
          near
            .on('error', () => far.destroy())
            .on('data', (bytes) => {
              sent += bytes.length;
              far.write(bytes);
              if (sent < 400_000) return;
              near.destroy();
              far.destroy();
            });
        });
        await once(link.listen(path('link.sock')), 'listening');
        const cut = await send(file, `unix:${path('link.sock')}`, '--postcopy', ...preempt);
        link.close();
        expect(cut.exitCode, cut.stderr).toBe(3);
        const uri = 'unix:again.sock';
        // A destination takes its time to notice the break.
        for (let attempt = 1; ; attempt++) {
          try {
            await qmp.execute('migrate-recover', { uri }, { oob: true });
            break;
          } catch (error) {
            if (attempt === 100) throw error;
            await sleep(50);
          }
        }
        qmp.close();
        const again = await send(file, `unix:${path('again.sock')}`, '--recover', ...preempt);
        expect({ ...again, stdout: '' }).toEqual({ exitCode: 0, stdout: '', stderr: '' });
        await destination.waitForMigration();
        await expectGoesOn(source, destination);
      },
    );
  }

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

  peerTest(release, 'a guest goes on in huge pages, postcopy', async (peer, skip) => {
    const pages = HugePages.reserve(4);
    if (!(pages instanceof HugePages)) return skip(pages.missing);
    using _ = pages;
    const machine = 'pc-q35-5.2,memory-backend=pc.ram';
    const memory = (kind: string): string[] => ['-object', `${kind},id=pc.ram,size=8M`];
    await using source = await QemuProcess.start(peer, {
      machine,
      args: memory('memory-backend-ram'),
    });
    const file = await save(source, 'stream');
    await using destination = await QemuProcess.start(peer, {
      machine,
      args: memory('memory-backend-memfd,hugetlb=on,hugetlbsize=2M,share=off'),
      incoming: 'defer',
    });
    await destination.listen('unix:in.sock', { capabilities: ['postcopy-ram'] });
    const uri = `unix:${join(destination.directory, 'in.sock')}`;
    const { exitCode, stderr } = await send(file, uri, '--postcopy', '--page-size', 'pc.ram=2M');
    expect({ exitCode, stderr }, destination.stderr).toEqual({ exitCode: 0, stderr: '' });
    await destination.waitForMigration();
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
