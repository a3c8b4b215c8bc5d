import { afterEach, expect, test } from 'vitest';
import {
  expectGuestRuns,
  incomingPort,
  Lab,
  type RunningHost,
  SMALL_GUEST,
  until,
  untilStatus,
} from './processes.ts';
import { Link } from './recorded-link.ts';

const lab = new Lab();
const links: Link[] = [];
afterEach(async () => {
  for (const link of links.splice(0)) link.cut();
  await lab.close();
});

const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=2000', '--vcpu', 'sequential,rate=500'];

/** Hosts in the middle of a postcopy that would take half a minute. */
async function inPostcopy(): Promise<[RunningHost, RunningHost, cut: () => void]> {
  const [source, destination] = await lab.pair(GUEST);
  for (const { client } of [source, destination]) {
    await client.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'postcopy-ram', state: true },
      ],
    });
  }
  await source.client.execute('migrate-set-parameters', {
    'max-bandwidth': 10_000_000,
    'max-postcopy-bandwidth': 500_000,
  });
  await destination.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const link = await Link.open(lab, await incomingPort(destination));
  links.push(link);
  await source.client.execute('migrate', { uri: link.uri });
  await untilStatus(source, 'active');
  await source.client.execute('migrate-start-postcopy');
  await untilStatus(destination, 'postcopy-active');
  await untilStatus(source, 'postcopy-active');
  return [source, destination, () => link.cut()];
}

async function untilPaused(...hosts: RunningHost[]): Promise<void> {
  for (const host of hosts) await untilStatus(host, 'postcopy-paused');
}

/** Has both sides go on over a new connection. */
async function recover(source: RunningHost, destination: RunningHost): Promise<void> {
  await destination.client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
  const uri = `tcp:127.0.0.1:${await incomingPort(destination)}`;
  await source.client.execute('migrate', { uri, resume: true });
}

test('a postcopy that was paused twice is recovered, and no page is lost', async () => {
  const [source, destination] = await inPostcopy();
  await source.client.execute('migrate-pause');
  await untilPaused(source, destination);
  const { 'error-desc': why, ram } = await untilStatus(source, 'postcopy-paused');
  expect(why).toBe('Postcopy migration is paused by the user');
  expect(Number(ram?.remaining)).toBeGreaterThan(0);
  expect(await destination.client.execute('query-status')).toMatchObject({ running: true });

  await recover(source, destination);
  await untilStatus(source, 'postcopy-active');
  await untilStatus(destination, 'postcopy-active');
  await destination.client.execute('migrate-pause');
  await untilPaused(source, destination);

  await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  await recover(source, destination);
  const done = await untilStatus(source, 'completed');
  await untilStatus(destination, 'completed');
  expect(done['error-desc']).toBeUndefined();
  expect(Number(done.ram?.remaining)).toBe(0);
  await expectGuestRuns(destination);
  expect(await source.client.execute('query-status')).toEqual({
    running: false,
    status: 'postmigrate',
  });
  const migration = ({ events }: RunningHost): string[] =>
    events.filter((event) => event.startsWith('MIGRATION ')).map((event) => event.slice(10));
  const again = ['postcopy-recover', 'postcopy-active'];
  expect(migration(source)).toEqual([
    ...['setup', 'active', 'device', 'postcopy-active'],
    ...['postcopy-paused', 'postcopy-recover-setup', ...again],
    ...['postcopy-paused', 'postcopy-recover-setup', ...again, 'completed'],
  ]);
  expect(migration(destination)).toEqual([
    ...['setup', 'active', 'postcopy-active'],
    ...['postcopy-paused', ...again, 'postcopy-paused', ...again, 'completed'],
  ]);
});

test('a link that breaks pauses both; a recovery that finds nobody leaves the source so', async () => {
  const [source, destination, cut] = await inPostcopy();
  cut();
  await untilPaused(source, destination);
  const nobody = `unix:${await lab.path('nobody')}`;
  await source.client.execute('migrate', { uri: nobody, resume: true });
  const { 'error-desc': why } = await untilStatus(source, 'postcopy-paused');
  expect(why).toMatch(/nobody/);
  const first = `unix:${await lab.path('first')}`;
  await destination.client.execute('migrate-recover', { uri: first });
  await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  await recover(source, destination); // instead of the first
  await untilStatus(source, 'completed');
  await untilStatus(destination, 'completed');
  await expectGuestRuns(destination);
});

test('a guest that is to stop while it waits for a page stops once that came', async () => {
  const [source, destination, cut] = await inPostcopy();
  cut();
  await untilPaused(source, destination);
  let writes: unknown;
  await until(async () => {
    const before = writes;
    ({ writes } = await destination.client.execute('x-wherry-guest'));
    return writes === before;
  }, 'all vCPUs wait for pages');
  const stopped = destination.client.execute('stop');
  const second = { ...destination, client: await lab.client(destination.path) };
  await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  await recover(source, second);
  await stopped;
  await untilStatus(source, 'completed');
  await destination.client.execute('cont');
  await expectGuestRuns(destination);
});

test('paused hosts end when they are told to', async () => {
  const [source, destination, cut] = await inPostcopy();
  cut();
  await untilPaused(source, destination);
  await destination.client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
  for (const { client, process } of [source, destination]) {
    await client.execute('quit');
    expect((await process.ended).code).toBe(0);
  }
});

test('in another state the commands are refused in QEMU’s words', async () => {
  const [source, destination] = await lab.pair(GUEST);
  const uri = 'tcp:127.0.0.1:0';
  for (const { client } of [source, destination]) {
    await expect(client.execute('migrate-recover', { uri })).rejects.toThrow(
      'Migrate recover can only be run when postcopy is paused.',
    );
    await expect(client.execute('migrate', { uri, resume: true })).rejects.toThrow(
      'Cannot resume if there is no paused migration',
    );
    await expect(client.execute('migrate-pause')).rejects.toThrow(
      'migrate-pause is currently only supported during postcopy-active or postcopy-recover state',
    );
  }
});
