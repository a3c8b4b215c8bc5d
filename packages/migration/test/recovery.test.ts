import type { ReturnPathMessage } from '@wherry/stream';
import { describe, expect, it } from 'vitest';
import { saying } from './saying.ts';
import { expectMoved, KIB, type Outcome, type Scenario, simulate } from './simulate.ts';
import { randomFrom } from './simulated-guest.ts';
import { virtualConnection } from './virtual-network.ts';

/** A migration that breaks in postcopy. */
const BROKEN: Scenario = {
  seed: 500,
  capabilities: ['postcopy-ram'],
  network: { cutAfterBytes: 250 * KIB, bytesPerMs: 3000 },
  startPostcopyAfterMs: 10,
};
const PAUSED = ['postcopy-paused', 'postcopy-paused'];

const statuses = ({ source, destination }: Outcome): string[] => [
  source.status,
  destination.status,
];

/** Recovers over a connection that holds. */
async function recover(outcome: Outcome): Promise<void> {
  const { clock, source, destination, sourceGuest, destinationGuest } = outcome;
  const [there, here] = virtualConnection(clock, { latencyMs: 0.3, bytesPerMs: 20_000 });
  await clock.runUntil(
    Promise.all([source.resume(Promise.resolve(there)), destination.recover(here)]),
  );
  await clock.runUntil(clock.sleep(20));
  expect(statuses(outcome)).toEqual(['completed', 'completed']);
  expect(sourceGuest.running).toBe(false);
  destinationGuest.checkAllPages();
  expect(destinationGuest.violations).toEqual([]);
}

describe('a postcopy that broke', () => {
  it('goes on over another connection, with what is missing alone', async () => {
    const outcome = await simulate({ ...BROKEN, recoveries: [{}] });
    expectMoved(outcome);
    const recovery = ['postcopy-recover', 'postcopy-active', 'completed'];
    expect(outcome.sourceStatuses).toEqual([
      ...['setup', 'active', 'device', 'postcopy-active'],
      ...['postcopy-paused', 'postcopy-recover-setup', ...recovery],
    ]);
    expect(outcome.destinationStatuses).toEqual([
      ...['setup', 'active', 'postcopy-active', 'postcopy-paused', ...recovery],
    ]);
    const { ram } = outcome.source.info;
    // What was on its way is lost, and nothing else is sent twice.
    const { normalPages, zeroPages } = outcome.destination.counters;
    expect(ram!.normal + ram!.duplicate - normalPages - zeroPages).toBeLessThan(120);
    expect(ram!.transferred).toBeGreaterThan(600 * KIB);
  });

  it.each(Array.from({ length: 40 }, (_, i) => i))(
    'any number of times, at any byte, case %i',
    async (i) => {
      const random = randomFrom(9000 + i);
      const cut = (): Scenario['network'] => {
        const where = [4, 60, 400, 5000, 300 * KIB][random(5)]!;
        return random(2) === 0
          ? { cutAfterBytes: random(where) }
          : { cutAfterBytesBack: random(Math.min(where, 600)) };
      };
      const outcome = await simulate({
        ...BROKEN,
        seed: 500 + i,
        network: { cutAfterBytes: 200 * KIB + random(300 * KIB), bytesPerMs: 3000 },
        recoveries: [
          ...Array.from({ length: random(8) }, () => ({ bytesPerMs: 3000, ...cut() })),
          { readSize: () => 1 + random(9000) },
        ],
      });
      expect(outcome.sourceStatuses).toContain('postcopy-paused');
      expectMoved(outcome);
    },
  );

  it('pauses on demand, on either side', async () => {
    const paced: Scenario = {
      ...BROKEN,
      network: { bytesPerMs: 3000 },
      parameters: { 'max-postcopy-bandwidth': 100_000 },
    };
    for (const side of ['source', 'destination'] as const) {
      const outcome = await simulate({ ...paced, pauseAfterMs: 200, pauseAt: side });
      expect(statuses(outcome)).toEqual(PAUSED);
      expect(outcome[side].error?.message).toMatch(/^Postcopy migration is paused by the user/);
      expect(outcome.running.names).toEqual(['destination']);
      expect(() => outcome[side].pause()).toThrow(
        'migrate-pause is currently only supported during postcopy-active or postcopy-recover state',
      );
      await recover(outcome);
    }
  });

  it('stays paused where no connection comes', async () => {
    const outcome = await simulate(BROKEN);
    const { source } = outcome;
    expect(await source.resume(Promise.reject(new Error('refused')))).toBe('postcopy-paused');
    expect(source.error?.message).toBe('refused');
    await recover(outcome);
  });

  it('is recovered only while it is paused', async () => {
    const outcome = await simulate({ ...BROKEN, recoveries: [{}] });
    const [there, here] = virtualConnection(outcome.clock, { latencyMs: 1, bytesPerMs: 1 });
    await expect(outcome.source.resume(Promise.resolve(there))).rejects.toThrow(
      'Cannot resume if there is no paused migration',
    );
    await expect(outcome.destination.recover(here)).rejects.toThrow(
      'Migrate recover can only be run when postcopy is paused.',
    );
  });
});

const bitmap = (block: string, bytes: number): ReturnPathMessage => ({
  name: 'recv-bitmap',
  block,
  bitmap: new Uint8Array(bytes),
});
const BITMAPS = [bitmap('pc.ram', 16), bitmap('hugemem', 8)];

describe('a destination that answers a recovery wrongly', () => {
  it.each<[string, ReturnPathMessage[], RegExp]>([
    [
      'a bitmap that is too short',
      [bitmap('pc.ram', 8)],
      /'pc.ram' bitmap size mismatch \(0x8 != 0x10\)/,
    ],
    [
      'a bitmap that is too long',
      [bitmap('hugemem', 16)],
      /'hugemem' bitmap size mismatch \(0x10 != 0x8\)/,
    ],
    [
      'a bitmap longer than any',
      [bitmap('pc.ram', 24)],
      /expected a bitmap of at most 16 bytes, found 24/,
    ],
    ['a bitmap of another block', [bitmap('other', 16)], /RAM block 'other' not found/],
    ['a bitmap twice', [bitmap('pc.ram', 16), bitmap('pc.ram', 16)], /comes twice/],
    [
      'an ACK before its time',
      [{ name: 'resume-ack', value: 1 }],
      /RESUME_ACK without POSTCOPY_RESUME/,
    ],
    ['a SHUT that lies', [{ name: 'shut', status: 0 }], /unexpected shut/],
    ['a failure', [{ name: 'shut', status: 1 }], /could not load the guest/],
    ['another message', [{ name: 'switchover-ack' }], /unexpected switchover-ack/],
  ])('by %s leaves the source paused, and a later one works', async (_, messages, why) => {
    const outcome = await simulate(BROKEN);
    expect(statuses(outcome)).toEqual(PAUSED);
    const { clock, source } = outcome;
    await clock.runUntil(source.resume(Promise.resolve(saying(clock, messages))));
    expect(source.status).toBe('postcopy-paused');
    expect(source.error?.message).toMatch(why);
    await recover(outcome);
  });

  it('by another value than 1 leaves the source paused', async () => {
    const outcome = await simulate(BROKEN);
    const { clock, source } = outcome;
    // The ACK has to come after RESUME was sent.
    const far = saying(clock, BITMAPS, [{ name: 'resume-ack', value: 2 }]);
    await clock.runUntil(source.resume(Promise.resolve(far)));
    expect(source.status).toBe('postcopy-paused');
    expect(source.error?.message).toMatch(/illegal resume_ack value 2/);
  });
});
