import { describe, expect, it } from 'vitest';
import { expectMoved, KIB, type Scenario, simulate } from './simulate.ts';

const MIB = 1024 * KIB;

/** A guest that writes more than the link takes, as long as whole pages are sent. */
const busy = (seed: number): Scenario & { readonly capabilities: readonly ['return-path'] } => ({
  seed,
  capabilities: ['return-path'],
  network: { bytesPerMs: 2000 },
  parameters: { 'downtime-limit': 3, 'xbzrle-cache-size': 64 * MIB },
  source: { writeEveryMs: 2, changesLittle: true, xbzrleCacheBytes: MIB },
  destination: { changesLittle: true },
});

describe('XBZRLE in a migration', () => {
  it.each([1, 2, 3, 4, 5])('sends what changed in a page, seed %i', async (seed) => {
    const scenario = busy(seed);
    const outcome = await simulate({ ...scenario, capabilities: ['return-path', 'xbzrle'] });
    expectMoved(outcome);
    const { ram, 'xbzrle-cache': xbzrle } = outcome.source.info;
    expect(xbzrle).toMatchObject({ 'cache-size': 64 * MIB, overflow: 0 });
    expect(xbzrle!.pages).toBeGreaterThan(0);
    // The first round fills no cache: a page misses when it is sent again for the first time.
    expect(xbzrle!['cache-miss']).toBeGreaterThan(0);
    expect(xbzrle!.bytes).toBeLessThan(xbzrle!.pages * 100);
    expect(ram!.normal + ram!.duplicate).toBeGreaterThanOrEqual(192);
  });

  it('takes its cache size from the parameters, and tells its rates', async () => {
    const scenario = busy(6);
    const outcome = await simulate({
      ...scenario,
      capabilities: ['return-path', 'xbzrle'],
      parameters: { 'downtime-limit': 0, 'max-bandwidth': 0, 'xbzrle-cache-size': 16 * KIB },
      cancelAfterMs: 3000,
    });
    expect(outcome.source.status).toBe('cancelled');
    const { 'xbzrle-cache': xbzrle } = outcome.source.info;
    expect(xbzrle!['cache-size']).toBe(16 * KIB);
    // Four pages are kept of a hundred that are written.
    expect(xbzrle!['cache-miss']).toBeGreaterThan(5 * xbzrle!.pages);
    expect(xbzrle!['cache-miss-rate']).toBeGreaterThan(0.5);
    expect(xbzrle!['cache-miss-rate']).toBeLessThanOrEqual(1);
  });

  it('tells nothing of it without the capability', async () => {
    const outcome = await simulate({ seed: 7, capabilities: ['return-path'] });
    expectMoved(outcome);
    expect(outcome.source.info['xbzrle-cache']).toBeUndefined();
  });

  it.each([8, 9, 10])('is not used in postcopy, seed %i', async (seed) => {
    const outcome = await simulate({
      ...busy(seed),
      capabilities: ['postcopy-ram', 'xbzrle'],
      // A cache for half of the pages: the others are sent whole, more of them than the link takes.
      parameters: { 'downtime-limit': 0, 'max-bandwidth': 0, 'xbzrle-cache-size': 256 * KIB },
      source: { writeEveryMs: 0.5, changesLittle: true, xbzrleCacheBytes: MIB },
      startPostcopyAfterMs: 1500,
    });
    expectMoved(outcome);
    expect(outcome.source.info['xbzrle-cache']!.pages).toBeGreaterThan(0);
    expect(outcome.source.info.ram!['postcopy-bytes']).toBeGreaterThan(0);
  });

  it('is refused where the guest memory has no room for a cache', async () => {
    const outcome = await simulate({ seed: 11, capabilities: ['return-path', 'xbzrle'] });
    expect(outcome.source.status).toBe('failed');
    expect(outcome.source.error).toMatchObject({ code: 'CAPABILITY_UNSUPPORTED' });
    expect(outcome.running.names).toEqual(['source']);
  });
});
