import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { loadFile } from '../loaded-file.ts';
import { peerTest } from '../peer-test.ts';
import type { Release } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { ramOf } from '../ram-of.ts';
import { saveGuest } from '../saved-guest.ts';
import { SimulatedHost } from '../simulated-host.ts';

const RELEASES: readonly Release[] = ['10.0', '11.1'];
/** No page is zero: QEMU leaves zero pages of its ROM blocks as its own start has filled them. */
const GUEST = ['--paused', '--fill', '1', '--seed', '5'];

for (const release of RELEASES) {
  describe(`a mapped-ram file and QEMU ${release}`, () => {
    for (const [offset, capabilities] of [
      [0, ['mapped-ram']],
      [0x1000, ['mapped-ram', 'multifd']],
    ] as const) {
      peerTest(
        release,
        `a host writes it from ${offset} on with ${capabilities.join(' and ')}, QEMU loads it`,
        async (peer) => {
          await using qemu = await startQemu(peer, ['-S'], false);
          const path = join(qemu.directory, 'host.qmp');
          const uri = `file:${join(qemu.directory, 'guest.mapped')},offset=${offset}`;
          await using _ = await SimulatedHost.start(path, hostOptions(GUEST, false));
          await saveGuest(path, uri, capabilities);
          await qemu.listen(uri, { capabilities });
          await qemu.waitForMigration();
          await qemu.qmp.execute('migrate-set-capabilities', {
            capabilities: capabilities.map((capability) => ({ capability, state: false })),
          });
          await expectSamePages(await streamOf(qemu), GUEST);
        },
      );
    }

    for (const capabilities of [['mapped-ram'], ['mapped-ram', 'multifd']] as const) {
      peerTest(release, `QEMU writes it with ${capabilities.join(' and ')}`, async (peer) => {
        await using qemu = await QemuProcess.start(peer, {});
        await qemu.waitForPass(2);
        await qemu.migrate('file:guest.mapped', { capabilities });
        const file = readFileSync(join(qemu.directory, 'guest.mapped'));
        const { ram, destination } = await loadFile(file, ['mapped-ram']);
        expect(destination.error).toBeUndefined();
        const expected = ramOf(file);
        expect(expected.size).toBe(ram.blocks.length);
        for (const block of ram.blocks) {
          const found = block.read(0, block.lengthBytes);
          expect(Buffer.compare(found, expected.get(block.name)!)).toBe(0);
        }
      });
    }
  });
}
