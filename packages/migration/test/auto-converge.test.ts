import { describe, expect, it } from 'vitest';
import { expectMoved, type Scenario, simulate } from './simulate.ts';

/** A guest that writes pages at twice the rate of the link. */
const busy = (seed: number): Scenario & { readonly capabilities: readonly ['return-path'] } => ({
  seed,
  capabilities: ['return-path'],
  network: { bytesPerMs: 2000 },
  parameters: { 'downtime-limit': 30 },
  source: { writeEveryMs: 1 },
});

describe('a guest that outruns the link', () => {
  it('never arrives by precopy alone', async () => {
    const outcome = await simulate({ ...busy(1), cancelAfterMs: 30_000 });
    expect(outcome.source.status).toBe('cancelled');
    expect(outcome.running.names).toEqual(['source']);
    const { ram, 'cpu-throttle-percentage': throttle } = outcome.source.info;
    expect(ram!['dirty-sync-count']).toBeGreaterThan(20);
    expect(throttle).toBeUndefined();
  });

  it.each([2, 3, 4])('arrives with auto-converge, seed %i', async (seed) => {
    const outcome = await simulate({
      ...busy(seed),
      capabilities: ['return-path', 'auto-converge'],
    });
    expectMoved(outcome);
    // It was slowed down for it, and is not any more.
    expect(outcome.source.info['total-time']).toBeGreaterThan(2000);
    expect(outcome.source.info['cpu-throttle-percentage']).toBeUndefined();
    expect(outcome.sourceGuest.throttles.length).toBeGreaterThan(1);
    expect(outcome.sourceGuest.throttles.at(-1)).toBe(0);
  });

  it('sleeps no more than max-cpu-throttle, and not at all once it is cancelled', async () => {
    const scenario = busy(5);
    const outcome = await simulate({
      ...scenario,
      capabilities: ['return-path', 'auto-converge'],
      parameters: { 'downtime-limit': 0, 'max-cpu-throttle': 30 },
      cancelAfterMs: 12_000,
    });
    expect(outcome.source.status).toBe('cancelled');
    expect([...new Set(outcome.sourceGuest.throttles)]).toEqual([20, 30, 0]);
    expect(outcome.running.names).toEqual(['source']);
  });

  it('runs at full speed again after the destination was lost', async () => {
    const outcome = await simulate({
      ...busy(6),
      capabilities: ['return-path', 'auto-converge'],
      parameters: { 'downtime-limit': 0, 'max-cpu-throttle': 20 },
      network: { bytesPerMs: 2000, cutAfterBytes: 8_000_000 },
    });
    expect(outcome.source.status).toBe('failed');
    expect(outcome.sourceGuest.throttles.length).toBeGreaterThan(1);
    expect(outcome.sourceGuest.throttles.at(-1)).toBe(0);
    expect(outcome.running.names).toEqual(['source']);
  });

  it('is looked at within a round that takes long', async () => {
    const outcome = await simulate({
      ...busy(7),
      capabilities: ['return-path', 'auto-converge'],
      parameters: { 'downtime-limit': 0, 'max-bandwidth': 30_000 },
      source: { writeEveryMs: 10 },
      cancelAfterMs: 90_000,
    });
    // A round takes 26 s.
    expect(outcome.source.info.ram!['dirty-sync-count']).toBeGreaterThan(10);
  });
});
