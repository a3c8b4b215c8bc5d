import { randomFillSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect } from 'vitest';
import { HugePages } from '../huge-pages.ts';
import { listenAnywhere, PagingDestination } from '../paging-destination.ts';
import { peerTest } from '../peer-test.ts';
import { type Peer, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';

const MIB = 2 ** 20;
const RAM_BYTES = 16 * MIB;
const CAPABILITIES = ['postcopy-ram', 'postcopy-preempt'] as const;

/** A QEMU without any vCPU whose RAM holds the bytes, in 2 MiB pages where told. */
async function sourceOf(
  peer: Peer,
  bytes: Uint8Array,
  isHuge: boolean,
  args: readonly string[],
): Promise<QemuProcess> {
  const directory = mkdtempSync(join(tmpdir(), 'wherry-preempt-'));
  try {
    const file = join(directory, 'ram');
    writeFileSync(file, bytes);
    const machine = (backend: string, incoming?: string): Promise<QemuProcess> =>
      QemuProcess.start(peer, {
        machine: 'none,memory-backend=ram',
        ram: '16M',
        args: ['-object', `${backend},id=ram,size=16M,share=off`, ...args],
        ...(incoming === undefined ? {} : { incoming }),
      });
    const source = await machine(`memory-backend-file,mem-path=${file}`);
    if (!isHuge) return source;
    try {
      const stream = join(directory, 'stream');
      await source.migrate(`exec:cat > ${stream}`);
      const huge = 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M';
      const moved = await machine(huge, `exec:cat ${stream}`);
      await moved.waitForMigration();
      return moved;
    } finally {
      await source.close();
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Moves a QEMU's RAM to a simulated destination that touches pages, over a break. */
async function moveFromQemu(peer: Peer, isHuge: boolean, args: readonly string[]): Promise<void> {
  const bytes = randomFillSync(new Uint8Array(RAM_BYTES));
  bytes.fill(0, 4 * MIB, 6 * MIB);
  // Inside of a huge page QEMU looks neither at a switch to postcopy nor at its destination's answers.
  const bandwidth = isHuge ? 12_000_000 : 1_000_000;
  await using source = await sourceOf(peer, bytes, isHuge, args);
  const listener = await listenAnywhere();
  const again = await listenAnywhere();
  let destination: PagingDestination | undefined;
  try {
    const blocks = [
      { name: 'ram', lengthBytes: RAM_BYTES, hostPageBytes: isHuge ? 2 * MIB : 4096 },
    ];
    const arriving = PagingDestination.accept(listener, blocks, CAPABILITIES);
    await source.startMigration(listener.uri, {
      capabilities: CAPABILITIES,
      parameters: { 'max-bandwidth': bandwidth, 'max-postcopy-bandwidth': bandwidth },
    });
    destination = await arriving;
    const running = destination.run();
    await source.waitForMigration(['active']);
    await source.qmp.execute('migrate-start-postcopy');
    await source.waitForMigration(['postcopy-active']);
    const { migration } = destination;
    while (migration.counters.preemptHostPages < 2) await sleep(5);
    await source.qmp.execute('migrate-pause');
    expect(await running).toBe('postcopy-paused');
    await source.waitForMigration(['postcopy-paused']);
    const recovering = destination.recover(again);
    await source.qmp.execute('migrate', { uri: again.uri, resume: true });
    await source.waitForMigration(['postcopy-active', 'completed']);
    const unlimited = { 'max-postcopy-bandwidth': 0 };
    await source.qmp.execute('migrate-set-parameters', unlimited);
    expect(await recovering, String(migration.error)).toBe('completed');
    await source.waitForMigration();
    const { counters } = migration;
    expect(counters.preemptHostPages).toBeLessThanOrEqual(counters.requests);
    const [ram] = destination.ram.blocks;
    expect(Buffer.compare(ram!.read(0, RAM_BYTES), bytes)).toBe(0);
  } finally {
    destination?.close();
    destination?.migration.abort(new Error('the test is over'));
    await Promise.all([listener.close(), again.close()]);
  }
}

describe('a real QEMU sends requested pages over a channel of their own', () => {
  for (const release of releases.filter((release) => release !== '5.2')) {
    peerTest(release, 'from postcopy on, and over a break', (peer) =>
      // 7.2 knows the older way alone.
      moveFromQemu(peer, false, []),
    );
    if (release !== '7.2') {
      peerTest(
        release,
        'from the beginning, as for machine types until 7.2, and over a break',
        (peer) => moveFromQemu(peer, false, ['-global', 'migration.x-preempt-pre-7-2=on']),
      );
    }
    peerTest(release, '2 MiB pages, and over a break', async (peer, skip) => {
      const pages = HugePages.reserve(8);
      if (!(pages instanceof HugePages)) return skip(pages.missing);
      using _ = pages;
      await moveFromQemu(peer, true, []);
    });
  }
});
