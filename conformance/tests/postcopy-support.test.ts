import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QmpClient } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import type { Peer } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { SimulatedHost } from '../simulated-host.ts';

const SHM = '/dev/shm';

/** Turns postcopy on. @returns what is said against it */
function refusal(client: Pick<QmpClient, 'execute'>): Promise<string> {
  const capabilities = [{ capability: 'postcopy-ram', state: true }] as const;
  return client.execute('migrate-set-capabilities', { capabilities }).then(
    () => 'none',
    (error: { desc: string }) => error.desc,
  );
}

/** Asks a QEMU, then a simulated host, that waits for a guest in a shared file of a folder. */
async function ask(peer: Peer, folder: string): Promise<[qemu: string, host: string]> {
  const directory = mkdtempSync(join(folder, 'wherry-support-'));
  try {
    const memory = `size=8M,share=on,mem-path=${join(directory, 'ram')}`;
    const args = [
      ...['-object', `memory-backend-file,id=pc.ram,${memory}`],
      ...['-machine', 'memory-backend=pc.ram'],
    ];
    await using qemu = await QemuProcess.start(peer, { args, incoming: 'defer' });
    const socket = join(directory, 'host.qmp');
    const ram = `pc.ram=${memory.replace('size=', '')}`;
    await using _ = await SimulatedHost.start(socket, ['--ram', ram, '--incoming', 'defer']);
    const client = await QmpClient.connect(await connectQmpSocket(socket));
    const answers: [string, string] = [await refusal(qemu.qmp), await refusal(client)];
    client.close();
    return answers;
  } finally {
    rmSync(directory, { recursive: true });
  }
}

// Until 7.2 QEMU looks at the page size of such a file alone.
describe.each(['10.0', '11.1'] as const)('postcopy into memory in a shared file, %s', (release) => {
  peerTest(
    release,
    'is refused by a simulated host where QEMU does, which names no block',
    async (peer) => {
      const [qemu, host] = await ask(peer, tmpdir());
      expect(host.replace(' (RAM block pc.ram)', '')).toBe(qemu);
    },
  );

  peerTest(release, 'is taken by both on tmpfs', async (peer, skip) => {
    if (!existsSync(SHM)) skip(`no ${SHM}`);
    expect(await ask(peer, SHM)).toEqual(['none', 'none']);
  });
});
