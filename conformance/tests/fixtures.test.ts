import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';
import { peerTest } from '../peer-test.ts';
import { parseRelease, releases } from '../peers/peers.ts';
import { startMachine } from '../record-case.ts';
import { recordCases } from '../record-cases.ts';

test('every case is recorded from every release that can', () => {
  const expected = releases.flatMap((release) =>
    recordCases
      .filter((known) => known.releases.includes(release))
      .map(({ name }) => `${release}/${name}`),
  );
  const recorded = listFixtures().map((fixture) => `${fixture.release}/${fixture.case}`);
  expect(recorded.sort()).toEqual(expected.sort());
});

describe.each(listFixtures())('$release/$case', ({ release, case: name }) => {
  const fixture = loadFixture(release, name);

  test('the bytes are those that were recorded', () => {
    const { stream, returnPath = new Uint8Array(), meta } = fixture;
    const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
    expect(stream.length).toBe(meta.stream.lengthBytes);
    expect(digest(stream)).toBe(meta.stream.sha256);
    expect(returnPath.length).toBe(meta.returnPath?.lengthBytes ?? 0);
    if (meta.returnPath !== undefined) expect(digest(returnPath)).toBe(meta.returnPath.sha256);
  });

  const recordCase = recordCases.find((known) => known.name === name)!;
  const { load, loadUri } = recordCase;
  if (load !== undefined) {
    peerTest(parseRelease(release), 'loads it, and the guest goes on', async (peer) => {
      await using qemu = await startMachine(peer, recordCase, 'defer');
      writeFileSync(join(qemu.directory, 'stream.qevm'), fixture.stream);
      await qemu.listen(loadUri, load);
      await qemu.waitForMigration();
      const first = fixture.meta.lastPass! + 1;
      const marks = await qemu.waitForPass(first + 4);
      expect(marks).toEqual(marks.map((_, i) => ({ pass: first + i, wrongWords: 0 })));
    });
  }
});

test('an unknown fixture is an error that names the known ones', () => {
  expect(() => loadFixture('11.1', 'nothing')).toThrow(/no fixture 11\.1\/nothing.*11\.1\/precopy/);
});
