import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { loadFile } from '../loaded-file.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { ramOf } from '../ram-of.ts';
import { saveGuest } from '../saved-guest.ts';
import { SimulatedHost } from '../simulated-host.ts';

const GUEST = ['--paused', '--fill', '1', '--seed', '5'];
const IGNORE = ['x-ignore-shared'] as const;

describe('memory in a file that both sides have', () => {
  for (const release of releases) {
    peerTest(release, 'goes from a simulated host into QEMU', async (peer) => {
      await using qemu = await startQemu(peer, ['-S'], false, 'shared.ram');
      const path = (name: string): string => join(qemu.directory, name);
      const own = hostOptions(GUEST, false).map((option) =>
        option === 'pc.ram=16M' ? `${option},share=on,mem-path=${path('shared.ram')}` : option,
      );
      await using _ = await SimulatedHost.start(path('host.qmp'), own);
      await saveGuest(path('host.qmp'), `file:${path('guest.stream')}`, IGNORE);
      expect(readFileSync(path('guest.stream')).length).toBeLessThan(10 * 2 ** 20);
      await qemu.listen(`exec:cat guest.stream`, { capabilities: IGNORE });
      await qemu.waitForMigration();
      await qemu.qmp.execute('migrate-set-capabilities', {
        capabilities: [{ capability: 'x-ignore-shared', state: false }],
      });
      await expectSamePages(await streamOf(qemu), GUEST);
    });

    peerTest(release, 'goes from QEMU into a simulated host’s guest', async (peer) => {
      const backend = 'memory-backend-file,id=m,size=8M,share=on,mem-path=shared.ram';
      await using qemu = await QemuProcess.start(peer, {
        args: ['-object', backend, '-machine', 'memory-backend=m'],
      });
      await qemu.waitForPass(2);
      await qemu.migrate('exec:cat > guest.stream', { capabilities: IGNORE });
      const path = (name: string): string => join(qemu.directory, name);
      const stream = readFileSync(path('guest.stream'));
      const files = new Map([['m', path('shared.ram')]]);
      const { ram, destination } = await loadFile(stream, IGNORE, 0, files);
      expect(destination.error).toBeUndefined();
      const expected = new Map([...ramOf(stream), ['m', readFileSync(path('shared.ram'))]]);
      expect(expected.size).toBe(ram.blocks.length);
      expect(ram.block('m')!.zeroScan()).toBeLessThan(ram.block('m')!.pageCount);
      for (const block of ram.blocks) {
        const found = block.read(0, block.lengthBytes);
        expect(Buffer.compare(found, expected.get(block.name)!)).toBe(0);
      }
    });
  }
});
