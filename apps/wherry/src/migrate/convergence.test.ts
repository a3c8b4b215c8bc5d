import { describe, expect, it } from 'vitest';
import { Convergence } from './convergence.ts';
import type { MigrateOptions } from './migrate-options.ts';
import type { MigrationReport } from './peer.ts';

const MIB = 2 ** 20;
const PLAIN: MigrateOptions = { returnPath: true, compare: true };

function report(round: number, remaining: number, more: Partial<MigrationReport> = {}) {
  const ram = {
    ...{ 'dirty-sync-count': round, remaining, mbps: 256, 'dirty-pages-rate': 12_800 },
    'page-size': 4096,
  };
  return { status: 'active', ram, ...more } as unknown as MigrationReport;
}

/** Rounds that leave what is listed, a second each. */
function rounds(remaining: readonly number[], options = PLAIN, more = {}): Convergence {
  const convergence = new Convergence(options);
  for (const [i, bytes] of remaining.entries()) {
    for (const ms of [0, 500]) convergence.look(i * 1000 + ms, report(i + 1, bytes * MIB, more));
  }
  return convergence;
}

describe('Convergence', () => {
  it('hopes while rounds shrink what remains', () => {
    expect(rounds([100, 50, 40, 30, 20, 10])).toMatchObject({
      isInVain: false,
      problem: undefined,
    });
    expect(rounds([100, 100, 95, 90, 85, 80, 75, 72, 69, 66, 63])).toMatchObject({
      problem: undefined,
    });
  });

  it('tells after five rounds without progress what is dirtied and what is sent', () => {
    expect(rounds([40, 30, 28, 33, 35])).toMatchObject({ isInVain: true, problem: undefined });
    expect(rounds([40, 30, 28, 33, 30, 35, 30]).problem).toBe(
      'precopy does not converge: the guest dirties 50 MiB/s, 30.5 MiB/s are sent, 30 MiB remain; what may help: --auto-postcopy, --auto-converge, --xbzrle, more --max-bandwidth, a longer --downtime-limit',
    );
  });

  it('recommends nothing that is done already', () => {
    const options: MigrateOptions = { ...PLAIN, autoPostcopy: true, autoConverge: true };
    const { problem } = rounds([40, 30, 28, 33, 30, 35, 30], options);
    expect(problem).toMatch(/what may help: --xbzrle, more/);
  });

  it('gives a throttle time to show an effect', () => {
    const throttled = { 'cpu-throttle-percentage': 20 };
    expect(rounds(Array(9).fill(30), PLAIN, throttled)).toMatchObject({
      ...{ mostThrottle: 20, problem: undefined },
    });
    expect(rounds(Array(12).fill(30), PLAIN, throttled).problem).toBeDefined();
  });

  it('forgets it when the guest is handed over, but not when it is cancelled', () => {
    const convergence = rounds([40, 30, 28, 33, 30, 35, 30]);
    convergence.look(9000, report(8, 30, { status: 'cancelled' }));
    expect(convergence.problem).toBeDefined();
    convergence.look(9000, report(8, 30, { status: 'postcopy-active' }));
    expect(convergence.problem).toBeUndefined();
  });
});
