import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { type MigrationSettings, QemuProcess } from '../qemu.ts';
import { expectGoesOn, save, send } from '../sent-guest.ts';
import { mixedTlsFolder, TLS_HOSTNAME, tlsFolder, tlsObject } from '../tls-credentials.ts';

// Who is refused depends on the certificates: one release is enough where time is short.
const strict = process.env['WHERRY_ALL_PEERS'] === '1' ? releases : releases.slice(-1);
const NAMED = ['--tls-hostname', TLS_HOSTNAME];

/** Starts a QEMU that waits with credentials, or without any. */
async function waiting(
  peer: Peer,
  folder: string | undefined,
  settings: MigrationSettings = {},
): Promise<readonly [QemuProcess, string]> {
  const args = folder === undefined ? [] : tlsObject(folder, 'server');
  const qemu = await QemuProcess.start(peer, { args, incoming: 'defer' });
  const tls = folder === undefined ? {} : { 'tls-creds': 'tls0' };
  const parameters = { ...settings.parameters, ...tls };
  await qemu.listen('unix:in.sock', { ...settings, parameters });
  return [qemu, `unix:${join(qemu.directory, 'in.sock')}`];
}

describe.each(releases)('wherry send --tls-creds to %s', (release) => {
  for (const [title, set, argv] of [
    ['x509, precopy', 'good', NAMED],
    ['x509, postcopy', 'good', [...NAMED, '--postcopy']],
    ['PSK, precopy', 'psk', []],
    ['PSK, postcopy', 'psk', ['--postcopy']],
  ] as const) {
    peerTest(release, `${title}: the guest goes on`, async (peer) => {
      await using source = await QemuProcess.start(peer);
      const file = await save(source);
      const isPostcopy = title.endsWith('postcopy');
      const settings = isPostcopy ? { capabilities: ['postcopy-ram'] as const } : {};
      const [destination, uri] = await waiting(peer, tlsFolder(set), settings);
      await using _ = destination;
      const ended = await send(file, uri, '--tls-creds', tlsFolder(set), ...argv);
      expect({ ...ended, stdout: '' }).toEqual({ exitCode: 0, stdout: '', stderr: '' });
      await destination.waitForMigration();
      await expectGoesOn(source, destination);
    });
  }
});

describe.each(strict)('wherry send beside a destination that does not fit, %s', (release) => {
  for (const [title, own, ca, argv, expected] of [
    ['of another CA', 'other', 'good', NAMED, 'a CA that is not known here'],
    ['that has expired', 'expired', 'good', NAMED, 'has expired'],
    ['of another name', 'good', 'good', ['--tls-hostname', 'x.example'], 'another host name'],
    ['that does not know our CA', 'good', 'other', NAMED, 'wants TLS or another certificate|CA'],
    ['with PSK', 'psk', 'psk', NAMED, 'no cipher in common|closed the connection'],
    ['without TLS', undefined, 'good', NAMED, 'does not speak TLS|closed the connection'],
  ] as const) {
    peerTest(release, `refuses one ${title}: one error`, async (peer) => {
      await using source = await QemuProcess.start(peer);
      const file = await save(source);
      await using folder = mixedTlsFolder({ own: own ?? 'good', ca });
      const [destination, uri] = await waiting(peer, own && folder.path);
      await using _ = destination;
      const ended = await send(file, uri, '--tls-creds', tlsFolder('good'), ...argv);
      expect(ended.exitCode).toBe(1);
      expect(ended.stderr).toMatch(new RegExp(`^wherry: .*(?:${expected})`, 's'));
      expect(JSON.parse(ended.stdout)).toMatchObject({ status: 'failed' });
    });
  }

  peerTest(release, 'refuses to go on without TLS where it is wanted', async (peer) => {
    await using source = await QemuProcess.start(peer);
    const file = await save(source);
    const [destination, uri] = await waiting(peer, tlsFolder('good'));
    await using _ = destination;
    const { exitCode, stderr } = await send(file, uri);
    expect({ exitCode, stderr }).toEqual({ exitCode: 1, stderr: expect.stringContaining('TLS') });
  });
});
