import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';
import { ramOf } from '../ram-of.ts';

const LINE_BYTES = 256;
// The pages of these are elsewhere; the guests of the other targets write nothing.
const elsewhere = ['multifd', 'ignore-shared', 'background-snapshot', 'machine-2.2', 'recovery'];
const targets = ['s390x', 'ppc64', 'aarch64', 'arm', 'riscv64'];

describe('the RAM in the stream', () => {
  test.each(
    listFixtures().filter(({ case: name }) => !elsewhere.includes(name) && !targets.includes(name)),
  )('$release/$case is what the guest wrote last', ({ release, case: name }) => {
    const { stream, meta } = loadFixture(release, name);
    const blocks = ramOf(stream, name === 'no-footers');
    const ram = blocks.get(name === 'zoo-microvm' ? 'microvm.ram' : 'pc.ram')!;
    const { lastPass = -1 } = meta;
    const { rangeStart = 0x10_0000, rangeEnd = 0x20_0000 } = meta.guest as Record<string, number>;
    const view = new DataView(ram.buffer);
    const passes = new Set<number>();
    let wrongWords = 0;
    for (let line = rangeStart; line < rangeEnd; line += LINE_BYTES) {
      passes.add(view.getUint32(line, true));
      for (let word = line + 4; word < line + LINE_BYTES; word += 4) {
        if (view.getUint32(word, true) !== line) wrongWords++;
      }
    }
    expect(wrongWords).toBe(0);
    for (const pass of passes) expect([lastPass, lastPass + 1]).toContain(pass);
  });
});
