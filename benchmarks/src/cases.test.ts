import { describe, expect, it } from 'vitest';
import { measure } from './engine-case.ts';
import { engineCases } from './engine-cases.ts';
import { judge, summarize } from './measurement.ts';
import { drawTable } from './table.ts';
import { vmstateCases } from './vmstate-cases.ts';

const MiB = 2 ** 20;

describe('the cases of the page engine', () => {
  const sizes = {
    scanBytes: 2 * MiB,
    blockBytes: 2 * MiB,
    freshBytes: MiB,
    twinBytes: MiB,
    bitmapGuestBytes: 32 * MiB,
  };

  it.each(engineCases(sizes))('$name: its checks pass, and it can be measured', async (each) => {
    const measured = await measure(each, { rounds: 1, iterations: 1, timeMs: 0 });
    expect(measured.figure!.value).toBeGreaterThan(0);
    expect(measured.ratio).toBeCloseTo(measured.figure!.value / measured.limit!.value);
    expect(drawTable([measured])).toContain(each.name);
  });
});

describe('the cases of device state', () => {
  it.each(vmstateCases())('$name: its checks pass, and it can be measured', async (each) => {
    const measured = await measure(each, { rounds: 1, iterations: 1, timeMs: 0 });
    expect(measured.figure).toMatchObject({ unit: 'MB/s' });
    expect(measured.figure!.value).toBeGreaterThan(0);
  });
});

describe('measurements', () => {
  it('are summed up by their median', () => {
    expect(summarize([9, 1, 2], 'ms')).toEqual({
      value: 2,
      unit: 'ms',
      samples: 3,
      min: 1,
      max: 9,
    });
    expect(summarize([4, 1, 2, 9], 'ms').value).toBe(3);
    expect(() => summarize([], 'ms')).toThrow(RangeError);
  });

  it('are judged by their mark', () => {
    expect([judge(2, 2), judge(1.99, 2), judge(undefined, 2), judge(1, undefined)]).toEqual([
      'met',
      'missed',
      'skipped',
      'none',
    ]);
  });
});
