import { expect, it } from 'vitest';
import type { Capability } from '../src/index.ts';
import { expectMoved, KIB, simulate } from './simulate.ts';

const SETTINGS: readonly Capability[][] = [
  ['postcopy-ram', 'release-ram'],
  ['postcopy-ram', 'release-ram', 'postcopy-preempt'],
];

it.each(SETTINGS.flatMap((capabilities) => [1, 2, 3, 4].map((seed) => ({ capabilities, seed }))))(
  'the source forgets what it has sent, in whole host pages, $capabilities, seed $seed',
  async ({ capabilities, seed }) => {
    const outcome = await simulate({
      seed,
      capabilities,
      network: { bytesPerMs: 3000 },
      startPostcopyAfterMs: seed * 12,
    });
    expectMoved(outcome);
    for (const block of outcome.sourceGuest.ram.blocks) expect(block.receivedCount()).toBe(0);
  },
);

it('nothing is forgotten before the guest has moved', async () => {
  const outcome = await simulate({ seed: 5, capabilities: ['postcopy-ram', 'release-ram'] });
  expectMoved(outcome);
  expect(outcome.sourceStatuses).not.toContain('postcopy-active');
  for (const block of outcome.sourceGuest.ram.blocks) {
    expect(block.receivedCount()).toBe(block.pageCount);
  }
});

it('a postcopy that broke does not go on: what was on its way is lost', async () => {
  const outcome = await simulate({
    seed: 6,
    capabilities: ['postcopy-ram', 'release-ram'],
    network: { cutAfterBytes: 250 * KIB, bytesPerMs: 3000 },
    startPostcopyAfterMs: 10,
  });
  expect(outcome.source.status).toBe('postcopy-paused');
  // Of each host page either all is here, or nothing.
  const huge = outcome.sourceGuest.ram.block('hugemem')!;
  for (let page = 0; page < huge.pageCount; page += 16) {
    expect([0, 16]).toContain(huge.receivedCount(page, page + 16));
  }
  await expect(outcome.source.resume(new Promise(() => {}))).rejects.toThrow(
    'Postcopy recovery cannot work when release-ram capability is set',
  );
  expect(outcome.source.status).toBe('postcopy-paused');
});
