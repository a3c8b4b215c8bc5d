import { describe, expect, it } from 'vitest';
import type { Capability, Parameters } from '../src/index.ts';
import { expectMoved, type Outcome, type Scenario, simulate } from './simulate.ts';
import { randomFrom } from './simulated-guest.ts';
import type { NetworkOptions } from './virtual-network.ts';

const CAPABILITIES: readonly Capability[] = ['return-path', 'multifd'];
const SEEDS = Array.from({ length: 40 }, (_, seed) => seed);
const DETECTIONS = ['none', 'legacy', 'multifd'] as const;
/** Waits at the end of each section, and of each round. */
const MACHINES = ['pc-q35-5.2', 'pc-q35-10.0'] as const;

/** A scenario of which everything follows from the seed. */
function scenario(seed: number): Scenario & { channels: Partial<NetworkOptions>[] } {
  const random = randomFrom(seed * 7919 + 1);
  const sizes = randomFrom(seed);
  const machineType = MACHINES[random(2)]!;
  // Channels of unequal speed, so that pages of different rounds would overtake each other.
  const channels = Array.from({ length: 1 + random(4) }, () => ({
    latencyMs: random(10) / 5,
    bytesPerMs: [3000, 8000, 20_000][random(3)]!,
    ...(random(3) === 0 ? { readSize: () => 1 + sizes(6000) } : {}),
  }));
  const parameters: Partial<Parameters> = {
    'zero-page-detection': DETECTIONS[random(3)]!,
    'max-bandwidth': [0, 20_000_000][random(2)]!,
    'downtime-limit': 20 + random(60),
  };
  const options = { machineType, writeEveryMs: [1, 2, 5][random(3)]! };
  return {
    seed,
    capabilities: CAPABILITIES,
    channels,
    parameters,
    source: options,
    destination: options,
  };
}

/** Sees that the source has the guest, which runs on. */
function expectStayed({ source, destination, running }: Outcome): void {
  expect(source.status).toBe('failed');
  expect(destination.status).toBe('failed');
  expect(running.names).toEqual(['source']);
}

describe('a migration with multifd', () => {
  it.each(SEEDS)('moves the guest, seed %i', async (seed) => {
    const outcome = await simulate(scenario(seed));
    expectMoved(outcome);
    const { ram } = outcome.source.info;
    expect(ram?.['multifd-bytes']).toBeGreaterThan(64);
    expect(ram?.transferred).toBeGreaterThan(ram?.['multifd-bytes'] ?? 0);
    const { normalPages, zeroPages } = outcome.destination.counters;
    expect([normalPages, zeroPages]).toEqual([ram?.normal, ram?.duplicate]);
  });

  it('moves a guest without a return path', async () => {
    const outcome = await simulate({ ...scenario(3), capabilities: ['multifd'] });
    expectMoved(outcome);
  });

  it.each(SEEDS)('loses nothing when a channel is cut, seed %i', async (seed) => {
    const cut = scenario(seed);
    const random = randomFrom(seed);
    const id = random(cut.channels.length);
    // The first round alone is longer than this.
    cut.channels[id] = { ...cut.channels[id], cutAfterBytes: random(20_000) + 1 };
    const outcome = await simulate(cut);
    expectStayed(outcome);
    const text = `${outcome.source.error?.message} ${outcome.destination.error?.message}`;
    expect(text).toContain(`channel ${id}`);
  });

  it.each(SEEDS.slice(0, 20))(
    'leaves the guest here when it is cancelled, seed %i',
    async (seed) => {
      const outcome = await simulate({ ...scenario(seed), cancelAfterMs: (seed % 10) / 2 });
      expect(outcome.source.status).toBe('cancelled');
      expect(outcome.running.names).toEqual(['source']);
    },
  );

  it('refuses to go without channels, or with channels that nobody asked for', async () => {
    const without = await simulate({ seed: 1, capabilities: CAPABILITIES });
    expect(without.source.error).toMatchObject({ code: 'CAPABILITY_UNSUPPORTED' });
    const inVain = await simulate({ ...scenario(1), capabilities: ['return-path'] });
    expect(inVain.source.error).toMatchObject({ code: 'CAPABILITY_UNSUPPORTED' });
    expectStayed(inVain);
  });

  it('fails when the two sides count SYNCs at different places', async () => {
    const mismatch = scenario(2);
    const outcome = await simulate({
      ...mismatch,
      source: { machineType: 'pc-q35-8.0' },
      destination: { machineType: 'pc-q35-8.1' },
    });
    expectStayed(outcome);
  });
});
