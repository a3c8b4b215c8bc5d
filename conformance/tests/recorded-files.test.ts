import { describe, expect, test } from 'vitest';
import { loadFixture } from '../fixtures.ts';
import { loadFile } from '../loaded-file.ts';
import { ramOf } from '../ram-of.ts';

describe('a file of a real QEMU is loaded, every page equal', () => {
  test.each([
    ['10.0', 'mapped-ram', 0],
    ['11.1', 'mapped-ram', 0],
    ['10.0', 'mapped-ram-offset', 4096],
    ['11.1', 'mapped-ram-offset', 4096],
    ['7.2', 'background-snapshot', 0],
    ['10.0', 'background-snapshot', 0],
    ['11.1', 'background-snapshot', 0],
  ])('%s/%s', async (release, name, offset) => {
    const { stream } = loadFixture(release, name);
    const capabilities = name.startsWith('mapped-ram') ? (['mapped-ram'] as const) : [];
    const { ram, destination } = await loadFile(stream, capabilities, offset);
    expect(destination.error).toBeUndefined();
    expect(destination.counters.normalPages).toBeGreaterThan(60);
    const expected = ramOf(stream);
    expect(expected.size).toBe(ram.blocks.length);
    for (const block of ram.blocks) {
      const found = block.read(0, block.lengthBytes);
      expect(Buffer.compare(found, expected.get(block.name)!)).toBe(0);
    }
  });

  test.each(['10.0', '11.1'])('%s/mapped-ram, behind the guest', async (release) => {
    const { stream } = loadFixture(release, 'mapped-ram');
    const { ram, destination } = await loadFile(stream, ['mapped-ram', 'postcopy-ram']);
    expect(destination.error).toBeUndefined();
    expect(destination.counters.normalPages).toBeGreaterThan(60);
    const expected = ramOf(stream);
    for (const block of ram.blocks) {
      expect(block.receivedCount()).toBe(block.pageCount);
      const found = block.read(0, block.lengthBytes);
      expect(Buffer.compare(found, expected.get(block.name)!)).toBe(0);
    }
  });
});
