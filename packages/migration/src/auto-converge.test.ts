import { describe, expect, it } from 'vitest';
import { AutoConverge } from './auto-converge.ts';
import { DEFAULT_PARAMETERS, type Parameters } from './parameters.ts';

const PAGES = 1000;

/** An auto-converge whose guest dirties `share` of the bytes that are sent, second by second. */
function run(changes: Partial<Parameters>, share: number, seconds: number, stepMs = 1001) {
  const throttles: number[] = [];
  let now = 500;
  let sentBytes = 0;
  const parameters = { ...DEFAULT_PARAMETERS, ...changes };
  const autoConverge = new AutoConverge({
    clock: { now: () => now, sleep: () => Promise.resolve(), yield: () => Promise.resolve() },
    parameters: () => parameters,
    setThrottle: (percentage) => throttles.push(percentage),
  });
  autoConverge.synced(0, 0);
  for (const end = now + seconds * 1001; now < end; ) {
    now += stepMs;
    sentBytes += (PAGES * 4096 * stepMs) / 1001;
    autoConverge.synced((PAGES * share * stepMs) / 1001, sentBytes);
  }
  return { autoConverge, throttles, wait: (ms: number) => (now += ms) };
}

describe('AutoConverge', () => {
  it('begins when the dirty rate was high twice, and goes on in steps to the end', () => {
    expect(run({}, 0.6, 1).throttles).toEqual([]);
    expect(run({}, 0.6, 2).throttles).toEqual([20]);
    expect(run({}, 0.6, 6).throttles).toEqual([20, 30, 40]);
    expect(run({}, 0.6, 30).throttles.slice(-3)).toEqual([99, 99, 99]);
    expect(run({ 'max-cpu-throttle': 45 }, 0.6, 12).throttles).toEqual([20, 30, 40, 45, 45, 45]);
    expect(
      run({ 'cpu-throttle-initial': 5, 'cpu-throttle-increment': 50 }, 2, 6).throttles,
    ).toEqual([5, 55, 99]);
  });

  it('does nothing while the guest dirties no more than the threshold', () => {
    expect(run({}, 0.5, 20).throttles).toEqual([]);
    expect(run({ 'throttle-trigger-threshold': 49 }, 0.5, 4).throttles).toEqual([20, 30]);
  });

  it('judges whole seconds, however often the dirty log is looked at', () => {
    expect(run({}, 0.6, 2, 250).throttles).toEqual([]);
    expect(run({}, 0.6, 6, 250).throttles).toEqual([20, 30]);
  });

  it('sleeps no more than it must with tailslow', () => {
    // 80 % running dirty 55: for 50 they would have to run 72 %.
    expect(run({ 'cpu-throttle-tailslow': true }, 0.55, 4).throttles).toEqual([20, 28]);
    expect(run({ 'cpu-throttle-tailslow': true }, 5, 4).throttles).toEqual([20, 30]);
  });

  it('lets the guest go when it ends', () => {
    const idle = run({}, 0.1, 4);
    idle.autoConverge.stop();
    expect(idle.throttles).toEqual([]);
    const busy = run({}, 1, 2);
    busy.autoConverge.stop();
    expect(busy.throttles).toEqual([20, 0]);
    expect(busy.autoConverge.percentage).toBe(0);
  });

  it('wants a look at the dirty log within a long round, but not within the first', () => {
    const first = run({}, 1, 0);
    first.wait(60_000);
    expect(first.autoConverge.isSyncDue).toBe(false);
    const second = run({}, 1, 1);
    second.wait(4999);
    expect(second.autoConverge.isSyncDue).toBe(false);
    second.wait(1);
    expect(second.autoConverge.isSyncDue).toBe(true);
  });
});
