import { describe, expect, test } from 'vitest';
import { memoryMap } from './memory-map.ts';

const GIB = 2 ** 30;

/** The segments as address ranges. */
function ranges(machineType: string, ram: string, usedBytes: number): number[][] {
  const blocks = [
    { name: 'other', usedBytes: 4096 },
    { name: ram, usedBytes },
  ];
  const { segments } = memoryMap(machineType, blocks, []);
  expect(segments.every(({ block }) => block === 1)).toBe(true);
  return segments.map(({ gpa, lengthBytes }) => [gpa, gpa + lengthBytes]);
}

describe('where a machine has its RAM', () => {
  // The borders of pc and q35 are held against QEMU in conformance/tests/convert.test.ts.
  test.each([
    ['pc-q35-5.2', 'pc.ram', 1 * GIB, [[0, GIB]]],
    [
      'q35',
      'pc.ram',
      4 * GIB,
      [
        [0, 2 * GIB],
        [4 * GIB, 6 * GIB],
      ],
    ],
    ['pc-i440fx-5.2', 'pc.ram', 3 * GIB, [[0, 3 * GIB]]],
    [
      'pc',
      'pc.ram',
      4 * GIB,
      [
        [0, 3 * GIB],
        [4 * GIB, 5 * GIB],
      ],
    ],
    [
      'microvm',
      'microvm.ram',
      4 * GIB,
      [
        [0, 3 * GIB],
        [4 * GIB, 5 * GIB],
      ],
    ],
    ['virt-5.2', 'mach-virt.ram', 4 * GIB, [[GIB, 5 * GIB]]],
    ['virt', 'riscv_virt_board.ram', GIB, [[2 * GIB, 3 * GIB]]],
  ])('%s, %s of %i bytes', (machine, ram, bytes, expected) => {
    expect(ranges(machine, ram, bytes)).toEqual(expected);
  });

  test('is what the command line says, by address', () => {
    const blocks = [
      { name: 'node0', usedBytes: 0x3000 },
      { name: 'node1', usedBytes: 0x1000 },
    ];
    const maps = [
      { block: 'node0', start: 0x1000, gpa: 0x10_0000 },
      { block: 'node1', start: 0, gpa: 0x4000 },
      { block: 'node0', start: 0, end: 0x1000, gpa: 0 },
    ];
    expect(memoryMap('pc-q35-5.2', blocks, maps)).toEqual({
      architecture: undefined,
      segments: [
        { block: 0, offset: 0, lengthBytes: 0x1000, gpa: 0 },
        { block: 1, offset: 0, lengthBytes: 0x1000, gpa: 0x4000 },
        { block: 0, offset: 0x1000, lengthBytes: 0x2000, gpa: 0x10_0000 },
      ],
    });
  });

  test.each([
    ['pseries-5.2', [], 'Where a machine pseries-5.2 has its RAM is not known'],
    ['pc-q35-5.2', [], 'the guest has m (4096 bytes)'],
    ['q35', [{ block: 'n', start: 0, gpa: 0 }], 'no RAM block n; it has m'],
    ['q35', [{ block: 'm', start: 0, end: 8192, gpa: 0 }], 'there is no 0-8192 in it'],
    ['q35', [{ block: 'm', start: 4096, gpa: 0 }], 'there is no 4096-4096 in it'],
    [
      'q35',
      [
        { block: 'm', start: 0, gpa: 0 },
        { block: 'm', start: 0, gpa: 4095 },
      ],
      'Two --map overlap at address 0xfff',
    ],
  ])('%s with %j is refused', (machine, maps, message) => {
    expect(() => memoryMap(machine, [{ name: 'm', usedBytes: 4096 }], maps)).toThrow(message);
  });
});
