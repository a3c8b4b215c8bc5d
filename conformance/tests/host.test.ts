import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { expectSamePages, hostOptions, startQemu, streamOf } from '../host-twin.ts';
import { HugePages } from '../huge-pages.ts';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { type MigrateReport, migrate, SimulatedHost } from '../simulated-host.ts';

interface Moved extends AsyncDisposable {
  readonly report: MigrateReport;
  readonly running: boolean;
  stream(): Promise<Uint8Array>;
}

/** Moves a simulated guest into a real QEMU, then has QEMU write its own stream. */
async function moveIntoQemu(
  peer: Peer,
  hostArgs: readonly string[],
  migrateArgs: readonly string[],
  isHuge = false,
): Promise<Moved> {
  // RUN starts also a guest that was paused at the source, unless QEMU was told by -S.
  const qemu = await startQemu(peer, hostArgs.includes('--paused') ? ['-S'] : [], isHuge);
  const path = (name: string): string => join(qemu.directory, name);
  await using _ = await SimulatedHost.start(path('host.qmp'), hostOptions(hostArgs, isHuge));
  const report = await migrate(
    path('host.qmp'),
    path('second.sock'),
    'tcp:127.0.0.1:0',
    migrateArgs,
  );
  const { running } = await qemu.qmp.execute('query-status');
  return {
    report,
    running,
    stream: () => streamOf(qemu),
    [Symbol.asyncDispose]: () => qemu.close(),
  };
}

describe('a simulated host’s guest moves into a real QEMU', () => {
  for (const release of releases) {
    peerTest(release, 'precopy, every page equal', async (peer) => {
      const guest = ['--paused', '--fill', '0.7', '--seed', '5'];
      await using moved = await moveIntoQemu(peer, guest, ['--max-bandwidth', '0']);
      expect(moved.report).toMatchObject({ status: 'completed' });
      expect(moved.report.source.ram['normal']).toBeGreaterThan(4000);
      expect(moved.running).toBe(false);
      await expectSamePages(await moved.stream(), guest);
    });

    peerTest(release, 'postcopy, every page equal', async (peer) => {
      const guest = ['--paused', '--fill', '0.7', '--seed', '6'];
      await using moved = await moveIntoQemu(peer, guest, ['--postcopy', '--max-bandwidth', '2M']);
      expect(moved.report).toMatchObject({ status: 'completed' });
      expect(moved.report.source.ram['postcopy-bytes']).toBeGreaterThan(1e6);
      await expectSamePages(await moved.stream(), guest);
    });

    peerTest(release, 'postcopy of 2 MiB pages, every page equal', async (peer, skip) => {
      const pages = HugePages.reserve(4);
      if (!(pages instanceof HugePages)) return skip(pages.missing);
      using _ = pages;
      const guest = ['--paused', '--fill', '0.7', '--seed', '7'];
      await using moved = await moveIntoQemu(
        peer,
        guest,
        ['--postcopy', '--max-bandwidth', '2M'],
        true,
      );
      expect(moved.report).toMatchObject({ status: 'completed' });
      await expectSamePages(await moved.stream(), guest);
    });

    peerTest(release, 'postcopy of a running guest, pages on demand', async (peer) => {
      await using moved = await moveIntoQemu(peer, [], ['--postcopy', '--max-bandwidth', '2M']);
      expect(moved.report).toMatchObject({ status: 'completed' });
      expect(moved.report.source.ram['postcopy-requests']).toBeGreaterThan(0);
      expect(moved.running).toBe(true);
    });
  }
});
