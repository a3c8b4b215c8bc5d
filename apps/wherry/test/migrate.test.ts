import { afterEach, describe, expect, test } from 'vitest';
import { CALM, expectGuestRuns, Lab, SMALL_GUEST } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** All workloads at once, more than one page size; together they outrun a slow link. */
const BUSY = [
  ...SMALL_GUEST,
  ...[
    'idle',
    'sequential,rate=0',
    'random,rate=0',
    'hotset,rate=0,hot-pages=0.2,hot-writes=0.8',
  ].flatMap((vcpu) => ['--vcpu', vcpu]),
];

/** Migrates with --json and sees that it completed whole. @returns the object that was printed */
async function migrate(guest: readonly string[], uri: string, options: readonly string[]) {
  const [source, destination] = await lab.pair(guest);
  const { code, stdout, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, uri, '--json'],
    ...options,
  ]);
  expect(stderr).toBe('');
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ status: 'completed', comparison: { equal: true } });
  expect(report.witness.violations).toBe(0);
  expect(code).toBe(0);
  await expectGuestRuns(destination);
  expect(await source.client.execute('query-status')).toEqual({
    running: false,
    status: 'postmigrate',
  });
  return { report, source, destination };
}

describe('precopy', () => {
  test('over tcp, with several vCPUs and 2 MiB pages', async () => {
    const { report, source, destination } = await migrate(BUSY, 'tcp:127.0.0.1:0', [
      ...['--max-bandwidth', '0', '--downtime-limit', '5000'],
    ]);
    expect(report.source.ram).toMatchObject({ remaining: 0, 'postcopy-bytes': 0 });
    expect(report.source.ram.mbps).toBeGreaterThan(0);
    expect(report.source.ram['precopy-bytes']).toBeGreaterThan(0);
    expect(report.faults.count).toBe(0);
    expect(source.events.filter((event) => !event.startsWith('MIGRATION_PASS'))).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'MIGRATION device',
      'STOP',
      'MIGRATION completed',
    ]);
    expect(destination.events).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'RESUME',
      'MIGRATION completed',
    ]);
  });

  test('prints one object with all documented members', async () => {
    const { report } = await migrate(CALM, 'tcp:127.0.0.1:0', []);
    expect(Object.keys(report)).toEqual([
      ...['status', 'elapsed-ms', 'source', 'destination', 'witness', 'faults', 'comparison'],
    ]);
    expect(Object.keys(report.witness)).toEqual([
      ...['writes', 'checks', 'violations', 'first-violations'],
    ]);
    expect(Object.keys(report.faults)).toEqual([
      'count',
      'total-ms',
      'p50-ms',
      'p99-ms',
      'histogram',
    ]);
    expect(report.comparison.blocks.map(({ name }: { name: string }) => name)).toEqual([
      ...['pc.ram', 'hugemem'],
    ]);
    const devices: string[] = report.comparison.devices.map(({ name }: { name: string }) => name);
    for (const device of ['timer', 'serial', '0000:00:03.0/virtio-blk', 'wherry-vcpu']) {
      expect(devices).toContain(device);
    }
  });

  test('over a unix socket', async () => {
    const path = await lab.path('channel');
    const { report } = await migrate(CALM, `unix:${path}`, []);
    expect(report.destination['socket-address']).toEqual([{ type: 'unix', path }]);
  });

  test('without a return path', async () => {
    const { report } = await migrate(CALM, 'tcp:127.0.0.1:0', ['--no-return-path']);
    expect(report.source.status).toBe('completed');
  });

  test('takes rounds until what the guest dirties fits into the downtime', async () => {
    const guest = [...SMALL_GUEST, '--vcpu', 'hotset,rate=5000'];
    const options = ['--max-bandwidth', '64M', '--downtime-limit', '20'];
    const { source, report } = await migrate(guest, 'tcp:127.0.0.1:0', options);
    const rounds: number = report.source.ram['dirty-sync-count'];
    expect(rounds).toBeGreaterThan(2);
    const passes = source.events.filter((event) => event.startsWith('MIGRATION_PASS'));
    expect(passes).toEqual(Array.from({ length: rounds }, (_, i) => `MIGRATION_PASS ${i + 1}`));
  });
});

describe('postcopy', () => {
  test('over tcp: the guest runs before its pages are there', async () => {
    const { report, source, destination } = await migrate(BUSY, 'tcp:127.0.0.1:0', [
      ...['--postcopy', '--max-bandwidth', '16M', '--max-postcopy-bandwidth', '64M'],
    ]);
    expect(report.faults.count).toBeGreaterThan(0);
    expect(report.faults['p50-ms']).toBeGreaterThan(0);
    expect(report.source.ram['postcopy-requests']).toBeGreaterThan(0);
    expect(report.source.ram['postcopy-bytes']).toBeGreaterThan(report.source.ram['precopy-bytes']);
    expect(source.events.filter((event) => !event.startsWith('MIGRATION_PASS'))).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'MIGRATION device',
      'STOP',
      'MIGRATION postcopy-active',
      'MIGRATION completed',
    ]);
    expect(destination.events).toEqual([
      'MIGRATION setup',
      'MIGRATION active',
      'MIGRATION postcopy-active',
      'RESUME',
      'MIGRATION completed',
    ]);
  });

  test('over a unix socket, of 2 MiB pages alone', async () => {
    const guest = ['--ram', 'hugemem=16M,page=2M', '--vcpu', 'random,rate=2000', '--fill', '1'];
    const { report } = await migrate(guest, `unix:${await lab.path('channel')}`, [
      ...['--postcopy', '--max-bandwidth', '16M'],
    ]);
    expect(report.source.ram['postcopy-bytes']).toBeGreaterThan(0);
  });

  test('begins by itself when a round no longer shrinks what remains', async () => {
    const { report } = await migrate(BUSY, 'tcp:127.0.0.1:0', [
      ...['--auto-postcopy', '--max-bandwidth', '24M', '--max-postcopy-bandwidth', '0'],
    ]);
    expect(report.source.ram['dirty-sync-count']).toBeGreaterThan(2);
    expect(report.source.ram['postcopy-bytes']).toBeGreaterThan(0);
  });

  test('is not begun by itself for a guest that converges', async () => {
    const { report } = await migrate(CALM, 'tcp:127.0.0.1:0', ['--auto-postcopy']);
    expect(report.source.ram['postcopy-bytes']).toBe(0);
  });
});

test('--no-compare leaves the comparison out', async () => {
  const [source, destination] = await lab.pair(CALM);
  const { code, stdout } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json', '--no-compare'],
  ]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ status: 'completed', witness: { violations: 0 } });
  expect(JSON.parse(stdout).comparison).toBeUndefined();
});

test('a guest moves from A to B to C', async () => {
  const [a, b] = await lab.pair(CALM);
  const c = await lab.host([...CALM, '--incoming', 'defer']);
  for (const [from, to, option] of [
    [a, b, '--json'],
    [b, c, '--postcopy'],
  ] as const) {
    const { code, stderr } = await lab.run([
      ...['migrate', from.qmp, to.qmp, 'tcp:127.0.0.1:0', option],
    ]);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    await expectGuestRuns(to);
  }
  expect((await c.client.execute('x-wherry-guest')).writes).toBeGreaterThan(0);
});

test('a paused guest arrives paused', async () => {
  const [source, destination] = await lab.pair(CALM);
  await source.client.execute('stop');
  const { code } = await lab.run(['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0']);
  expect(code).toBe(0);
  expect(await destination.client.execute('query-status')).toEqual({
    running: false,
    status: 'paused',
  });
  await destination.client.execute('cont');
  await expectGuestRuns(destination);
});

test('a table for people tells all of it', async () => {
  const [source, destination] = await lab.pair(CALM);
  const { code, stdout, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--max-bandwidth', '48M'],
  ]);
  expect([code, stderr]).toEqual([0, '']);
  // Plain lines: no escape codes where stdout is no terminal.
  expect(stdout).not.toContain('\u001b');
  expect(stdout).toMatch(/^source +active .* round 1 .* MiB\/s .* left .* dirty pages\/s$/m);
  expect(stdout).toMatch(/^destination +active .* faults\/s$/m);
  for (const label of [
    ...['status', 'total time', 'downtime', 'pages with data', 'zero pages', 'bytes on the wire'],
    ...['rounds', 'faults', 'witness', 'RAM pc.ram', 'RAM hugemem', 'serial'],
  ]) {
    expect(stdout).toMatch(new RegExp(`│ ${label} +│ \\S`));
  }
  expect(stdout).toContain('no lost or stale page');
  expect(stdout).not.toContain('DIFFERS');
});
