import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrationParameters } from '@wherry/qmp';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { receiveMultifd, sendMultifd } from '../multifd-ends.ts';
import { peerTest } from '../peer-test.ts';
import { type Release, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { ramOf } from '../ram-of.ts';
import { migrate, SimulatedHost } from '../simulated-host.ts';

interface Cell {
  readonly channels: number;
  readonly compression: 'none' | 'zlib' | 'zstd';
  /** The oldest that all releases know, unless told: it waits for the channels at each section. */
  readonly machine?: string;
  readonly detection?: NonNullable<MigrationParameters['zero-page-detection']>;
}

/** What each release can do. */
function cellsOf(release: Release): Cell[] {
  const isNew = release === '10.0' || release === '11.1';
  const newest = { machine: 'pc-q35-10.0' };
  return [
    { channels: 8, compression: 'none' },
    { channels: 2, compression: 'zlib' },
    ...(release === '5.2' ? [] : [{ channels: 2, compression: 'zstd' } as const]),
    ...(isNew
      ? ([
          { channels: 2, compression: 'none', ...newest },
          { channels: 2, compression: 'none', ...newest, detection: 'legacy' },
          { channels: 8, compression: 'zstd', ...newest },
        ] as const)
      : []),
  ];
}

const title = ({ channels, compression, machine = 'pc-q35-5.2', detection }: Cell): string =>
  `${channels} channels, ${compression}, ${machine}${detection === undefined ? '' : `, ${detection}`}`;

const parametersOf = ({ channels, compression, detection }: Cell): MigrationParameters => ({
  'multifd-channels': channels,
  'multifd-compression': compression,
  ...(detection === undefined ? {} : { 'zero-page-detection': detection }),
});

describe('multifd from a simulated host into a real QEMU', () => {
  for (const release of releases) {
    // The simulated devices are those of this machine type.
    for (const cell of cellsOf(release).filter(({ machine }) => machine === undefined)) {
      peerTest(release, `${title(cell)}, every page equal`, async (peer) => {
        await using qemu = await startQemu(peer, ['-S'], false);
        const path = join(qemu.directory, 'host.qmp');
        const guest = ['--paused', '--fill', '0.7', '--seed', '5'];
        await using _ = await SimulatedHost.start(path, hostOptions(guest, false));
        const report = await migrate(path, join(qemu.directory, 'second.sock'), 'tcp:127.0.0.1:0', [
          ...['--max-bandwidth', '0', '--multifd-channels', `${cell.channels}`],
          ...['--multifd-compression', cell.compression],
        ]);
        expect(report).toMatchObject({ status: 'completed' });
        expect(report.source.ram['multifd-bytes']).toBeGreaterThan(4000 * 1344);
        await qemu.qmp.execute('migrate-set-capabilities', {
          capabilities: [{ capability: 'multifd', state: false }],
        });
        await expectSamePages(await streamOf(qemu), guest);
      });
    }
  }
});

describe('multifd of a newer machine type into a real QEMU', () => {
  for (const release of releases) {
    for (const cell of cellsOf(release).filter(({ machine }) => machine !== undefined)) {
      peerTest(release, `${title(cell)}, every page equal`, async (peer) => {
        const { channels, compression, machine = '', detection = 'multifd' } = cell;
        await using first = await QemuProcess.start(peer, { machine, ram: '16M' });
        await first.waitForPass(2);
        await first.migrate('exec:cat > plain.stream');
        const like = readFileSync(join(first.directory, 'plain.stream'));

        await using qemu = await QemuProcess.start(peer, {
          ...{ machine, ram: '16M', incoming: 'defer', args: ['-S'] },
        });
        const port = await qemu.listenTcp({
          capabilities: ['multifd'],
          parameters: parametersOf(cell),
        });
        const uri = `tcp:127.0.0.1:${port}`;
        const source = await sendMultifd({ like, channels, compression }, uri, detection);
        expect([source.status, source.error]).toEqual(['completed', undefined]);
        expect(source.info.ram?.duplicate).toBeGreaterThan(1000);
        await qemu.waitForMigration();
        await qemu.qmp.execute('migrate-set-capabilities', {
          capabilities: [{ capability: 'multifd', state: false }],
        });
        const expected = ramOf(like);
        for (const [name, bytes] of ramOf(await streamOf(qemu))) {
          expect([name, Buffer.compare(bytes, expected.get(name)!)]).toEqual([name, 0]);
        }
      });
    }
  }
});

describe('multifd from a real QEMU', () => {
  for (const release of releases) {
    for (const cell of cellsOf(release)) {
      peerTest(release, `${title(cell)}, every page equal`, async (peer) => {
        const machine = cell.machine ?? 'pc-q35-5.2';
        await using first = await QemuProcess.start(peer, { machine, ram: '16M' });
        await first.waitForPass(2);
        await first.migrate('exec:cat > plain.stream');
        const like = readFileSync(join(first.directory, 'plain.stream'));

        await using qemu = await QemuProcess.start(peer, {
          ...{ machine, ram: '16M', incoming: 'defer', args: ['-S'] },
        });
        await qemu.listen(`exec:cat ${join(first.directory, 'plain.stream')}`);
        await qemu.waitForMigration();
        const { channels, compression } = cell;
        const { ram, destination } = await receiveMultifd({ like, channels, compression }, (uri) =>
          qemu.startMigration(uri, {
            capabilities: ['multifd', 'return-path'],
            parameters: parametersOf(cell),
          }),
        );
        expect(destination.error).toBeUndefined();
        const { ram: sent } = await qemu.waitForMigration();
        expect(sent?.['multifd-bytes']).toBeGreaterThan(1344);
        expect(destination.counters.normalPages).toBeGreaterThanOrEqual(Number(sent?.normal));
        const expected = ramOf(like);
        expect(expected.size).toBe(ram.blocks.length);
        for (const block of ram.blocks) {
          const found = block.read(0, block.lengthBytes);
          expect(Buffer.compare(found, expected.get(block.name)!)).toBe(0);
        }
      });
    }
  }
});
