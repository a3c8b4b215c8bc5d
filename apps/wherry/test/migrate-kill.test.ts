import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { expectGuestRuns, Lab, type RunningHost, SMALL_GUEST, until } from './processes.ts';

vi.setConfig({ testTimeout: 60_000 }); // each repeats an experiment

const lab = new Lab();
afterEach(() => lab.close());

const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=1000', '--vcpu', 'sequential,rate=500'];
/** About a second of precopy. */
const PACE = ['--max-bandwidth', '20M', '--downtime-limit', '30'];
const AT_ONCE = 4;

/** Seeded moments, in ms. @see xorshift32 */
function moments(seed: number, count: number, mostMs: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) / 2 ** 32) * mostMs;
  });
}

interface Round {
  readonly source: RunningHost;
  readonly destination: RunningHost;
}

/** Migrates, and kills a host some time after an event. @returns how `wherry migrate` ended */
async function migrateAndKill(
  { source, destination }: Round,
  victim: RunningHost,
  after: { readonly event: string; readonly at: RunningHost; readonly ms: number },
  options: readonly string[],
) {
  const command = lab.start([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--no-compare'],
    ...PACE,
    ...options,
  ]);
  await until(
    () => after.at.events.includes(after.event) || !command.isRunning,
    `${after.event}; ${command.stderr}`,
  );
  await sleep(after.ms);
  victim.process.child.kill('SIGKILL');
  return command.ended;
}

/** Repeats an experiment with fresh hosts at seeded moments. */
async function repeat(
  delays: readonly number[],
  experiment: (round: Round, ms: number) => Promise<void>,
): Promise<void> {
  for (let i = 0; i < delays.length; i += AT_ONCE) {
    await Promise.all(
      delays.slice(i, i + AT_ONCE).map(async (ms) => {
        const [source, destination] = await lab.pair(GUEST);
        await experiment({ source, destination }, ms);
      }),
    );
    await lab.close();
  }
}

describe('the destination is killed', () => {
  for (const [options, seed] of [
    [[], 11],
    [['--no-return-path'], 12],
  ] as const) {
    const name = options[0] ?? 'with a return path';
    test(`in precopy (${name}): the guest runs on at the source`, async () => {
      await repeat(moments(seed, 8, 450), async (round, ms) => {
        const after = { event: 'MIGRATION active', at: round.source, ms };
        const { code, stderr } = await migrateAndKill(round, round.destination, after, options);
        expect(code).toBe(1);
        expect(stderr).toMatch(/^source: .+\ndestination: .+\nthe guest runs on at the source/);
        const { status, 'error-desc': why } = await round.source.client.execute('query-migrate');
        expect([status, why]).toEqual(['failed', expect.stringMatching(/\w/)]);
        await expectGuestRuns(round.source);
      });
    });

    test(`at switchover (${name}): the guest runs on, or it had arrived`, async () => {
      await repeat(moments(seed + 10, 8, 40), async (round, ms) => {
        const after = { event: 'MIGRATION device', at: round.source, ms };
        const { code, stderr } = await migrateAndKill(round, round.destination, after, options);
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
    await repeat(moments(31, 8, 200), async (round, ms) => {
      const after = { event: 'MIGRATION postcopy-active', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(round, round.destination, after, [
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

describe('the source is killed', () => {
  test('in precopy: the destination says why it has no guest', async () => {
    await repeat(moments(41, 8, 450), async (round, ms) => {
      const after = { event: 'MIGRATION active', at: round.destination, ms };
      const { code, stderr } = await migrateAndKill(round, round.source, after, []);
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
    await repeat(moments(51, 8, 40), async (round, ms) => {
      const after = { event: 'MIGRATION device', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(round, round.source, after, []);
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
    await repeat(moments(61, 4, 200), async (round, ms) => {
      const after = { event: 'MIGRATION postcopy-active', at: round.source, ms };
      const { code, stderr } = await migrateAndKill(round, round.source, after, [
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
