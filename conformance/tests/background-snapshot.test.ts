import { join } from 'node:path';
import { expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { saveGuest } from '../saved-guest.ts';
import { SimulatedHost } from '../simulated-host.ts';

const GUEST = ['--fill', '1', '--seed', '8'];

for (const release of releases) {
  peerTest(release, 'loads a snapshot that a simulated host takes of itself', async (peer) => {
    await using qemu = await startQemu(peer, ['-S'], false);
    const path = join(qemu.directory, 'host.qmp');
    const file = join(qemu.directory, 'guest.snapshot');
    await using _ = await SimulatedHost.start(path, hostOptions(GUEST, false));
    await saveGuest(path, `file:${file}`, ['background-snapshot']);
    await qemu.listen(`exec:cat ${file}`);
    await qemu.waitForMigration();
    expect((await qemu.qmp.execute('query-status')).running).toBe(false);
    await expectSamePages(await streamOf(qemu), GUEST);
  });
}
