import { afterEach, expect, test } from 'vitest';
import { expectGuestRuns, Lab, SMALL_GUEST, until } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** Writes 80 MB a second all over its memory; the link takes 32. */
const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=20000', '--fill', '1'];
const SLOW = ['--max-bandwidth', '32M', '--downtime-limit', '100'];

test('a guest that outruns the link: precopy never ends and says so', async () => {
  const [source, destination] = await lab.pair(GUEST);
  const migration = lab.start([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...SLOW],
  ]);
  const sentence =
    /precopy does not converge: the guest dirties [\d.]+ MiB\/s, [\d.]+ MiB\/s are sent, .* --auto-converge/;
  await until(() => sentence.test(migration.stdout), 'precopy says that it does not converge');
  migration.child.kill('SIGINT');
  const { code, stderr } = await migration.ended;
  expect(code).toBe(130);
  expect(stderr).toMatch(sentence);
  await expectGuestRuns(source);
});

test('auto-converge ends it, and the guest runs at full speed there', async () => {
  const [source, destination] = await lab.pair(GUEST);
  await source.client.execute('migrate-set-parameters', {
    'cpu-throttle-initial': 60,
    'cpu-throttle-increment': 20,
  });
  const { code, stdout, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...SLOW],
    ...['--auto-converge', '--json'],
  ]);
  expect([code, stderr]).toEqual([0, '']);
  const report = JSON.parse(stdout);
  expect(report['cpu-throttle-percentage']).toBeGreaterThanOrEqual(60);
  expect(report.source['cpu-throttle-percentage']).toBeUndefined();
  expect(report.source.ram['postcopy-bytes']).toBe(0);
  expect(report.witness.violations).toBe(0);
  expect(report.comparison.equal).toBe(true);
  await expectGuestRuns(destination);
});

test('postcopy ends it: the guest runs there at once, its pages follow', async () => {
  const [source, destination] = await lab.pair(GUEST);
  const { code, stdout, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...SLOW],
    ...['--auto-postcopy', '--json'],
  ]);
  expect([code, stderr]).toEqual([0, '']);
  const report = JSON.parse(stdout);
  expect(report.source.ram['postcopy-bytes']).toBeGreaterThan(0);
  expect(report.faults.count).toBeGreaterThan(0);
  expect(report.witness.violations).toBe(0);
  expect(report.comparison.equal).toBe(true);
  await expectGuestRuns(destination);
});
