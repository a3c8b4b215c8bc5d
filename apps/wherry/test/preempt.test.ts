import { afterEach, describe, expect, test, vi } from 'vitest';
import {
  expectGuestRuns,
  incomingPort,
  Lab,
  type RunningHost,
  SMALL_GUEST,
  untilStatus,
} from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const CAPABILITIES = [
  { capability: 'events', state: true },
  { capability: 'postcopy-ram', state: true },
  { capability: 'postcopy-preempt', state: true },
  { capability: 'postcopy-blocktime', state: true },
] as const;
const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=2000', '--vcpu', 'sequential,rate=500'];

/** Hosts in a postcopy whose background alone would take half a minute. */
async function inPostcopy(machine: string): Promise<[RunningHost, RunningHost]> {
  const [source, destination] = await lab.pair([...GUEST, '--machine', machine]);
  for (const { client } of [source, destination]) {
    await client.execute('migrate-set-capabilities', { capabilities: [...CAPABILITIES] });
  }
  await source.client.execute('migrate-set-parameters', {
    'max-bandwidth': 10_000_000,
    'max-postcopy-bandwidth': 500_000,
  });
  await destination.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  const uri = `tcp:127.0.0.1:${await incomingPort(destination)}`;
  await source.client.execute('migrate', { uri });
  await untilStatus(source, 'active');
  await source.client.execute('migrate-start-postcopy');
  await untilStatus(destination, 'postcopy-active');
  await untilStatus(source, 'postcopy-active');
  return [source, destination];
}

describe.each([
  ['pc-q35-5.2', 'which has the channel from the beginning'],
  ['pc-q35-10.0', 'which opens the channel with postcopy'],
])('a machine %s, %s', (machine) => {
  test('is moved with 4 KiB and 2 MiB pages, is paused and goes on, and no page is lost', async () => {
    const [source, destination] = await inPostcopy(machine);
    await vi.waitFor(
      async () => {
        const { faults } = await destination.client.execute('x-wherry-guest');
        expect(faults.count).toBeGreaterThan(0); // a vCPU waited, and was answered
      },
      { timeout: 10_000, interval: 20 },
    );
    await source.client.execute('migrate-pause');
    await untilStatus(source, 'postcopy-paused');
    await untilStatus(destination, 'postcopy-paused');

    await destination.client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
    const uri = `tcp:127.0.0.1:${await incomingPort(destination)}`;
    await source.client.execute('migrate', { uri, resume: true });
    await untilStatus(source, 'postcopy-active');
    await source.client.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
    const { ram } = await untilStatus(source, 'completed');
    const blocked = await untilStatus(destination, 'completed');
    expect(blocked['postcopy-vcpu-blocktime']).toHaveLength(2);
    const dist = (blocked['postcopy-latency-dist'] ?? []).map(Number);
    expect(dist.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(1);
    // Both vCPUs waited from the break on, sooner or later.
    expect(Number(blocked['postcopy-blocktime'])).toBeLessThanOrEqual(
      Math.min(...(blocked['postcopy-vcpu-blocktime'] ?? []).map(Number)),
    );
    expect(Number(blocked['postcopy-latency'])).toBeGreaterThan(1000);
    expect(Number(ram?.['postcopy-requests'])).toBeGreaterThan(0);
    expect(Number(ram?.remaining)).toBe(0);
    await expectGuestRuns(destination);
  });
});

describe('wherry migrate', () => {
  test('sets any capability and parameter at both sides', async () => {
    const [source, destination] = await lab.pair(GUEST);
    const { code, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json', '--postcopy'],
      ...['--capability', 'postcopy-preempt', '--capability', 'postcopy-blocktime'],
      ...['--parameter', 'downtime-limit=321', '--parameter', 'tls-hostname=there'],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    for (const { client } of [source, destination]) {
      const parameters = await client.execute('query-migrate-parameters');
      expect(parameters).toMatchObject({ 'downtime-limit': 321, 'tls-hostname': 'there' });
      const set = (await client.execute('query-migrate-capabilities')).filter(({ state }) => state);
      expect(set.map(({ capability }) => capability)).toContain('postcopy-preempt');
    }
    expect(await destination.client.execute('query-migrate')).toHaveProperty('postcopy-blocktime');
  });

  test.each([
    [['--capability', 'postcopy-preemt'], 'postcopy-preemt'],
    [['--parameter', 'downtime-limit=soon'], 'downtime-limit'],
    [['--parameter', 'downtime-limit'], 'NAME=VALUE'],
    [['--parameter', 'block-bitmap-mapping=[{]'], 'no JSON'],
    [['--parameter', 'block-bitmap-mapping=[{"alias": 7}]'], 'block-bitmap-mapping'],
  ])('says who refuses %j', async (args, message) => {
    const [source, destination] = await lab.pair(GUEST);
    const { code, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...args],
    ]);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});

describe('a channel for requested pages', () => {
  const refusal = (client: RunningHost['client'], capabilities: readonly string[]) =>
    client
      .execute('migrate-set-capabilities', {
        capabilities: capabilities.map((capability) => ({ capability, state: true })) as never,
      })
      .then(
        () => 'accepted',
        (error: Error) => error.message,
      );

  test('is refused without postcopy, over one connection, and once a host listens', async () => {
    const [source, destination] = await lab.pair(GUEST);
    expect(await refusal(source.client, ['postcopy-preempt'])).toContain(
      'Postcopy preempt requires postcopy-ram',
    );
    await source.client.execute('migrate-set-capabilities', { capabilities: [...CAPABILITIES] });
    await expect(source.client.execute('migrate', { uri: 'exec:cat' })).rejects.toThrow(
      'Migration requires multi-channel URIs (e.g. tcp)',
    );
    await destination.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    expect(await refusal(destination.client, ['postcopy-ram', 'postcopy-preempt'])).toContain(
      'Postcopy preempt must be set before incoming starts',
    );
  });
});
