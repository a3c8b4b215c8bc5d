import { expect, test } from 'vitest';
import { share, workloadOptions } from './vcpu-spec.ts';

test('options are completed, in the units of the module', () => {
  expect(workloadOptions({ workload: 'hotset', pagesPerSecond: 20_000 }, 0)).toEqual({
    workload: 3,
    pagesPerSecond: 20_000,
    hotPages: 0.1,
    hotWrites: Math.round(0.9 * 0xffff_ffff),
    changedLines: 64,
  });
  const all = workloadOptions(
    { workload: 'idle', pagesPerSecond: Infinity, hotPages: 1, hotWrites: 0, changes: 0 },
    0,
  );
  expect(all).toEqual({
    workload: 0,
    pagesPerSecond: 0xffff_ffff,
    hotPages: 1,
    hotWrites: 0,
    changedLines: 1,
  });
});

test.each([
  [{ workload: 'busy' as 'idle', pagesPerSecond: 1 }, 'idle, sequential, random, hotset', 'busy'],
  [{ workload: 'idle', pagesPerSecond: 0 }, 'a whole number from 1', '0'],
  [{ workload: 'idle', pagesPerSecond: 1.5 }, 'a whole number from 1', '1.5'],
  [{ workload: 'idle', pagesPerSecond: Number.NaN }, 'a whole number from 1', 'NaN'],
  [{ workload: 'idle', pagesPerSecond: 1, hotPages: 1.1 }, '0 to 1', '1.1'],
  [{ workload: 'idle', pagesPerSecond: 1, hotWrites: -1 }, '0 to 1', '-1'],
  [{ workload: 'idle', pagesPerSecond: 1, changes: 2 }, '0 to 1', '2'],
] as const)('%o is refused', (spec, expected, found) => {
  expect(() => workloadOptions(spec, 2)).toThrow(
    expect.objectContaining({
      code: 'OPTION_INVALID',
      expected: expect.stringContaining(expected),
      found,
      path: ['vcpus[2]'],
    }),
  );
});

test('a share of the machine has no vCPU in its path', () => {
  expect(() => share('fill', 2)).toThrow(expect.objectContaining({ path: [] }));
});
