import { describe, expect, it } from 'vitest';
import { hasEarlyPreempt } from '../src/source-preempt.ts';
import { expectMoved, KIB, type Scenario, simulate } from './simulate.ts';
import { randomFrom } from './simulated-guest.ts';

const PREEMPT: Scenario = {
  seed: 1,
  capabilities: ['postcopy-ram', 'postcopy-preempt'],
  network: { bytesPerMs: 3000 },
  startPostcopyAfterMs: 12,
};
/** Of each style: the channel is there from the beginning, or comes with postcopy. */
const MACHINE_TYPES = ['pc-q35-5.2', 'pc-q35-10.0'];

function readSizes(seed: number): () => number {
  const random = randomFrom(seed * 77);
  return () => 1 + (random(4) === 0 ? random(20) : random(70_000));
}

describe('postcopy with a channel for requested pages', () => {
  it.each(
    MACHINE_TYPES.flatMap((machineType) => [1, 2, 3, 4, 5, 6].map((seed) => [machineType, seed])),
  )('moves a running guest, %s, seed %i', async (machineType, seed) => {
    const type = { machineType: String(machineType) };
    const outcome = await simulate({
      ...PREEMPT,
      seed: Number(seed),
      network: { bytesPerMs: 3000, readSize: readSizes(Number(seed)) },
      startPostcopyAfterMs: Number(seed) * 12,
      source: type,
      destination: type,
    });
    expectMoved(outcome);
    const { requests, preemptHostPages } = outcome.destination.counters;
    expect(requests).toBeGreaterThan(0);
    expect(preemptHostPages).toBeGreaterThan(0);
    expect(preemptHostPages).toBeLessThanOrEqual(requests);
  });

  it.each(MACHINE_TYPES)('is plain precopy when nobody asks for it, %s', async (machineType) => {
    const outcome = await simulate({
      ...PREEMPT,
      network: {},
      startPostcopyAfterMs: 10_000,
      source: { machineType },
      destination: { machineType },
    });
    expectMoved(outcome);
    expect(outcome.sourceStatuses).not.toContain('postcopy-active');
  });

  it('answers at once, though the background is inside a huge page and hardly moves', async () => {
    const outcome = await simulate({
      ...PREEMPT,
      seed: 23,
      parameters: { 'max-postcopy-bandwidth': 100_000 },
      network: { bytesPerMs: 10_000 },
      startPostcopyAfterMs: 5,
    });
    expectMoved(outcome);
    const seconds = outcome.source.info['total-time']! / 1000;
    expect(seconds).toBeGreaterThan(0.5);
    const written = Number(outcome.destinationGuest.writes - outcome.sourceGuest.writes);
    expect(written / seconds).toBeGreaterThan(300);
  });

  it.each(Array.from({ length: 60 }, (_, i) => i))(
    'is recovered whichever channel breaks, at any byte, case %i',
    async (i) => {
      const random = randomFrom(7000 + i);
      const machineType = MACHINE_TYPES[random(2)]!;
      const cut = (): Scenario['network'] => {
        const where = [4, 60, 400, 5000, 300 * KIB][random(5)]!;
        return random(2) === 0
          ? { cutAfterBytes: random(where) }
          : { cutAfterBytesBack: random(Math.min(where, 600)) };
      };
      const either = () =>
        random(2) === 0
          ? { bytesPerMs: 3000, preempt: { bytesPerMs: 3000, cutAfterBytes: random(90 * KIB) } }
          : { bytesPerMs: 3000, ...cut(), preempt: { bytesPerMs: 3000 } };
      const first: Partial<Scenario> =
        random(2) === 0
          ? {
              network: { cutAfterBytes: 200 * KIB + random(300 * KIB), bytesPerMs: 3000 },
              preemptNetwork: { bytesPerMs: 3000 },
            }
          : { preemptNetwork: { cutAfterBytes: random(60 * KIB), bytesPerMs: 3000 } };
      const outcome = await simulate({
        ...PREEMPT,
        seed: 500 + i,
        source: { machineType },
        destination: { machineType },
        ...first,
        recoveries: [
          ...Array.from({ length: random(6) }, either),
          { readSize: () => 1 + random(9000), preempt: { readSize: () => 1 + random(9000) } },
        ],
      });
      expect(outcome.sourceStatuses).toContain('postcopy-paused');
      // The last word can be lost: the source stays paused, and the guest is there.
      if (outcome.source.status === 'completed') expectMoved(outcome);
      else expect(outcome.destination.status).toBe('completed');
      expect(outcome.running.names).toEqual(['destination']);
    },
  );

  it('fails before postcopy when no channel comes, and the guest runs on', async () => {
    const outcome = await simulate({
      ...PREEMPT,
      preemptNetwork: { cutAfterBytes: 0 },
      refuseChannels: true,
    });
    expect([outcome.source.status, outcome.destination.status]).toEqual(['failed', 'failed']);
    expect(outcome.source.error?.message).toMatch(
      /^Failed to establish preempt channel: found Connection refused, in preempt channel/,
    );
    expect(outcome.running.names).toEqual(['source']);
  });

  it('is refused by a destination that expects it and gets none', async () => {
    const outcome = await simulate({
      ...PREEMPT,
      capabilities: ['postcopy-ram'],
      destinationCapabilities: ['postcopy-ram', 'postcopy-preempt'],
    });
    expect(outcome.destination.error?.message).toMatch(
      /^The preempt channel did not come: found none within 30 s/,
    );
    expect(outcome.source.status).toBe('failed');
    expect(outcome.running.names).toEqual(['source']);
  });
});

describe('the style of the channel', () => {
  it.each([
    ['pc-i440fx-2.11', true],
    ['pc-q35-7.1', true],
    ['pc-q35-7.2', true],
    ['pc-q35-8.0', false],
    ['pc-q35-10.0', false],
    ['microvm', false],
  ])('of %s', (machineType, isEarly) => {
    expect(hasEarlyPreempt(machineType)).toBe(isEarly);
  });
});
