import { afterEach, describe, expect, test } from 'vitest';
import { migrateAndKill, moments, repeat } from './kills.ts';
import { expectGuestRuns, Lab } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

describe('the destination is killed', () => {
  for (const [options, seed] of [
    [[], 11],
    [['--no-return-path'], 12],
  ] as const) {
    const name = options[0] ?? 'with a return path';
    test(`in precopy (${name}): the guest runs on at the source`, async () => {
      await repeat(lab, moments(seed, 8, 450), async (round, ms) => {
        const after = { event: 'MIGRATION active', at: round.source, ms };
        const { code, stderr } = await migrateAndKill(
          lab,
          round,
          round.destination,
          after,
          options,
        );
        expect(code).toBe(1);
        expect(stderr).toMatch(/^source: .+\ndestination: .+\nthe guest runs on at the source/);
        const { status, 'error-desc': why } = await round.source.client.execute('query-migrate');
        expect([status, why]).toEqual(['failed', expect.stringMatching(/\w/)]);
        await expectGuestRuns(round.source);
      });
    });

    test(`at switchover (${name}): the guest runs on, or it had arrived`, async () => {
      await repeat(lab, moments(seed + 10, 8, 40), async (round, ms) => {
        const after = { event: 'MIGRATION device', at: round.source, ms };
        const { code, stderr } = await migrateAndKill(
          lab,
          round,
          round.destination,
          after,
          options,
        );
        const { status } = await round.source.client.execute('query-status');
        if (status === 'running') {
          expect([code, stderr]).toEqual([1, expect.stringMatching(/runs on at the source/)]);
          await expectGuestRuns(round.source);
        } else {
          expect(status).toBe('postmigrate');
          // It completed before it died; the command may have ended before that too.
          if (code !== 0) expect(stderr).toMatch(/was lost with it|QMP failed/);
        }
      });
    });
  }

  test('in postcopy: the source keeps what it has and says why', async () => {
    await repeat(lab, moments(31, 8, 200), async (round, ms) => {
      const after = { event: 'MIGRATION postcopy-active', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(lab, round, round.destination, after, [
        ...['--postcopy', '--max-postcopy-bandwidth', '8M'],
      ]);
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^source: .+\ndestination: .+\nthe guest was lost with the destination/,
      );
      const { client } = round.source;
      const { status, 'error-desc': why } = await client.execute('query-migrate');
      expect([status, why]).toEqual(['postcopy-paused', expect.stringMatching(/\w/)]);
      expect(await client.execute('query-status')).toMatchObject({ running: false });
      await expect(client.execute('cont')).rejects.toThrow(/cannot run here/);
    });
  });
});
