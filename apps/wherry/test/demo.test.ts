import { readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { CALM, Lab, SMALL_GUEST, until, type WherryProcess } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** The ids of the hosts that a demo has started. */
async function hostsOf(demo: WherryProcess): Promise<number[]> {
  const { pid } = demo.child;
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8').catch(() => '');
  return children.trim().split(' ').filter(Boolean).map(Number);
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const folderOf = (demo: WherryProcess): string =>
  /unix:.*\/(wherry-demo-[^/]+)\//.exec(demo.stdout)?.[1] ?? '';

const demoFolders = async (): Promise<string[]> =>
  (await readdir(tmpdir())).filter((name) => name.startsWith('wherry-demo-'));

test.each([
  ['precopy', []],
  ['precopy over a slow link, with --auto-postcopy', ['--auto-postcopy', '--max-bandwidth', '16M']],
  ['postcopy', ['--postcopy']],
])('%s', async (_, options) => {
  const { code, stdout, stderr } = await lab.run([
    ...['demo', ...SMALL_GUEST, '--vcpu', 'hotset,rate=3000', '--vcpu', 'idle', ...options],
  ]);
  expect([code, stderr], stdout).toEqual([0, '']);
  expect(stdout).toMatch(/^wherry host ready/);
  expect(stdout).toContain('hugemem 8 MiB of 2 MiB pages');
  expect(stdout).toMatch(/│ status +│ completed/);
  expect(stdout).toContain('no lost or stale page');
  expect(stdout).not.toContain('\u001b');
});

test('--json prints one object and nothing else', async () => {
  const { code, stdout, stderr } = await lab.run(['demo', ...CALM, '--json', '--seed', '7']);
  expect([code, stderr], stdout).toEqual([0, '']);
  expect(JSON.parse(stdout)).toMatchObject({
    status: 'completed',
    witness: { violations: 0, 'first-violations': [] },
    comparison: { equal: true },
  });
});

test('over a unix socket', async () => {
  const path = await lab.path('channel');
  const { code, stdout, stderr } = await lab.run(['demo', ...CALM, '--uri', `unix:${path}`]);
  expect([code, stderr], stdout).toEqual([0, '']);
});

test('a host that cannot start ends it with one reason', async () => {
  const { code, stderr } = await lab.run(['demo', '--ram', 'pc.ram=900T', '--vcpu', 'idle']);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/^wherry: /);
  expect(stderr).not.toMatch(/^ +at /m);
});

const onLinux = process.platform === 'linux';
const SLOW = ['demo', ...CALM, '--max-bandwidth', '1M'];

test.runIf(onLinux).each(['SIGINT', 'SIGTERM'] as const)(
  '%s in precopy cancels, and leaves no process and no folder',
  async (signal) => {
    const demo = lab.start(SLOW);
    await until(() => /^source +active/m.test(demo.stdout), 'precopy');
    const hosts = await hostsOf(demo);
    expect(hosts).toHaveLength(2);
    const folder = folderOf(demo);
    demo.child.kill(signal);
    const { code, stderr } = await demo.ended;
    expect([code, stderr]).toEqual([130, 'Cancelled: the guest runs on at the source\n']);
    expect(hosts.filter(isAlive)).toEqual([]);
    expect(await demoFolders()).not.toContain(folder);
  },
);

test.runIf(onLinux)('SIGINT while the hosts start leaves no process', async () => {
  const demo = lab.start(['demo', '--ram', 'pc.ram=256M', '--fill', '1']);
  let hosts: number[] = [];
  await until(async () => (hosts = await hostsOf(demo)).length === 2, 'two hosts');
  demo.child.kill('SIGINT');
  const { code } = await demo.ended;
  expect(code).toBe(130);
  expect(hosts.filter(isAlive)).toEqual([]);
});

test.runIf(onLinux)('its hosts end with it when it is killed', async () => {
  const demo = lab.start(SLOW);
  await until(() => /^source +active/m.test(demo.stdout), 'precopy');
  const hosts = await hostsOf(demo);
  demo.child.kill('SIGKILL');
  await until(() => !hosts.some(isAlive), 'the hosts end');
  // A killed process cannot tidy up: its folder is left to the test.
  await rm(join(tmpdir(), folderOf(demo)), { recursive: true });
});
