import { setTimeout as sleep } from 'node:timers/promises';
import { type Ended, type Lab, type RunningHost, SMALL_GUEST, until } from './processes.ts';

const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=1000', '--vcpu', 'sequential,rate=500'];
/** About a second of precopy. */
const PACE = ['--max-bandwidth', '20M', '--downtime-limit', '30'];
const AT_ONCE = 4;

/** Seeded moments, in ms. @see xorshift32 */
export function moments(seed: number, count: number, mostMs: number): number[] {
  let state = seed;
  return Array.from({ length: count }, () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return ((state >>> 0) / 2 ** 32) * mostMs;
  });
}

/** A pair of hosts that is used once. */
export interface Round {
  readonly source: RunningHost;
  readonly destination: RunningHost;
}

/** Migrates, and kills a host some time after an event. @returns how `wherry migrate` ended */
export async function migrateAndKill(
  lab: Lab,
  { source, destination }: Round,
  victim: RunningHost,
  after: { readonly event: string; readonly at: RunningHost; readonly ms: number },
  options: readonly string[],
): Promise<Ended> {
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
export async function repeat(
  lab: Lab,
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
