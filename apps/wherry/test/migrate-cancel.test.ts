import { afterEach, describe, expect, test } from 'vitest';
import {
  CALM,
  expectGuestRuns,
  Lab,
  type RunningHost,
  SMALL_GUEST,
  until,
  untilStatus,
} from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** Starts a migration that takes seconds, and waits until the source is in its rounds. */
async function startSlowly(source: RunningHost, destination: RunningHost, options: string[] = []) {
  const command = lab.start([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--max-bandwidth', '4M'],
    ...options,
  ]);
  await until(() => source.events.includes('MIGRATION active') || !command.isRunning, 'a start');
  return command;
}

test.each(['SIGINT', 'SIGTERM'] as const)(
  '%s cancels precopy: the guest runs on, and moves another time',
  async (signal) => {
    const [source, destination] = await lab.pair(CALM);
    const command = await startSlowly(source, destination);
    command.child.kill(signal);
    const { code, stdout, stderr } = await command.ended;
    expect([code, stderr]).toEqual([130, 'Cancelled: the guest runs on at the source\n']);
    expect(stdout).toMatch(/│ status +│ cancelled/);
    expect(source.events.filter((event) => !event.startsWith('MIGRATION_PASS'))).toEqual([
      ...['MIGRATION setup', 'MIGRATION active', 'MIGRATION cancelling', 'MIGRATION cancelled'],
    ]);
    await expectGuestRuns(source);
    const { 'error-desc': why } = await untilStatus(destination, 'failed');
    expect(why).toMatch(/offset/);

    const next = await lab.host([...CALM, '--incoming', 'defer']);
    const again = await lab.run([
      ...['migrate', source.qmp, next.qmp, 'tcp:127.0.0.1:0', '--max-bandwidth', '0'],
    ]);
    expect(again).toMatchObject({ code: 0, stderr: '' });
    await expectGuestRuns(next);
  },
);

test('--json tells a cancelled migration too', async () => {
  const [source, destination] = await lab.pair(CALM);
  const command = await startSlowly(source, destination, ['--json']);
  command.child.kill('SIGINT');
  const { code, stdout, stderr } = await command.ended;
  expect([code, stderr]).toEqual([130, '']);
  expect(JSON.parse(stdout)).toMatchObject({
    status: 'cancelled',
    problem: 'Cancelled: the guest runs on at the source',
    source: { status: 'cancelled' },
  });
});

test('a cancelled migration leaves no settings behind that stop an exchange of roles', async () => {
  const [source, destination] = await lab.pair(CALM);
  await source.client.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'return-path', state: true }],
  });
  await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 1 << 20 });
  await destination.client.execute('migrate-incoming', {
    uri: `unix:${await lab.path('channel')}`,
    'exit-on-error': false,
  });
  const { 'socket-address': addresses } = await destination.client.execute('query-migrate');
  const [address] = addresses ?? [];
  if (address?.type !== 'unix') throw new Error('it listens elsewhere');
  await source.client.execute('migrate', { uri: `unix:${address.path}` });
  await untilStatus(source, 'active');
  await source.client.execute('migrate_cancel');
  await untilStatus(source, 'cancelled');
  await untilStatus(destination, 'failed');
  await expectGuestRuns(source);

  // By QMP alone, and with postcopy this time.
  const next = await lab.host([...CALM, '--incoming', 'defer']);
  for (const { client } of [source, next]) {
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'postcopy-ram', state: true }],
    });
  }
  const uri = `unix:${await lab.path('channel')}`;
  await next.client.execute('migrate-incoming', { uri });
  await source.client.execute('migrate', { uri });
  await untilStatus(source, 'active');
  await source.client.execute('migrate-start-postcopy');
  await untilStatus(source, 'completed');
  await untilStatus(next, 'completed');
  await expectGuestRuns(next);
});

describe('when it is too late', () => {
  test('a signal in postcopy lets the migration complete, and says so', async () => {
    const guest = [...SMALL_GUEST, '--vcpu', 'random,rate=500', '--fill', '1'];
    const [source, destination] = await lab.pair(guest);
    const command = await startSlowly(source, destination, [
      ...['--postcopy', '--max-postcopy-bandwidth', '16M'],
    ]);
    await until(() => source.events.includes('MIGRATION postcopy-active'), 'postcopy');
    command.child.kill('SIGINT');
    const { code, stderr } = await command.ended;
    expect([code, stderr]).toEqual([
      0,
      'It was too late to cancel; the guest runs at the destination\n',
    ]);
    await expectGuestRuns(destination);
  });

  test('QMP refuses to cancel postcopy', async () => {
    const [source, destination] = await lab.pair(CALM);
    const command = await startSlowly(source, destination, [
      ...['--postcopy', '--max-postcopy-bandwidth', '8M'],
    ]);
    await until(() => source.events.includes('MIGRATION postcopy-active'), 'postcopy');
    await expect(source.client.execute('migrate_cancel')).rejects.toThrow(/no longer be cancelled/);
    await expect(destination.client.execute('migrate', { uri: 'tcp:127.0.0.1:1' })).rejects.toThrow(
      "There's a migration process in progress",
    );
    expect((await command.ended).code).toBe(0);
  });
});
