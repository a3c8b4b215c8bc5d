import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { type MigrationSettings, QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { migrate, SimulatedHost } from '../simulated-host.ts';
import { mixedTlsFolder, TLS_HOSTNAME, tlsFolder, tlsObject } from '../tls-credentials.ts';
import { WherryCommand } from '../wherry-command.ts';

// Who is refused depends on the certificates: one release is enough where time is short.
const strict = process.env['WHERRY_ALL_PEERS'] === '1' ? releases : releases.slice(-1);
const tls = { 'tls-creds': 'tls0', 'tls-hostname': TLS_HOSTNAME };

/** Starts a QEMU that has credentials. */
function startWith(peer: Peer, folder: string): Promise<QemuProcess> {
  return QemuProcess.start(peer, { args: [...tlsObject(folder, 'client')] });
}

describe.each(strict)('wherry receive --tls-creds beside what does not fit, from %s', (release) => {
  for (const [title, own, ca, atQemu, atWherry] of [
    ['a QEMU of another CA', 'other', 'good', '', 'none was shown'],
    ['an expired QEMU', 'expired', 'good', '', 'has expired'],
    ['a QEMU that does not know our CA', 'good', 'other', 'issuer|trusted', ''],
    ['a QEMU with PSK', 'psk', 'psk', 'handshake', 'no cipher in common'],
  ] as const) {
    peerTest(release, `refuses ${title}: one error, nothing kept`, async (peer) => {
      await using folder = mixedTlsFolder({ own, ca });
      await using source = await startWith(peer, folder.path);
      await source.waitForPass(5);
      const file = join(source.directory, 'kept');
      const args = ['receive', 'tcp:127.0.0.1:0', file, '--tls-creds', tlsFolder('good')];
      await using receiver = WherryCommand.start(args);
      // Without a return path a small guest has left before the source notices.
      const settings: MigrationSettings = { capabilities: ['return-path'], parameters: tls };
      await source.startMigration(await receiver.listeningUri(), settings);
      const { exitCode, stderr } = await receiver.ended;
      const info = await source.waitForMigration(['failed']);
      expect(exitCode).toBe(1);
      expect(stderr).toContain(atWherry);
      expect(`${info['error-desc']} ${source.stderr}`).toMatch(new RegExp(atQemu));
      expect(existsSync(file)).toBe(false);
      await source.waitForMarks(5);
    });
  }

  peerTest(release, 'refuses a QEMU without TLS, which goes on', async (peer) => {
    await using source = await QemuProcess.start(peer);
    await source.waitForPass(5);
    const file = join(source.directory, 'kept');
    const args = ['receive', 'tcp:127.0.0.1:0', file, '--tls-creds', tlsFolder('good')];
    await using receiver = WherryCommand.start(args);
    const capabilities = ['return-path'] as const;
    await source.startMigration(await receiver.listeningUri(), { capabilities });
    const { exitCode, stderr } = await receiver.ended;
    expect(exitCode).toBe(1);
    expect(stderr).toContain('does not speak TLS');
    await source.waitForMigration(['failed']);
    await source.waitForMarks(5);
  });

  peerTest(release, 'without it tells a QEMU with TLS, which goes on', async (peer) => {
    await using source = await startWith(peer, tlsFolder('good'));
    await source.waitForPass(5);
    await using receiver = WherryCommand.start([
      ...['receive', 'tcp:127.0.0.1:0', join(source.directory, 'kept')],
    ]);
    await source.startMigration(await receiver.listeningUri(), { parameters: tls });
    const { exitCode, stderr } = await receiver.ended;
    expect(exitCode).toBe(1);
    expect(stderr).toContain('It begins like TLS');
    await source.waitForMigration(['failed']);
    await source.waitForMarks(5);
  });
});

/** Moves a simulated guest into a real QEMU over TLS. @returns the report, and QEMU's log */
async function moveIntoQemu(
  peer: Peer,
  folders: { readonly host: string; readonly qemu: string },
  guest: readonly string[],
  args: readonly string[],
  examine: (qemu: QemuProcess) => Promise<void>,
): Promise<string> {
  const qemu = await startQemu(peer, ['-S', ...tlsObject(folders.qemu, 'server')], false);
  try {
    const path = (name: string): string => join(qemu.directory, name);
    const [, object = ''] = tlsObject(folders.host, 'client');
    const options = [...hostOptions(guest, false), '--object', object];
    await using _ = await SimulatedHost.start(path('host.qmp'), options);
    const { status, problem = '' } = await migrate(
      path('host.qmp'),
      path('second.sock'),
      'tcp:127.0.0.1:0',
      ['--tls-creds', 'tls0', ...args],
    );
    await examine(qemu);
    if (status !== 'completed') {
      const source = await QmpClient.connect(await connectQmpSocket(path('host.qmp')));
      expect(await source.execute('query-status')).toMatchObject({ running: true });
      source.close();
    }
    return `${status} ${problem}`;
  } finally {
    await qemu.close();
  }
}

describe('a simulated host’s guest moves into a real QEMU over TLS', () => {
  for (const release of releases) {
    for (const [title, set, args] of [
      ['x509', 'good', ['--tls-hostname', TLS_HOSTNAME]],
      ['x509, the name from the URI; postcopy', 'good', ['--postcopy', '--max-bandwidth', '4M']],
      ['PSK', 'psk', []],
      ['x509, multifd', 'good', ['--multifd-channels', '2']],
    ] as const) {
      if (release === '5.2' && title.includes('multifd')) continue; // since 6.0
      peerTest(release, `${title}: every page equal`, async (peer) => {
        const guest = ['--paused', '--fill', '0.5', '--seed', '11'];
        const folders = { host: tlsFolder(set), qemu: tlsFolder(set) };
        const said = await moveIntoQemu(peer, folders, guest, args, async (qemu) => {
          await qemu.qmp.execute('migrate-set-parameters', { 'tls-creds': '' });
          const multifd = { capability: 'multifd', state: false } as const;
          await qemu.qmp.execute('migrate-set-capabilities', { capabilities: [multifd] });
          await expectSamePages(await streamOf(qemu), guest);
        });
        expect(said).toBe('completed ');
      });
    }
  }
});

describe('a simulated host stays where the QEMU does not fit', () => {
  for (const release of strict) {
    for (const [title, own, ca, args, expected] of [
      ['a QEMU of another CA', 'other', 'good', [], 'a CA that is not known here'],
      ['an expired QEMU', 'expired', 'good', [], 'has expired'],
      [
        'a QEMU of another name',
        'good',
        'good',
        ['--tls-hostname', 'x.example'],
        'another host name',
      ],
      ['a QEMU that does not know our CA', 'good', 'other', [], 'CA|lost|dropped|ended|broke'],
      ['a QEMU with PSK', 'psk', 'psk', [], 'no cipher in common|closed the connection'],
    ] as const) {
      peerTest(release, `refused: ${title}; the guest goes on`, async (peer) => {
        await using folder = mixedTlsFolder({ own, ca });
        const folders = { host: tlsFolder('good'), qemu: folder.path };
        const said = await moveIntoQemu(peer, folders, [], args, async () => {});
        expect(said).toMatch(new RegExp(`^failed.*(?:${expected})`, 's'));
      });
    }
  }
});
