import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { type MigrationSettings, QemuProcess } from '../qemu.ts';
import { mixedTlsFolder, TLS_HOSTNAME, tlsFolder, tlsObject } from '../tls-credentials.ts';
import { WherryCommand } from '../wherry-command.ts';

const tls = { 'tls-creds': 'tls0', 'tls-hostname': TLS_HOSTNAME };

/** Starts a QEMU that has credentials. */
function startWith(peer: Peer, folder: string): Promise<QemuProcess> {
  return QemuProcess.start(peer, { args: [...tlsObject(folder, 'client')] });
}

describe.each(releases)('wherry receive --tls-creds from %s', (release) => {
  for (const set of ['good', 'psk'] as const) {
    peerTest(release, `a whole migration, ${set === 'psk' ? 'PSK' : 'x509'}`, async (peer) => {
      await using source = await startWith(peer, tlsFolder(set));
      await source.waitForPass(5);
      const file = join(source.directory, 'kept');
      const args = ['receive', 'tcp:127.0.0.1:0', file, '--json', '--tls-creds', tlsFolder(set)];
      await using receiver = WherryCommand.start(args);
      const settings: MigrationSettings = { capabilities: ['return-path'], parameters: tls };
      const info = await source.migrate(await receiver.listeningUri(), settings);
      expect(info.status).toBe('completed');
      const { exitCode, stdout, stderr } = await receiver.ended;
      expect({ exitCode, stderr }).toMatchObject({ exitCode: 0 });
      expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', vmdesc: true });
      expect(existsSync(file)).toBe(true);
    });
  }

  for (const [title, own, ca, atQemu, atWherry] of [
    ['a QEMU of another CA', 'other', 'good', '', 'none was shown'],
    ['an expired QEMU', 'expired', 'good', '', 'has expired'],
    ['a QEMU that does not know our CA', 'good', 'other', 'issuer|trusted', ''],
    ['a QEMU with PSK', 'psk', 'psk', 'handshake', 'during the TLS handshake'],
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
});
