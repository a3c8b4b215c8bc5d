import { connect, createServer } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import {
  CALM,
  expectGuestRuns,
  incomingPort,
  Lab,
  SMALL_GUEST,
  sendRaw,
  until,
  untilStatus,
} from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const TINY = ['--ram', 'pc.ram=4M', '--vcpu', 'random,rate=200'];
const AT_ONCE = 4;

describe('a destination that differs', () => {
  const cases: [what: string, guest: readonly string[], options: string[], why: RegExp][] = [
    [
      'in the size of a RAM block',
      ['--ram', 'pc.ram=16M', '--ram', 'hugemem=10M,page=2M', '--vcpu', 'idle'],
      [],
      /hugemem/,
    ],
    ['in a missing RAM block', ['--ram', 'pc.ram=16M', '--vcpu', 'idle'], [], /hugemem/],
    [
      'in the name of a RAM block',
      ['--ram', 'pc.ram=16M', '--ram', 'other=8M,page=2M', '--vcpu', 'idle'],
      [],
      /hugemem/,
    ],
    [
      'in page sizes',
      ['--ram', 'pc.ram=16M', '--ram', 'hugemem=8M', '--vcpu', 'idle'],
      ['--postcopy'],
      /Postcopy needs matching RAM page sizes \(s=201000 d=1000\)/,
    ],
    [
      'in machine type',
      [...CALM, '--machine', 'pc-q35-9.2'],
      [],
      /Machine type received is 'pc-q35-5.2' and local is 'pc-q35-9.2'/,
    ],
    [
      'in the number of vCPUs',
      [...SMALL_GUEST, '--vcpu', 'idle'],
      [],
      /Unknown section or instance 'wherry-vcpu' 1/,
    ],
    [
      'in the number of vCPUs, in postcopy',
      [...SMALL_GUEST, '--vcpu', 'idle'],
      ['--postcopy', '--max-bandwidth', '1M'],
      /Unknown section or instance 'wherry-vcpu' 1/,
    ],
  ];
  test.each(cases)('%s says so, and the guest runs on', async (_, guest, options, why) => {
    const sourceGuest = [...SMALL_GUEST, '--vcpu', 'idle', '--vcpu', 'random,rate=300'];
    const source = await lab.host(sourceGuest);
    const destination = await lab.host([...guest, '--incoming', 'defer']);
    const { code, stdout, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...options],
    ]);
    expect(code).toBe(1);
    const [sourceLine, destinationLine, last, ...rest] = stderr.trimEnd().split('\n');
    expect(sourceLine).toMatch(
      /^source: The destination (could not load the guest|closed the connection)/,
    );
    expect(destinationLine).toMatch(/^destination: /);
    expect(destinationLine).toMatch(why);
    expect(last).toBe('the guest runs on at the source');
    expect(rest).toEqual([]);
    expect(stdout).toMatch(/│ status +│ failed/);
    await expectGuestRuns(source);
    expect(destination.process.isRunning).toBe(true); // it stays to answer questions
    expect(await destination.client.execute('query-status')).toMatchObject({ running: false });
  });
});

/** Records what a source without a return path sends. */
async function recordStream(guest: readonly string[]): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const path = await lab.path('record');
  const server = createServer((socket) => socket.on('data', (chunk) => chunks.push(chunk)));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const source = await lab.host(guest);
  await source.client.execute('migrate', { uri: `unix:${path}` });
  await untilStatus(source, 'completed');
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return Buffer.concat(chunks);
}

/** Sends bytes to a fresh host. @returns how it ended, undefined if it took them and runs on */
async function sendToFreshHost(bytes: Uint8Array) {
  const host = await lab.host([...TINY, '--incoming', 'tcp:127.0.0.1:0']);
  await sendRaw({ port: await incomingPort(host) }, bytes).catch(() => {}); // it may be reset
  await until(
    async () =>
      !host.process.isRunning ||
      (await host.client.execute('query-migrate').catch(() => undefined))?.status === 'completed',
    'an end',
  );
  return host.process.isRunning ? undefined : host.process.ended;
}

async function inGroups<T>(items: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < items.length; i += AT_ONCE) {
    await Promise.all(items.slice(i, i + AT_ONCE).map(run));
  }
}

const ONE_ERROR = /^wherry host: the incoming migration failed: [^\n]+\n$/;

describe('an incoming stream', () => {
  test('that is whole runs, and one that ends early is refused with its offset', async () => {
    const stream = await recordStream(TINY);
    expect(await sendToFreshHost(stream)).toBeUndefined();
    const { length } = stream;
    const cuts = [0, 1, 7, 8, 20, 60, length >> 2, length >> 1, length - 20_000, length - 150_000];
    // The last bytes are a description that nobody needs: QEMU as well takes a stream without it.
    await inGroups(cuts, async (cut) => {
      const ended = await sendToFreshHost(stream.subarray(0, cut));
      if (ended === undefined) expect(cut).toBeGreaterThan(length - 30_000);
      else expect([ended.code, ended.stderr]).toEqual([1, expect.stringMatching(ONE_ERROR)]);
      if (ended !== undefined) expect(ended.stderr).toMatch(/offset 0x[0-9a-f]+/);
    });
  });

  test('with a wrong byte is refused or harmless, and never ends in a bare exception', async () => {
    const stream = await recordStream(TINY);
    const structural = [0, 3, 4, 7, 8, 9, 12, 14, 26, 30, 40, 50, 60];
    const anywhere = [1, 2, 3, 4, 5, 6, 7].map((i) => Math.floor((stream.length * i) / 7.5));
    await inGroups([...structural, ...anywhere], async (position) => {
      const damaged = Buffer.from(stream);
      damaged[position] = (damaged[position] ?? 0) ^ 0x55;
      const ended = await sendToFreshHost(damaged);
      if (ended === undefined) expect(position).toBeGreaterThan(60);
      else expect([ended.code, ended.stderr]).toEqual([1, expect.stringMatching(ONE_ERROR)]);
    });
  });

  test.each<[string, string | Buffer, RegExp]>([
    ['of another protocol', 'GET / HTTP/1.1\r\nHost: here\r\n\r\n', /not a migration stream/],
    ['of zeros', Buffer.alloc(4096), /not a migration stream/],
    ['of a version to come', Buffer.from('5145564d00000004', 'hex'), /version/i],
    ['that ends at once', '', /ends|end of/],
  ])('%s is refused in one line', async (_, text, why) => {
    const ended = await sendToFreshHost(Buffer.from(text));
    expect(ended?.code).toBe(1);
    expect(ended?.stderr).toMatch(ONE_ERROR);
    expect(ended?.stderr).toMatch(why);
  });
});

test('with exit-on-error off a broken stream leaves the host there to be asked', async () => {
  const host = await lab.host([...TINY, '--incoming', 'defer']);
  await host.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0', 'exit-on-error': false });
  await sendRaw({ port: await incomingPort(host) }, Buffer.alloc(100)).catch(() => {});
  const { 'error-desc': why } = await untilStatus(host, 'failed');
  expect(why).toMatch(/not a migration stream/);
  expect(await host.client.execute('query-status')).toMatchObject({ running: false });
  await expect(host.client.execute('migrate', { uri: 'tcp:127.0.0.1:1' })).rejects.toThrow(
    'Guest is waiting for an incoming migration',
  );
});

test('the first to connect is taken, as in QEMU: a second one is refused and keeps its guest', async () => {
  const source = await lab.host(TINY);
  const destination = await lab.host([...TINY, '--incoming', 'tcp:127.0.0.1:0']);
  const port = await incomingPort(destination);
  const stranger = connect({ host: '127.0.0.1', port });
  await new Promise<void>((resolve) => stranger.once('connect', resolve));
  await source.client.execute('migrate', { uri: `tcp:127.0.0.1:${port}` });
  const { 'error-desc': why } = await untilStatus(source, 'failed');
  expect(why).toMatch(/refused|dropped|takes no more/);
  await expectGuestRuns(source);
  stranger.destroy();
  const { code, stderr } = await destination.process.ended;
  expect([code, stderr]).toEqual([1, expect.stringMatching(ONE_ERROR)]);
});

test('a destination that talks nonsense on the return path fails the migration, not the guest', async () => {
  const path = await lab.path('nonsense');
  const server = createServer((socket) => {
    socket.on('error', () => {}).resume();
    socket.write(Buffer.from('nonsense, all of it'));
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const source = await lab.host(TINY);
  await source.client.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'return-path', state: true }],
  });
  await source.client.execute('migrate', { uri: `unix:${path}` });
  const { 'error-desc': why } = await untilStatus(source, 'failed');
  expect(why).toMatch(/return path/);
  await expectGuestRuns(source);
  await new Promise((resolve) => server.close(resolve));
});
