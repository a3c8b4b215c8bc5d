import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { loadFixture } from '../fixtures.ts';
import { peerTest } from '../peer-test.ts';
import { type Release, releases } from '../peers/peers.ts';
import { startMachine } from '../record-case.ts';
import { recordCases } from '../record-cases.ts';

/** What ends a load; all others succeed. */
function obstacle(name: string, from: Release, to: Release): string | undefined {
  const isNew = (release: Release): boolean => Number(release) >= 10;
  if (name === 'zoo-microvm') {
    // It has no versions: what a release adds, the one before does not know.
    if (from === '5.2') return 'virtio-mmio@00000000feb00e00/virtio-net';
    if (from === '7.2' && to === '5.2') return "'ioapic' 1";
    if (isNew(from) && !isNew(to)) return 'MIG_CMD 0xb unknown';
  }
  // 10.0.13 shows legacy drivers queues of 1024 entries, which 11.1 refuses to take over.
  if (from === '10.0' && to === '11.1') return 'VQ 0 vring.num 1024 exceeds allocated max 256';
  return undefined;
}

const pairs = ['zoo-q35', 'zoo-pc', 'zoo-microvm'].flatMap((name) =>
  releases.flatMap((from) =>
    releases.filter((to) => to !== from).map((to) => ({ name, from, to })),
  ),
);

describe.each(pairs)('$name from $from', ({ name, from, to }) => {
  const expected = obstacle(name, from, to);
  const title = expected === undefined ? 'goes on' : `is refused: ${expected}`;
  peerTest(to, title, async (peer) => {
    const { stream, meta } = loadFixture(from, name);
    const recordCase = recordCases.find((known) => known.name === name)!;
    await using qemu = await startMachine(peer, recordCase, 'defer');
    writeFileSync(join(qemu.directory, 'stream.qevm'), stream);
    const load = async (): Promise<void> => {
      await qemu.listen(recordCase.loadUri, recordCase.load);
      await qemu.waitForMigration();
    };
    if (expected !== undefined) {
      await expect(load()).rejects.toThrow(expected);
      return;
    }
    await load();
    const first = meta.lastPass! + 1;
    const marks = await qemu.waitForPass(first + 1);
    expect(marks).toEqual(marks.map((_, i) => ({ pass: first + i, wrongWords: 0 })));
  });
});
