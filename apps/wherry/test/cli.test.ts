import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import { CALM, expectGuestRuns, Lab, untilStatus } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const TINY = ['--ram', 'pc.ram=4M', '--vcpu', 'idle'];

/** Expects one line on stderr, nothing on stdout, and exit code 2. */
async function expectUsageError(args: readonly string[], message: RegExp): Promise<void> {
  const { code, stdout, stderr } = await lab.run(args);
  expect(stderr).toMatch(/^wherry: [^\n]+\n$/);
  expect(stderr).toMatch(message);
  expect([code, stdout]).toEqual([2, '']);
}

test('a Node that is too old is told, also one without a compile cache', async () => {
  const bin = fileURLToPath(new URL('../bin/wherry.js', import.meta.url));
  const asNode20 = `import module, { syncBuiltinESMExports } from 'node:module';
delete module.enableCompileCache;
syncBuiltinESMExports();
Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } });`;
  const url = `data:text/javascript,${encodeURIComponent(asNode20)}`;
  const child = spawn(process.execPath, ['--import', url, bin, '--help']);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = await once(child, 'close');
  expect([code, stderr]).toEqual([2, expect.stringMatching(/^wherry: Node 22\.15 .*20\.20\.2/)]);
});

describe('wrong usage is told in one line, with what to do', () => {
  test.each<[string, string[], RegExp]>([
    ['an unknown command', ['fly'], /unknown command 'fly' .*--help/],
    ['an unknown option', ['demo', '--fast'], /unknown option '--fast' .*--help/],
    ['too many arguments', ['demo', 'now'], /too many arguments\. .*--help/],
    ['no QMP socket', ['host'], /required option '--qmp <address>' not specified/],
    ['a bad QMP address', ['host', '--qmp', 'tcp:here', ...TINY], /use unix:PATH, tcp:HOST:PORT/],
    ['missing arguments', ['migrate', 'unix:a'], /missing required argument 'destination-qmp'/],
    ['a bad URI', ['migrate', 'a', 'b', 'foo:1'], /expected tcp:HOST:PORT, unix:PATH/],
    ['a URI where hosts cannot meet', ['demo', '--uri', 'exec:cat'], /tcp:HOST:PORT or unix:PATH/],
    [
      'options that exclude each other',
      ['demo', '--postcopy', '--auto-postcopy'],
      /cannot be used/,
    ],
    [
      'postcopy without a return path',
      ['demo', '--postcopy', '--no-return-path'],
      /cannot be used/,
    ],
    ['a size', ['demo', '--ram', 'pc.ram=12Q'], /use bytes or a suffix, as 4K, 512M, 2G/],
    ['a RAM block', ['demo', '--ram', '12M'], /use NAME=SIZE\[,page=SIZE\]/],
    ['a page size', ['demo', '--ram', 'a=8M,page=8K'], /use 4K, 2M or 1G/],
    [
      'a size that is no multiple',
      ['demo', '--ram', 'a=3M,page=2M'],
      /no multiple of its page size/,
    ],
    ['a property of RAM', ['demo', '--ram', 'a=4M,color=red'], /use page=SIZE/],
    ['a workload', ['demo', '--vcpu', 'lazy'], /use idle, sequential, random, hotset/],
    ['a rate', ['demo', '--vcpu', 'random,rate=-1'], /'-1' is no number from 0/],
    [
      'a property of a vCPU',
      ['demo', '--vcpu', 'random,speed=9'],
      /use rate, hot-pages, hot-writes/,
    ],
    ['a share', ['demo', '--fill', '2'], /'2' is no number from 0 to 1/],
    ['a seed', ['demo', '--seed', '0.5'], /no whole number/],
    ['a bandwidth', ['demo', '--max-bandwidth', 'fast'], /use bytes or a suffix/],
    ['a downtime', ['demo', '--downtime-limit', '2000001'], /no number from 0 to 2000000/],
  ])('%s', async (_, args, message) => {
    await expectUsageError(args, message);
  });

  test('a QMP socket that nobody listens on', async () => {
    const missing = await lab.path('missing');
    await expectUsageError(
      ['migrate', `unix:${missing}`, `unix:${missing}`, 'tcp:127.0.0.1:0'],
      /there is no such socket\. Start the host first/,
    );
  });

  test('a host whose QMP socket cannot be made', async () => {
    await expectUsageError(
      ['host', '--qmp', `unix:${await lab.path('no')}/where/qmp`, ...TINY],
      /Cannot listen for QMP at .*: no such directory/,
    );
  });

  test('a host whose QMP address or migration port is in use', async () => {
    const host = await lab.host(TINY);
    await expectUsageError(
      ['host', '--qmp', host.qmp, ...TINY],
      /it is in use, choose another one/,
    );
    expect(await host.client.execute('query-status')).toMatchObject({ running: true });

    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const incoming = ['--incoming', `tcp:127.0.0.1:${port}`, ...TINY];
    const qmp = `unix:${await lab.path('qmp')}`;
    await expectUsageError(
      ['host', '--qmp', qmp, ...incoming],
      /is in use\. Choose another address/,
    );
    await expectUsageError(
      ['host', '--qmp', `tcp:127.0.0.1:${port}`, ...TINY],
      /it is in use, choose another one/,
    );
    const waiting = await lab.host([...TINY, '--incoming', 'defer']);
    await expectUsageError(
      ['migrate', host.qmp, waiting.qmp, `tcp:127.0.0.1:${port}`],
      /^wherry: The destination refused: .* is in use\. Choose another address/,
    );
    server.close();
    // The failed attempt has not used the destination up.
    expect((await lab.run(['migrate', host.qmp, waiting.qmp, 'tcp:127.0.0.1:0'])).code).toBe(0);
  });

  test('hosts in the wrong place', async () => {
    const [source, destination] = await lab.pair(TINY);
    const channel = 'tcp:127.0.0.1:0';
    await expectUsageError(
      ['migrate', destination.qmp, source.qmp, channel],
      /The source waits for a migration itself: name the host that runs the guest first/,
    );
    const other = await lab.host(TINY);
    await expectUsageError(
      ['migrate', source.qmp, other.qmp, channel],
      /The destination refused: '-incoming' was not specified .*start it with --incoming defer/,
    );
    expect((await lab.run(['migrate', source.qmp, destination.qmp, channel])).code).toBe(0);
    await expectUsageError(
      ['migrate', source.qmp, destination.qmp, channel],
      /The source has no guest any more: it was migrated away/,
    );
    await expectUsageError(
      ['migrate', other.qmp, destination.qmp, channel],
      /The destination refused: .*already been started \(it takes one migration in its life/,
    );
  });
});

describe('help', () => {
  test.each(['demo', 'host', 'migrate', 'inspect', 'receive', 'send', 'convert', 'relay'])(
    'of %s',
    async (command) => {
      const { code, stdout, stderr } = await lab.run([command, '--help']);
      expect([code, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(new RegExp(`^Usage: wherry ${command} `));
      for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    },
  );

  test('of wherry itself names the commands', async () => {
    const { code, stdout } = await lab.run(['--help']);
    expect(code).toBe(0);
    for (const command of [
      'demo',
      'host',
      'migrate',
      'inspect',
      'receive',
      'send',
      'convert',
      'relay',
    ]) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command} +\\S`, 'm'));
    }
    expect((await lab.run(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('wherry host', () => {
  test('says what it is, and ends on SIGTERM', async () => {
    const host = await lab.host([...CALM, '--incoming', 'tcp:127.0.0.1:0']);
    expect(host.process.stdout).toBe(
      [
        `wherry host ready, QMP at ${host.qmp}`,
        'pc-q35-5.2, 24 MiB: pc.ram 16 MiB of 4 KiB pages, hugemem 8 MiB of 2 MiB pages',
        'vCPUs: random 300 pages/s; waiting for a migration (tcp:127.0.0.1:0)',
        '',
      ].join('\n'),
    );
    expect(await host.process.end()).toMatchObject({ code: 0, signal: null, stderr: '' });
    expect(host.events).toEqual(['SHUTDOWN']);
    expect(existsSync(host.path)).toBe(false);
  });

  test('ends on SIGTERM in the middle of a migration too', async () => {
    const [source, destination] = await lab.pair(CALM);
    await destination.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    const { 'socket-address': addresses } = await destination.client.execute('query-migrate');
    const [address] = addresses ?? [];
    if (address?.type !== 'inet') throw new Error('it listens on no port');
    await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 1 << 20 });
    await source.client.execute('migrate', { uri: `tcp:127.0.0.1:${address.port}` });
    await untilStatus(destination, 'active');
    expect(await destination.process.end()).toMatchObject({ code: 0, stderr: '' });
    await untilStatus(source, 'failed');
    await expectGuestRuns(source);
    expect(await source.process.end()).toMatchObject({ code: 0, stderr: '' });
  });

  test('takes a stale QMP socket over, and leaves other files alone', async () => {
    const first = await lab.host(TINY);
    first.process.child.kill('SIGKILL');
    await first.process.ended;
    expect(existsSync(first.path)).toBe(true);
    const again = lab.start(['host', '--qmp', first.qmp, ...TINY]);
    await expect.poll(() => again.stdout, { timeout: 10_000 }).toContain('wherry host ready');

    const file = await lab.path('file');
    await writeFile(file, 'mine');
    await expectUsageError(['host', '--qmp', file, ...TINY], /in use, choose another one/);
    expect(existsSync(file)).toBe(true);
  });

  test('waits for `cont` with --paused', async () => {
    const host = await lab.host([...CALM, '--paused']);
    expect(await host.client.execute('query-status')).toEqual({
      running: false,
      status: 'prelaunch',
    });
    expect((await host.client.execute('x-wherry-guest')).writes).toBe(0);
    await host.client.execute('cont');
    await expectGuestRuns(host);
  });

  test('speaks QMP over tcp', async () => {
    const host = lab.start(['host', '--qmp', 'tcp:127.0.0.1:0', ...TINY]);
    await expect.poll(() => host.stdout, { timeout: 10_000 }).toContain('vCPUs');
    const qmp = /QMP at (tcp:127\.0\.0\.1:[1-9]\d*)$/m.exec(host.stdout)?.[1] ?? '';
    const waiting = await lab.host([...TINY, '--incoming', 'defer']);
    expect((await lab.run(['migrate', qmp, waiting.qmp, 'tcp:127.0.0.1:0'])).code).toBe(0);
  });
});

/** util-linux's script gives a command a terminal. */
const SCRIPT = '/usr/bin/script';

describe.runIf(existsSync(SCRIPT))('on a terminal', () => {
  const main = fileURLToPath(new URL('../dist/main.js', import.meta.url));
  /** What a demo draws on a terminal of so many columns. */
  async function draw(columns: number): Promise<string> {
    const command = [process.execPath, main, 'demo', ...CALM, '--max-bandwidth', '16M'].join(' ');
    const child = spawn(SCRIPT, ['-qec', `stty rows 24 cols ${columns}; ${command}`, '/dev/null'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect(code, text).toBe(0);
    return text;
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: escape codes are what a terminal gets.
  const withoutCodes = (line: string): string => line.replace(/\u001b\[[?\d;]*[A-Za-z]/g, '');

  test.each([40, 80, 120])('of %i columns the live lines fit', async (columns) => {
    const lines = (await draw(columns)).split(/\r?\n/).map(withoutCodes);
    const live = lines.filter((line) => /^(source|destination) /.test(line));
    expect(live.length).toBeGreaterThan(4);
    for (const line of live) expect(line.length).toBeLessThan(columns);
    const source = live.find((line) => /^source +active/.test(line)) ?? '';
    if (columns >= 80) expect(source).toMatch(/round 1 .* MiB\/s .* left .* dirty pages\/s$/);
    else expect(source).toMatch(/…$/);
    expect(lines.join('\n')).toContain('completed');
  });
});
