import { once } from 'node:events';
import { connect } from 'node:net';
import { encodeMultifdInit } from '@wherry/stream';
import { afterEach, describe, expect, test } from 'vitest';
import {
  CALM,
  expectGuestRuns,
  incomingPort,
  Lab,
  type RunningHost,
  SMALL_GUEST,
  until,
  untilStatus,
} from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const UUID = '00112233-4455-6677-8899-aabbccddeeff';
const NEWEST = ['--machine', 'pc-q35-10.0'];

async function setMultifd({ client }: RunningHost, channels: number): Promise<void> {
  await client.execute('migrate-set-capabilities', {
    capabilities: (['multifd', 'return-path', 'events'] as const).map((capability) => ({
      capability,
      state: true,
    })),
  });
  await client.execute('migrate-set-parameters', { 'multifd-channels': channels });
}

/** Makes a destination with two channels, and a source that knows of them. */
async function prepare(args: readonly string[] = []): Promise<[RunningHost, RunningHost, number]> {
  const [source, destination] = await lab.pair([...CALM, ...NEWEST, ...args]);
  await setMultifd(source, 2);
  await setMultifd(destination, 2);
  await destination.client.execute('migrate-incoming', {
    uri: 'tcp:127.0.0.1:0',
    'exit-on-error': false,
  });
  return [source, destination, await incomingPort(destination)];
}

describe('a migration over several connections', () => {
  test.each([
    ['2', 'none', 'pc-q35-5.2', 'tcp:127.0.0.1:0'],
    ['4', 'zlib', 'pc-q35-8.2', 'unix'],
    ['3', 'zstd', 'pc-q35-10.0', 'tcp:127.0.0.1:0'],
    ['16', 'none', 'pc-q35-10.0', 'tcp:127.0.0.1:0'],
  ])('moves a busy guest through %s channels, %s, %s', async (channels, method, machine, where) => {
    const [source, destination] = await lab.pair([
      ...[...SMALL_GUEST, '--vcpu', 'hotset,rate=5000', '--fill', '0.7', '--machine', machine],
    ]);
    const uri = where === 'unix' ? `unix:${await lab.path('channel')}` : where;
    const { code, stdout, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, uri, '--json'],
      ...['--multifd-channels', channels, '--multifd-compression', method],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    const { source: info, witness, comparison } = JSON.parse(stdout);
    expect(info.ram['multifd-bytes']).toBeGreaterThan(info.ram.normal * 8);
    expect(info.ram['multifd-bytes']).toBeLessThan(info.ram.transferred);
    expect(info.ram.duplicate).toBeGreaterThan(0);
    expect(witness.violations).toBe(0);
    expect(comparison.equal).toBe(true);
    await expectGuestRuns(destination);
  });

  test('takes the connections in any order', async () => {
    const [source, destination, port] = await prepare(['--uuid', UUID]);
    // A connection that says nothing keeps nobody waiting, nor one that is lost before it has.
    const silent = connect(port, '127.0.0.1');
    const lost = connect(port, '127.0.0.1');
    await Promise.all([once(silent, 'connect'), once(lost, 'connect')]);
    lost.end('Q');
    await source.client.execute('migrate', { uri: `tcp:127.0.0.1:${port}` });
    await untilStatus(destination, 'completed');
    await untilStatus(source, 'completed');
    silent.destroy();
    await expectGuestRuns(destination);
  });
});

describe('a channel that does not belong to the migration', () => {
  test.each([
    [
      'another guest’s',
      encodeMultifdInit(0, UUID.replace('ff', '00')),
      /received uuid .* for channel 0/,
    ],
    [
      'one too many',
      encodeMultifdInit(2, UUID),
      /channel id 2 is greater than number of channels 2/,
    ],
  ])('%s is refused, and the guest stays', async (_, bytes, message) => {
    const [source, destination, port] = await prepare(['--uuid', UUID]);
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    socket.write(bytes);
    await untilStatus(destination, 'failed');
    const { 'error-desc': why } = await destination.client.execute('query-migrate');
    expect(why).toMatch(message);
    socket.destroy();
    await expectGuestRuns(source);
  });

  test('an id that comes twice is refused, and the guest stays', async () => {
    const [source, destination, port] = await prepare();
    const sockets = [0, 0].map(() => connect(port, '127.0.0.1').on('error', () => {}));
    for (const socket of sockets) {
      socket.write(encodeMultifdInit(1, '00000000-0000-0000-0000-000000000000'));
    }
    await untilStatus(destination, 'failed');
    const { 'error-desc': why } = await destination.client.execute('query-migrate');
    expect(why).toContain("multifd: received id '1' already setup'");
    for (const socket of sockets) socket.destroy();
    await expectGuestRuns(source);
  });
});

describe('a migration with channels that cannot go on', () => {
  test('fails when the destination dies, and the guest runs on', async () => {
    const [source, destination, port] = await prepare();
    await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 4_000_000 });
    await source.client.execute('migrate', { uri: `tcp:127.0.0.1:${port}` });
    await untilStatus(source, 'active');
    destination.process.child.kill('SIGKILL');
    await untilStatus(source, 'failed');
    await expectGuestRuns(source);
  });

  test('is given up, and then made anew', async () => {
    const [source, destination, port] = await prepare();
    await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 4_000_000 });
    await source.client.execute('migrate', { uri: `tcp:127.0.0.1:${port}` });
    await untilStatus(source, 'active');
    await source.client.execute('migrate_cancel');
    await untilStatus(source, 'cancelled');
    await until(
      async () => (await destination.client.execute('query-migrate')).status === 'failed',
      'a destination that has noticed',
    );
    await expectGuestRuns(source);
    const other = await lab.host([...CALM, ...NEWEST, '--incoming', 'defer']);
    await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
    const { code, stdout } = await lab.run([
      ...['migrate', source.qmp, other.qmp, 'tcp:127.0.0.1:0', '--json', '--multifd-channels', '2'],
    ]);
    expect([code, JSON.parse(stdout).comparison.equal]).toEqual([0, true]);
  });

  test('is refused where there is one connection only, and with what excludes it', async () => {
    const host = await lab.host(CALM);
    await setMultifd(host, 2);
    await expect(host.client.execute('migrate', { uri: 'exec:cat' })).rejects.toThrow(
      'Migration requires multi-channel URIs (e.g. tcp)',
    );
    const turnOn = (capability: 'postcopy-ram' | 'xbzrle') =>
      host.client.execute('migrate-set-capabilities', {
        capabilities: [{ capability, state: true }],
      });
    await expect(turnOn('postcopy-ram')).rejects.toThrow('Postcopy is not yet compatible with');
    await expect(turnOn('xbzrle')).rejects.toThrow('Multifd is not compatible with xbzrle');
    const late = await lab.host([...CALM, '--incoming', 'tcp:127.0.0.1:0']);
    await expect(setMultifd(late, 2)).rejects.toThrow('Multifd must be set before incoming starts');
  });
});
