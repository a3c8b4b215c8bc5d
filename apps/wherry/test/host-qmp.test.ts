import { connect, createServer, type Server } from 'node:net';
import { CAPABILITIES } from '@wherry/migration';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { CALM, expectGuestRuns, Lab, type RunningHost, until, untilStatus } from './processes.ts';

const lab = new Lab();
afterAll(() => lab.close());

/** Sends raw lines, one after the other has been answered. @returns the answers without their events */
async function sendLines(path: string, lines: readonly string[]): Promise<unknown[]> {
  const socket = connect(path);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  const answers = () =>
    text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => JSON.parse(line))
      .filter((message) => !('event' in message));
  try {
    await until(() => answers().length === 1, 'a greeting');
    for (const [i, line] of ['{"execute":"qmp_capabilities"}', ...lines].entries()) {
      socket.write(`${line}\n`);
      await until(() => answers().length === i + 2, `an answer to ${line}`);
    }
    return answers().slice(2);
  } finally {
    socket.destroy();
  }
}

const ask = (execute: string, args?: unknown): string =>
  JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) });

describe('a host that runs a guest', () => {
  let host: RunningHost;
  beforeAll(async () => {
    host = await lab.host(CALM);
  });
  const settings = async () => ({
    capabilities: await host.client.execute('query-migrate-capabilities'),
    parameters: await host.client.execute('query-migrate-parameters'),
    status: await host.client.execute('query-status'),
    migration: await host.client.execute('query-migrate'),
  });

  test('has every command that it promises', async () => {
    const commands = await host.client.execute('query-commands');
    expect(commands.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        ...['migrate', 'migrate-incoming', 'migrate_cancel', 'migrate-start-postcopy'],
        ...['migrate-set-capabilities', 'query-migrate-capabilities'],
        ...['migrate-set-parameters', 'query-migrate-parameters'],
        ...['query-migrate', 'query-status', 'stop', 'cont', 'quit'],
        ...['qmp_capabilities', 'query-version'],
      ]),
    );
  });

  test('begins with no capability, QEMU’s parameters and no migration', async () => {
    expect(await settings()).toEqual({
      capabilities: CAPABILITIES.map((capability) => ({ capability, state: false })),
      parameters: {
        'max-bandwidth': 134_217_728,
        'max-postcopy-bandwidth': 0,
        'downtime-limit': 300,
        'xbzrle-cache-size': 67_108_864,
        'multifd-channels': 2,
        'direct-io': false,
        'multifd-compression': 'none',
        'multifd-zlib-level': 1,
        'multifd-zstd-level': 1,
        // Of machine types before 9.0.
        'zero-page-detection': 'legacy',
        'throttle-trigger-threshold': 50,
        'cpu-throttle-initial': 20,
        'cpu-throttle-increment': 10,
        'cpu-throttle-tailslow': false,
        'max-cpu-throttle': 99,
        'tls-creds': '',
        'tls-hostname': '',
      },
      status: { running: true, status: 'running' },
      migration: {},
    });
  });

  test('sets capabilities and parameters, and tells them back', async () => {
    const answers = await sendLines(host.path, [
      ask('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] }),
      ask('migrate-set-parameters', {
        ...{ 'downtime-limit': 50, 'max-bandwidth': 1 << 20, 'cpu-throttle-tailslow': true },
      }),
      ask('query-migrate-capabilities'),
      ask('query-migrate-parameters'),
      ask('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: false }] }),
      ask('migrate-set-parameters', {
        ...{ 'downtime-limit': 300, 'max-bandwidth': 128 << 20, 'cpu-throttle-tailslow': false },
      }),
    ]);
    expect(answers.slice(0, 4)).toEqual([
      { return: {} },
      { return: {} },
      {
        return: CAPABILITIES.map((capability) => ({ capability, state: capability === 'events' })),
      },
      {
        return: {
          'max-bandwidth': 1 << 20,
          'max-postcopy-bandwidth': 0,
          'downtime-limit': 50,
          'xbzrle-cache-size': 64 << 20,
          ...{ 'multifd-channels': 2, 'multifd-compression': 'none', 'multifd-zlib-level': 1 },
          ...{ 'multifd-zstd-level': 1, 'zero-page-detection': 'legacy', 'direct-io': false },
          'throttle-trigger-threshold': 50,
          'cpu-throttle-initial': 20,
          'cpu-throttle-increment': 10,
          'cpu-throttle-tailslow': true,
          'max-cpu-throttle': 99,
          'tls-creds': '',
          'tls-hostname': '',
        },
      },
    ]);
  });

  test('stops and goes on, with events', async () => {
    const already = host.events.length;
    await host.client.execute('stop');
    expect(await host.client.execute('query-status')).toEqual({ running: false, status: 'paused' });
    const { writes } = await host.client.execute('x-wherry-guest');
    expect((await host.client.execute('x-wherry-guest')).writes).toBe(writes);
    await host.client.execute('stop'); // a second one does nothing
    await host.client.execute('cont');
    await host.client.execute('cont');
    expect(host.events.slice(already)).toEqual(['STOP', 'RESUME']);
    await expectGuestRuns(host);
  });

  const refusals: [line: string, errorClass: string, desc: RegExp | string][] = [
    [ask('fly'), 'CommandNotFound', 'The command fly has not been found'],
    [ask('query_migrate'), 'CommandNotFound', 'The command query_migrate has not been found'],
    [ask('query-status', { verbose: true }), 'GenericError', "Parameter 'verbose' is unexpected"],
    [
      ask('migrate', { uri: 5 }),
      'GenericError',
      /^Invalid parameter type for 'uri', expected: string/,
    ],
    [ask('migrate', {}), 'GenericError', "need either 'uri' or 'channels' argument"],
    [ask('migrate', { uri: 'foo:bar' }), 'GenericError', 'unknown migration protocol: foo:bar'],
    [ask('migrate', { uri: 'tcp:127.0.0.1' }), 'GenericError', /tcp:HOST:PORT/],
    [ask('migrate', { uri: 'tcp:127.0.0.1:1', resume: true }), 'GenericError', /Cannot resume/],
    [
      ask('migrate-incoming', { uri: 'tcp:127.0.0.1:0' }),
      'GenericError',
      "'-incoming' was not specified on the command line",
    ],
    [
      ask('migrate-start-postcopy'),
      'GenericError',
      'Enable postcopy with migrate_set_capability before the start of migration',
    ],
    [
      ask('migrate-set-capabilities', { capabilities: [{ capability: 'foo', state: true }] }),
      'GenericError',
      "Parameter 'capability' does not accept value 'foo'",
    ],
    [
      ask('migrate-set-capabilities', {
        capabilities: [
          { capability: 'events', state: true },
          { capability: 'x-colo', state: true },
        ],
      }),
      'GenericError',
      /'x-colo' is not supported by this host/,
    ],
    [
      ask('migrate-set-capabilities', { capabilities: [{ capability: 'events' }] }),
      'GenericError',
      /Parameter '.*state' is missing/,
    ],
    [
      ask('migrate-set-parameters', { 'max-bandwidth': 1, 'downtime-limit': 2_000_001 }),
      'GenericError',
      "Parameter 'downtime_limit' expects an integer in the range of 0 to (2000 * 1000) ms",
    ],
    [
      ask('migrate-set-parameters', { 'max-bandwidth': 'fast' }),
      'GenericError',
      "Parameter 'max-bandwidth' expects uint64",
    ],
    [
      ask('migrate-set-parameters', { 'x-checkpoint-delay': 4 }),
      'GenericError',
      /'x-checkpoint-delay' is not supported by this host/,
    ],
    [ask('migrate-set-parameters', { warp: 1 }), 'GenericError', "Parameter 'warp' is unexpected"],
    ['{"execute": "query-status"', 'GenericError', /JSON parse error/],
    ['[]', 'GenericError', /QMP input must be a JSON object/],
  ];
  test.each(refusals)('refuses %s and changes nothing', async (line, errorClass, desc) => {
    const before = await settings();
    // A broken line ends at the next one, so that the answer does not wait for more.
    const lines = line.startsWith('{"execute": "query-status"') ? [`${line}]`] : [line];
    const [answer] = await sendLines(host.path, lines);
    expect(answer).toEqual({
      error: {
        class: errorClass,
        desc: typeof desc === 'string' ? desc : expect.stringMatching(desc),
      },
    });
    expect(await settings()).toEqual(before);
  });

  test('an address that refuses the connection fails the migration, not the guest', async () => {
    const { client } = host;
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    const already = host.events.length;
    await client.execute('migrate', { uri: 'tcp:127.0.0.1:1' });
    const { 'error-desc': why } = await untilStatus(host, 'failed');
    expect(why).toMatch(/^tcp:127\.0\.0\.1:1 refused the connection/);
    expect(host.events.slice(already)).toEqual(['MIGRATION setup', 'MIGRATION failed']);
    await expectGuestRuns(host);
  });

  test('has events only when they are wanted', async () => {
    const { client } = host;
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: false }],
    });
    const already = host.events.length;
    await client.execute('migrate', { uri: 'tcp:127.0.0.1:1' });
    await untilStatus(host, 'failed');
    expect(host.events.slice(already)).toEqual([]);
  });
});

describe('while a migration is under way', () => {
  /** A destination that takes the connection and everything sent, and says nothing. */
  let silent: Server;
  let uri: string;
  beforeAll(async () => {
    const path = await lab.path('silent');
    silent = createServer((socket) => socket.on('error', () => {}).resume());
    await new Promise<void>((resolve) => silent.listen(path, resolve));
    uri = `unix:${path}`;
  });
  afterAll(() => new Promise((resolve) => silent.close(resolve)));

  test('another one, and other capabilities, are refused; parameters are taken; it can be cancelled', async () => {
    const host = await lab.host(CALM);
    const { client } = host;
    await client.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'return-path', state: true },
      ],
    });
    await client.execute('migrate-set-parameters', { 'max-bandwidth': 1 << 20 });
    await client.execute('migrate', { uri });
    const info = await untilStatus(host, 'active');
    expect(Object.keys(info).sort()).toEqual([
      ...['expected-downtime', 'ram', 'setup-time', 'status', 'total-time'],
    ]);
    expect(Object.keys(info.ram ?? {}).sort()).toEqual([
      ...['dirty-pages-rate', 'dirty-sync-count', 'dirty-sync-missed-zero-copy', 'downtime-bytes'],
      ...['duplicate', 'mbps', 'multifd-bytes', 'normal', 'normal-bytes', 'page-size'],
      ...['pages-per-second', 'postcopy-bytes', 'postcopy-requests', 'precopy-bytes', 'remaining'],
      ...['total', 'transferred'],
    ]);
    expect(info.ram).toMatchObject({ total: 24 << 20, 'page-size': 4096, 'dirty-sync-count': 1 });
    const answers = await sendLines(host.path, [
      ask('migrate', { uri }),
      ask('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: false }] }),
      ask('migrate-start-postcopy'),
      ask('x-wherry-handover'),
      ask('migrate-set-parameters', { 'max-bandwidth': 2 << 20 }),
      ask('migrate_cancel'),
    ]);
    const refused = (desc: string) => ({ error: { class: 'GenericError', desc } });
    expect(answers).toEqual([
      refused("There's a migration process in progress"),
      refused("There's a migration process in progress"),
      refused('Enable postcopy with migrate_set_capability before the start of migration'),
      refused("There's a migration process in progress"),
      { return: {} },
      { return: {} },
    ]);
    await untilStatus(host, 'cancelled');
    expect(host.events).toEqual([
      ...['MIGRATION setup', 'MIGRATION_PASS 1', 'MIGRATION active'],
      ...['MIGRATION cancelling', 'MIGRATION cancelled'],
    ]);
    await expectGuestRuns(host);
    await client.execute('migrate_cancel'); // with nothing to cancel it does nothing
    await expectGuestRuns(host);
  });

  test('a guest may be stopped and go on', async () => {
    const host = await lab.host(CALM);
    await host.client.execute('migrate-set-parameters', { 'max-bandwidth': 1 << 20 });
    await host.client.execute('migrate', { uri });
    await untilStatus(host, 'active');
    await host.client.execute('stop');
    await host.client.execute('cont');
    expect(host.events).toEqual(['STOP', 'RESUME']);
    await expectGuestRuns(host);
    await host.client.execute('migrate_cancel');
    await untilStatus(host, 'cancelled');
  });
});

describe('a host that waits for a guest', () => {
  const own = new Lab();
  afterEach(() => own.close());

  test('refuses what only a guest can do, and a second migration', async () => {
    const host = await own.host([...CALM, '--incoming', 'defer']);
    const refused = (desc: string | RegExp) => ({
      error: {
        class: 'GenericError',
        desc: typeof desc === 'string' ? desc : expect.stringMatching(desc),
      },
    });
    const { port, close } = await takenPort();
    expect(
      await sendLines(host.path, [
        ask('query-status'),
        ask('query-migrate'),
        ask('migrate', { uri: 'tcp:127.0.0.1:1' }),
        ask('migrate-incoming', {}),
        ask('migrate-incoming', { uri: 'foo:bar' }),
        ask('migrate-incoming', { uri: `tcp:127.0.0.1:${port}` }),
        ask('migrate-incoming', { uri: 'tcp:127.0.0.1:0' }), // the failures before do not count
        ask('migrate-incoming', { uri: 'tcp:127.0.0.1:0' }),
        ask('stop'),
        ask('cont'),
      ]),
    ).toEqual([
      { return: { running: false, status: 'inmigrate' } },
      { return: {} },
      refused('Guest is waiting for an incoming migration'),
      refused("need either 'uri' or 'channels' argument"),
      refused('unknown migration protocol: foo:bar'),
      refused(/is in use/),
      { return: {} },
      refused('The incoming migration has already been started'),
      { return: {} },
      { return: {} },
    ]);
    close();
    const info = await host.client.execute('query-migrate');
    expect(info).toMatchObject({ status: 'setup', 'socket-address': [{ type: 'inet' }] });
    expect(await host.client.execute('query-status')).toEqual({
      running: false,
      status: 'inmigrate',
    });
  });

  test('quit ends it: SHUTDOWN, then the process', async () => {
    const host = await own.host([...CALM, '--incoming', 'tcp:127.0.0.1:0']);
    await host.client.execute('quit');
    expect(await host.process.ended).toMatchObject({ code: 0, stderr: '' });
    expect(host.events).toEqual(['SHUTDOWN']);
  });
});

async function takenPort(): Promise<{ port: number; close: () => void }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, close: () => server.close() };
}
