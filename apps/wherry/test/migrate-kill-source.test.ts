import { afterEach, describe, expect, test } from 'vitest';
import { migrateAndKill, moments, repeat } from './kills.ts';
import { expectGuestRuns, Lab } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

describe('the source is killed', () => {
  test('in precopy: the destination says why it has no guest', async () => {
    await repeat(lab, moments(41, 8, 450), async (round, ms) => {
      const after = { event: 'MIGRATION active', at: round.destination, ms };
      const { code, stderr } = await migrateAndKill(lab, round, round.source, after, []);
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^source: .+\ndestination: .+\nthe source is gone, and the guest did not arrive/,
      );
      const { client } = round.destination;
      const { status, 'error-desc': why } = await client.execute('query-migrate');
      expect([status, why]).toEqual(['failed', expect.stringMatching(/offset/)]);
      expect(await client.execute('query-status')).toMatchObject({ running: false });
    });
  });

  test('at switchover: the guest is whole at the destination, or not there', async () => {
    await repeat(lab, moments(51, 8, 40), async (round, ms) => {
      const after = { event: 'MIGRATION device', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(lab, round, round.source, after, []);
      const { status } = await round.destination.client.execute('query-migrate');
      if (status === 'completed') {
        expect(code, stderr).toBe(0);
        await expectGuestRuns(round.destination);
      } else {
        expect([status, code]).toEqual(['failed', 1]);
        expect(stderr).toMatch(/the guest did not arrive/);
        expect(await round.destination.client.execute('query-status')).toMatchObject({
          running: false,
        });
      }
    });
  });

  test('in postcopy: the destination waits, and says for what', async () => {
    await repeat(lab, moments(61, 4, 200), async (round, ms) => {
      const after = { event: 'MIGRATION postcopy-active', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(lab, round, round.source, after, [
        ...['--postcopy', '--max-postcopy-bandwidth', '8M'],
      ]);
      expect(code).toBe(1);
      expect(stderr).toMatch(/waits for pages that were lost with the source/);
      const { client } = round.destination;
      const { status, 'error-desc': why } = await client.execute('query-migrate');
      expect([status, why]).toEqual(['postcopy-paused', expect.stringMatching(/offset/)]);
    });
  });
});
