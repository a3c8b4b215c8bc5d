import { execFileSync } from 'node:child_process';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { expectGuestRuns, Lab, type RunningHost, SMALL_GUEST, untilStatus } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** Dirties its pages faster than a round of 24 MiB takes at the bandwidth of {@link save}. */
const BUSY = [...SMALL_GUEST, '--vcpu', 'random,rate=3000', '--fill', '0.7'];
const MAPPED = ['mapped-ram'];

async function setCapabilities(
  { client }: RunningHost,
  capabilities: readonly string[],
): Promise<void> {
  await client.execute('migrate-set-capabilities', {
    capabilities: capabilities.map((capability) => ({ capability, state: true })) as never,
  });
}

/** Has a host write its guest into a file. @returns its query-migrate */
async function save(host: RunningHost, uri: string, capabilities: readonly string[] = []) {
  await setCapabilities(host, capabilities);
  await host.client.execute('migrate-set-parameters', { 'max-bandwidth': 100 * 2 ** 20 });
  await host.client.execute('migrate', { uri });
  const info = await untilStatus(host, 'completed', 'failed');
  expect(info['error-desc']).toBeUndefined();
  return info;
}

/** Starts a host that reads its guest from a file. */
async function load(
  guest: readonly string[],
  uri: string,
  capabilities: readonly string[] = [],
): Promise<RunningHost> {
  const host = await lab.host([...guest, '--incoming', 'defer']);
  await setCapabilities(host, capabilities);
  await host.client.execute('migrate-incoming', { uri, 'exit-on-error': false });
  return host;
}

test('a running guest goes through a plain file', async () => {
  const uri = `file:${await lab.path('guest')},offset=4096`;
  const source = await lab.host(BUSY);
  await save(source, uri);
  const destination = await load(BUSY, uri);
  await untilStatus(destination, 'completed');
  await expectGuestRuns(destination);
});

describe('a mapped-ram file', () => {
  test('holds a busy guest, each page once in its place', async () => {
    const path = await lab.path('guest');
    const source = await lab.host(BUSY);
    const { ram } = await save(source, `file:${path}`, MAPPED);
    expect(ram?.['dirty-sync-count']).toBeGreaterThan(2); // pages were written over
    expect(ram?.normal).toBeGreaterThan((0.7 * 24 * 2 ** 20) / 4096);
    // Both blocks and their bitmaps, aligned to 1 MiB; the devices behind.
    expect(statSync(path).size).toBeLessThan(27 * 2 ** 20);
    const destination = await load(BUSY, `file:${path}`, MAPPED);
    await untilStatus(destination, 'completed');
    await expectGuestRuns(destination);
    const guest = await destination.client.execute('x-wherry-guest');
    expect(guest['normal-pages-received']).toBeGreaterThan(4000);
    expect(guest.faults.count).toBe(0);
  });

  test('of a paused guest has holes for its zero pages, and what lies before the offset stays', async () => {
    const path = await lab.path('guest');
    writeFileSync(path, 'kept');
    const guest = ['--ram', 'pc.ram=64M', '--fill', '0.01'];
    const source = await lab.host([...guest, '--paused']);
    await save(source, `file:${path},offset=0x2000`, MAPPED);
    expect(readFileSync(path).subarray(0, 4).toString()).toBe('kept');
    const { size, blocks } = statSync(path);
    expect(size).toBeGreaterThan(64 * 2 ** 20);
    expect(blocks * 512).toBeLessThan(4 * 2 ** 20);
    const destination = await load(guest, `file:${path},offset=0x2000`, MAPPED);
    await untilStatus(destination, 'completed');
    expect((await destination.client.execute('query-status')).status).toBe('paused');
    expect((await destination.client.execute('x-wherry-verify')).violations).toBe(0);
  });

  test('that was cut off is refused', async () => {
    const path = await lab.path('guest');
    await save(await lab.host([...BUSY, '--paused']), `file:${path}`, MAPPED);
    truncateSync(path, 12 * 2 ** 20);
    const destination = await load(BUSY, `file:${path}`, MAPPED);
    const { 'error-desc': problem } = await untilStatus(destination, 'failed');
    expect(problem).toMatch(/The input ends too early/);
  });

  test('is not what a host without the capability reads, nor the other way round', async () => {
    const path = await lab.path('guest');
    const source = await lab.host([...SMALL_GUEST, '--paused']);
    await save(source, `file:${path}`, MAPPED);
    const without = await load(SMALL_GUEST, `file:${path}`);
    expect((await untilStatus(without, 'failed'))['error-desc']).toMatch(
      /Capability mapped-ram is off, but received capability is on/,
    );
    const plain = await lab.path('plain');
    await save(await lab.host([...SMALL_GUEST, '--paused']), `file:${plain}`);
    const withIt = await load(SMALL_GUEST, `file:${plain}`, MAPPED);
    expect((await untilStatus(withIt, 'failed'))['error-desc']).toMatch(
      /Capability mapped-ram is on, but received capability is off/,
    );
  });

  test('needs a file, and neither xbzrle nor, to write it, postcopy', async () => {
    const host = await lab.host(SMALL_GUEST);
    await expect(setCapabilities(host, ['mapped-ram', 'xbzrle'])).rejects.toThrow(
      'Mapped-ram migration is incompatible with xbzrle',
    );
    await expect(setCapabilities(host, ['mapped-ram', 'postcopy-ram'])).rejects.toThrow(
      'Mapped-ram migration is incompatible with postcopy',
    );
    await setCapabilities(host, MAPPED);
    await expect(host.client.execute('migrate', { uri: 'tcp:127.0.0.1:1' })).rejects.toThrow(
      'Migration requires seekable transport (e.g. file)',
    );
    await expectGuestRuns(host);
  });
});

describe('several threads', () => {
  const THREADS = [...MAPPED, 'multifd'];

  test.each([
    [2, false],
    [5, true],
  ])('%i of them write and read a mapped-ram file, direct-io %s', async (threads, isDirect) => {
    const path = await lab.path('guest');
    const settings = { 'multifd-channels': threads, 'direct-io': isDirect };
    const source = await lab.host(BUSY);
    await source.client.execute('migrate-set-parameters', settings);
    const { ram } = await save(source, `file:${path},offset=100`, THREADS);
    expect(ram?.['dirty-sync-count']).toBeGreaterThan(2);
    expect(statSync(path).size).toBeLessThan(27 * 2 ** 20);
    const destination = await lab.host([...BUSY, '--incoming', 'defer']);
    await setCapabilities(destination, THREADS);
    await destination.client.execute('migrate-set-parameters', settings);
    await destination.client.execute('migrate-incoming', { uri: `file:${path},offset=100` });
    await untilStatus(destination, 'completed');
    await expectGuestRuns(destination);
    expect((await destination.client.execute('query-migrate-parameters'))['direct-io']).toBe(
      isDirect,
    );
  });

  test('take pages as they are', async () => {
    const source = await lab.host(SMALL_GUEST);
    await setCapabilities(source, THREADS);
    await source.client.execute('migrate-set-parameters', { 'multifd-compression': 'zlib' });
    await expect(source.client.execute('migrate', { uri: 'file:/dev/null' })).rejects.toThrow(
      'Cannot use compression with mapped-ram',
    );
  });

  test('leave the guest running when the disk is full', async () => {
    const source = await lab.host([...SMALL_GUEST, '--fill', '1']);
    await setCapabilities(source, THREADS);
    // As on a full disk: no byte of a file can lie behind the fourth MiB.
    execFileSync('prlimit', ['--pid', `${source.process.child.pid}`, `--fsize=${4 * 2 ** 20}`]);
    await source.client.execute('migrate', { uri: `file:${await lab.path('guest')}` });
    const { 'error-desc': problem } = await untilStatus(source, 'failed');
    expect(problem).toMatch(/EFBIG/);
    await expectGuestRuns(source);
  });
});

test('a guest starts from a mapped-ram file at once, its pages follow', async () => {
  const guest = ['--ram', 'pc.ram=128M', '--ram', 'hugemem=64M,page=2M', '--fill', '1'];
  const busy = [...guest, '--vcpu', 'random,rate=0'];
  const uri = `file:${await lab.path('guest')}`;
  const source = await lab.host(busy);
  await setCapabilities(source, ['background-snapshot', ...MAPPED]); // it would never converge
  await source.client.execute('migrate', { uri });
  await untilStatus(source, 'completed');
  const destination = await load(busy, uri, [...MAPPED, 'postcopy-ram', 'events']);
  const info = await untilStatus(destination, 'completed', 'postcopy-paused');
  expect(info['error-desc']).toBeUndefined();
  expect(destination.events).toEqual([
    ...['MIGRATION setup', 'MIGRATION active', 'MIGRATION postcopy-active', 'RESUME'],
    'MIGRATION completed',
  ]);
  const { faults, ...seen } = await destination.client.execute('x-wherry-guest');
  expect(faults.count).toBeGreaterThan(10); // its vCPU ran into pages that were not there yet
  expect(seen['normal-pages-received']).toBeGreaterThan(49_000);
  await expectGuestRuns(destination);
  await expect(destination.client.execute('migrate', { uri })).rejects.toThrow(
    'Mapped-ram migration is incompatible with postcopy',
  );
});

describe('a background snapshot', () => {
  const SNAPSHOT = ['background-snapshot'];
  // Without a limit: it writes each page long before the page's turn.
  const RUSHED = [...SMALL_GUEST, '--vcpu', 'sequential,rate=0', '--fill', '0.9'];

  test.each([
    ['into a plain file', SNAPSHOT, []],
    ['into a mapped-ram file', [...SNAPSHOT, ...MAPPED], MAPPED],
  ])('holds the guest as it was at one moment, while it ran on, %s', async (_, saved, loaded) => {
    const uri = `file:${await lab.path('guest')}`;
    const source = await lab.host(RUSHED);
    const { ram } = await save(source, uri, ['events', ...saved]);
    expect(ram?.['dirty-sync-count']).toBe(1);
    expect(source.events.filter((name) => name !== 'MIGRATION_PASS 1')).toEqual([
      ...['MIGRATION setup', 'MIGRATION active', 'STOP', 'RESUME', 'MIGRATION completed'],
    ]);
    const { faults, writes } = await source.client.execute('x-wherry-guest');
    expect(faults.count).toBeGreaterThan(10); // it waited for pages to be saved
    await expectGuestRuns(source);
    const destination = await load([...RUSHED, '-S'], uri, loaded);
    await untilStatus(destination, 'completed');
    // The witness came with the devices: each page is of the same moment.
    const guest = await destination.client.execute('x-wherry-verify');
    expect(guest.violations).toBe(0);
    expect(Number(guest.writes)).toBeLessThan(Number(writes));
    await destination.client.execute('cont');
    await expectGuestRuns(destination);
  });

  test('that is cancelled, or fails, leaves the guest as if nothing had been', async () => {
    const source = await lab.host(RUSHED);
    await setCapabilities(source, SNAPSHOT);
    await source.client.execute('migrate', { uri: 'exec:sleep 30' });
    await untilStatus(source, 'active');
    await source.client.execute('migrate_cancel');
    await untilStatus(source, 'cancelled');
    await expectGuestRuns(source);
    await source.client.execute('migrate', { uri: 'exec:head -c 100000 > /dev/null' });
    await untilStatus(source, 'failed');
    await expectGuestRuns(source);
  });

  test('of a paused guest can follow another, and a migration both', async () => {
    const [source, destination] = await lab.pair(BUSY);
    await source.client.execute('stop');
    const first = `file:${await lab.path('first')}`;
    await save(source, first, SNAPSHOT);
    expect((await source.client.execute('query-status')).running).toBe(false);
    await source.client.execute('cont');
    await save(source, `file:${await lab.path('second')}`);
    await source.client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'background-snapshot', state: false }],
    });
    const { code, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0'],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    await expectGuestRuns(destination);
  });

  test('goes with nothing that would move the guest', async () => {
    const host = await lab.host(SMALL_GUEST);
    for (const other of ['return-path', 'postcopy-ram', 'xbzrle', 'auto-converge']) {
      await expect(setCapabilities(host, [...SNAPSHOT, other])).rejects.toThrow(
        `Background-snapshot is not compatible with ${other}`,
      );
    }
  });
});

describe('shared memory', () => {
  const IGNORE = ['x-ignore-shared'];
  const guestWith = (path: string): string[] => [
    ...['--ram', `pc.ram=16M,share=on,mem-path=${path}`, '--ram', 'hugemem=8M,page=2M'],
    ...['--vcpu', 'random,rate=3000', '--fill', '0.7'],
  ];

  test('goes through its file, the rest over the connection', async () => {
    const [source, destination] = await lab.pair(guestWith(await lab.path('shared')));
    for (const host of [source, destination]) await setCapabilities(host, IGNORE);
    const { code, stdout, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json'],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    const { source: info, comparison } = JSON.parse(stdout);
    expect(info.ram.total).toBe(8 * 2 ** 20);
    expect(info.ram.normal).toBeLessThan(3000);
    expect(comparison.equal).toBe(true);
    await expectGuestRuns(destination);
  });

  test('stays out of a mapped-ram file', async () => {
    const guest = guestWith(await lab.path('shared'));
    const uri = `file:${await lab.path('guest')}`;
    await save(await lab.host(guest), uri, [...IGNORE, ...MAPPED]);
    expect(statSync(uri.slice(5)).size).toBeLessThan(10 * 2 ** 20);
    const destination = await load(guest, uri, [...IGNORE, ...MAPPED]);
    await untilStatus(destination, 'completed');
    await expectGuestRuns(destination);
  });

  test('that is private at the other side, or has another file, is missed', async () => {
    const path = await lab.path('shared');
    const uri = `file:${await lab.path('guest')}`;
    await save(await lab.host(guestWith(path)), uri, IGNORE);
    const other = await load(BUSY, uri, IGNORE);
    expect((await untilStatus(other, 'failed'))['error-desc']).toMatch(
      /No page of a RAM block came.*pc\.ram/,
    );
    const without = await load(guestWith(path), uri);
    expect((await untilStatus(without, 'failed'))['error-desc']).toMatch(
      /Capability x-ignore-shared is off, but received capability is on/,
    );
    truncateSync(path, 4096);
    const { code, stderr } = await lab.run([
      ...['host', '--qmp', `unix:${await lab.path('qmp')}`, ...guestWith(path)],
    ]);
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining("backing store size 0x1000 does not match 'size' option 0x1000000"),
    ]);
  });

  test('goes with no postcopy', async () => {
    const host = await lab.host(BUSY);
    await expect(setCapabilities(host, [...IGNORE, 'postcopy-ram'])).rejects.toThrow(
      'Postcopy is not compatible with ignore-shared',
    );
  });
});
