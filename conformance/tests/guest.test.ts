import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { bootSector } from '../guest/boot-sector.ts';
import { firmware, firmwareLengthBytes } from '../guest/firmware.ts';
import { type Mark, parseMarks } from '../guest/marks.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { marksAcross, QemuProcess } from '../qemu.ts';

/** Expects marks of consecutive passes from `first` on, and not one wrong word in the guest. */
function expectPasses(marks: readonly Mark[], first: number): void {
  expect(marks).toEqual(marks.map((_, i) => ({ pass: first + i, wrongWords: 0 })));
}

describe('the images', () => {
  test('the boot sector is one sector with the boot signature', () => {
    const sector = bootSector();
    expect(sector.length).toBe(512);
    expect([...sector.subarray(510)]).toEqual([0x55, 0xaa]);
  });

  test('the firmware holds the boot sector and jumps to its start at reset', () => {
    const sector = bootSector();
    const image = firmware(sector);
    expect(image.length).toBe(firmwareLengthBytes);
    expect(image.subarray(0x8000, 0x8200)).toEqual(sector);
    expect([...image.subarray(0xfff0, 0xfff5)]).toEqual([0xea, 0, 0, 0, 0xf0]);
  });

  test('a range that is no whole pages, or a rate that the timer cannot do, is refused', () => {
    expect(() => bootSector({ rangeStart: 0x10_0800 })).toThrow(RangeError);
    expect(() => bootSector({ rangeStart: 0x20_0000 })).toThrow(RangeError);
    expect(() => bootSector({ passesPerSecond: 18 })).toThrow(RangeError);
  });

  test('marks are read line by line, and anything else is an error', () => {
    expect(parseMarks('0000000a\n0000000b!00000002\n0000')).toEqual([
      { pass: 10, wrongWords: 0 },
      { pass: 11, wrongWords: 2 },
    ]);
    expect(() => parseMarks('0000000a\nhello\n')).toThrow('no mark: "hello"');
  });
});

describe.each(releases)('the guest on %s', (release) => {
  peerTest(release, 'counts its passes', async (peer) => {
    await using qemu = await QemuProcess.start(peer);
    expectPasses(await qemu.waitForPass(10), 1);
  });

  for (const machine of ['pc-q35-5.2', 'pc']) {
    peerTest(release, `boots from a disk by SeaBIOS on ${machine}`, async (peer) => {
      await using qemu = await QemuProcess.start(peer, { machine, firmware: 'seabios' });
      expectPasses(await qemu.waitForPass(5), 1);
    });
  }

  peerTest(release, 'goes on from a file', async (peer) => {
    await using source = await QemuProcess.start(peer);
    await source.waitForPass(5);
    await source.migrate('exec:cat >stream.qevm');
    const file = join(source.directory, 'stream.qevm');
    await using destination = await QemuProcess.start(peer, { incoming: `exec:cat '${file}'` });
    await destination.waitForMarks(20);
    expectPasses(marksAcross(source, destination), 1);
  });

  peerTest(release, 'notices one word that a stream brings wrong', async (peer) => {
    await using source = await QemuProcess.start(peer);
    await source.waitForPass(5);
    await source.migrate('exec:cat >stream.qevm');
    const file = join(source.directory, 'stream.qevm');
    const stream = readFileSync(file);
    const line = Buffer.from([0x00, 0x38, 0x12, 0x00]); // what each word of that line holds
    stream[stream.lastIndexOf(line)]! ^= 1;
    writeFileSync(file, stream);
    await using destination = await QemuProcess.start(peer, { incoming: `exec:cat '${file}'` });
    const marks = await destination.waitForMarks(3);
    // The first may be of a pass that had checked that line already at the source.
    expect(marks.slice(1).map(({ wrongWords }) => wrongWords)).toEqual([1, 1]);
  });

  // Several rounds and a small range: where a write can miss the dirty log, the guest finds it.
  peerTest(release, 'goes on after a live migration of several rounds', async (peer) => {
    const options = { guest: { rangeEnd: 0x12_0000, passesPerSecond: 200 } };
    await using source = await QemuProcess.start(peer, options);
    await using destination = await QemuProcess.start(peer, { ...options, incoming: 'defer' });
    const port = await destination.listenTcp();
    await source.waitForPass(20);
    await source.startMigration(`tcp:127.0.0.1:${port}`, {
      parameters: { 'max-bandwidth': 400_000, 'downtime-limit': 1 },
    });
    await source.waitForMigrationInfo(
      ({ ram }) => (ram?.['dirty-sync-count'] ?? 0) >= 5,
      'start a fifth round',
    );
    await source.configureMigration({
      parameters: { 'max-bandwidth': 40_000_000, 'downtime-limit': 2000 },
    });
    await destination.waitForMigration();
    await destination.waitForMarks(20);
    expectPasses(marksAcross(source, destination), 1);
  });
});
