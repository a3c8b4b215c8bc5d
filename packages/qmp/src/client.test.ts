import { afterEach, describe, expect, it, vi } from 'vitest';
import { createChannelPair, type QmpChannel } from './channel.ts';
import { QmpClient } from './client.ts';
import { type MigrationSchema, migrationSchema } from './migration-schema.ts';
import { QmpCommandError } from './qmp-error.ts';
import { QmpServer } from './server.ts';

const version = { qemu: { major: 11, minor: 1, micro: 0 }, package: '' };

function startServer(): QmpServer<MigrationSchema> {
  return new QmpServer({
    schema: migrationSchema,
    version,
    capabilities: ['oob'],
    commands: {
      'query-migrate': () => ({ status: 'active', 'total-time': 2n ** 60n + 1n }),
      'query-status': () => ({ running: true, status: 'running' }),
      'migrate-pause': (_args, { isOob }) => {
        throw new QmpCommandError('GenericError', `not now, oob ${isOob}`);
      },
      stop: () => new Promise(() => {}),
    },
  });
}

async function connect(options = {}) {
  const server = startServer();
  const [near, far] = createChannelPair();
  server.accept(far);
  const client = await QmpClient.connect(near, options);
  return { server, client, far };
}

const GREETING = JSON.stringify({ QMP: { version, capabilities: [] } });

/** A server that only says what it is told to; answers negotiation unless it is mute. */
function scripted(greeting: string, isMute = false): { near: QmpChannel; far: QmpChannel } {
  const [near, far] = createChannelPair();
  far.onClose(() => {});
  far.onData((text) => {
    if (!isMute && String(text).includes('qmp_capabilities')) far.send('{"return": {}, "id": 1}');
  });
  far.send(greeting);
  return { near, far };
}

afterEach(() => {
  vi.useRealTimers();
});

describe('QmpClient.connect', () => {
  it('takes the greeting and negotiates', async () => {
    const { client } = await connect();
    expect(client.greeting).toEqual({ version, capabilities: ['oob'] });
  });

  it('passes over an event that comes before the greeting', async () => {
    const { near } = scripted(`{"event": "MIGRATION", "data": {"status": "setup"}} ${GREETING}`);
    expect((await QmpClient.connect(near)).greeting.capabilities).toEqual([]);
  });

  it('rejects when the server does not offer a capability', async () => {
    const server = new QmpServer({ schema: migrationSchema, version, commands: {} });
    const [near, far] = createChannelPair();
    server.accept(far);
    await expect(QmpClient.connect(near, { enable: ['oob'] })).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      desc: 'Capability oob not available',
    });
  });

  it.each([
    ['SSH-2.0-OpenSSH_9.2\r\n', 0],
    ['{"hello": 1}', 0],
    [' [1]', 1],
  ])('rejects %j as no QMP', async (text, offset) => {
    const { near } = scripted(text);
    await expect(QmpClient.connect(near)).rejects.toMatchObject({ code: 'PROTOCOL', offset });
  });

  it('times out without a greeting, and without a reply', async () => {
    vi.useFakeTimers();
    const silent = QmpClient.connect(scripted('', true).near, { timeoutMs: 500 });
    const mute = QmpClient.connect(scripted(GREETING, true).near, { timeoutMs: 500 });
    const expectation = Promise.all([
      expect(silent).rejects.toMatchObject({ code: 'TIMEOUT' }),
      expect(mute).rejects.toMatchObject({ code: 'TIMEOUT' }),
    ]);
    await vi.advanceTimersByTimeAsync(500);
    await expectation;
  });

  it('can be aborted', async () => {
    const controller = new AbortController();
    const pending = QmpClient.connect(scripted('').near, { signal: controller.signal });
    controller.abort();
    await expect(pending).rejects.toMatchObject({ code: 'ABORTED' });
    const late = QmpClient.connect(scripted('').near, { signal: AbortSignal.abort() });
    await expect(late).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('rejects when the connection ends before the greeting', async () => {
    const { near, far } = scripted('');
    const pending = QmpClient.connect(near);
    far.close();
    await expect(pending).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
  });
});

describe('QmpClient.execute', () => {
  it('resolves to what the command returns, every digit of it', async () => {
    const { client } = await connect();
    const [info, status] = await Promise.all([
      client.execute('query-migrate'),
      client.execute('query-status'),
    ]);
    expect(info).toEqual({ status: 'active', 'total-time': 2n ** 60n + 1n });
    expect(status.running).toBe(true);
  });

  it("rejects with the server's class and text", async () => {
    const { client } = await connect({ enable: ['oob'] });
    await expect(client.execute('nope')).rejects.toEqual(
      new QmpCommandError('CommandNotFound', 'The command nope has not been found'),
    );
    const oob = client.execute('migrate-pause', {}, { oob: true });
    await expect(oob).rejects.toMatchObject({ desc: 'not now, oob true' });
  });

  it('overtakes a running command out of band', async () => {
    const { client } = await connect({ enable: ['oob'] });
    const stopped = client.execute('stop');
    await expect(client.execute('migrate-pause', {}, { oob: true })).rejects.toThrow('not now');
    client.close();
    await expect(stopped).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
  });

  it('matches replies by id and drops those that nobody waits for', async () => {
    const { near, far } = scripted(GREETING);
    const client = await QmpClient.connect(near);
    const [first, second] = [client.execute('a'), client.execute('b')];
    far.send('{"return": "late", "id": 1}{"return": 0, "id": "x"}');
    far.send('{"return": "b", "id": 3}\n{"return": "a", "id": 2}\n');
    expect(await Promise.all([first, second])).toEqual(['a', 'b']);
  });

  it('times out, is aborted, and goes on', async () => {
    vi.useFakeTimers();
    const { near, far } = scripted(GREETING);
    const client = await QmpClient.connect(near);
    const late = expect(client.execute('a', {}, { timeoutMs: 10 })).rejects.toMatchObject({
      code: 'TIMEOUT',
      message: 'no reply to a came within 10 ms',
    });
    await vi.advanceTimersByTimeAsync(10);
    await late;
    const signal = AbortSignal.abort('enough');
    await expect(client.execute('b', {}, { signal })).rejects.toMatchObject({
      code: 'ABORTED',
      cause: 'enough',
    });
    const third = client.execute('c');
    far.send('{"return": 1, "id": 2}{"return": 3, "id": 3}');
    expect(await third).toBe(3);
  });

  it('rejects what is pending and what comes later once the connection is lost', async () => {
    const { client, far } = await connect();
    const stopped = client.execute('stop');
    far.close();
    await expect(stopped).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    await expect(client.execute('stop')).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    await expect(client.waitForEvent('STOP')).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    expect(await client.closed).toMatchObject({ code: 'CONNECTION_CLOSED' });
  });

  it.each(['[1]', '{"neither": 1}', '{"error": {"class": "GenericError", "desc": "x"}}', '@'])(
    'ends the connection at %s',
    async (text) => {
      const { near, far } = scripted(GREETING);
      const client = await QmpClient.connect(near);
      const pending = client.execute('a');
      far.send(text);
      await expect(pending).rejects.toMatchObject({
        code: 'PROTOCOL',
        expected: expect.any(String),
        found: expect.any(String),
      });
    },
  );

  it('rejects arguments that have no JSON form', async () => {
    const { client } = await connect();
    const pending = client.execute('anything', { callback: () => {} });
    await expect(pending).rejects.toMatchObject({ code: 'NOT_JSON' });
  });
});

describe('events', () => {
  it('come to the listeners of their name and of all', async () => {
    const { client, server } = await connect();
    const [stop, all] = [vi.fn(), vi.fn()];
    const remove = client.on('STOP', stop);
    client.on('event', all);
    server.emit('MIGRATION', { status: 'setup' });
    server.emit('STOP');
    await client.execute('query-status');
    remove();
    server.emit('STOP');
    await client.execute('query-status');
    expect(stop).toHaveBeenCalledOnce();
    expect(all.mock.calls.map(([event]) => event.event)).toEqual(['MIGRATION', 'STOP', 'STOP']);
  });

  it('can be waited for', async () => {
    const { client, server } = await connect();
    const completed = client.waitForEvent('MIGRATION', ({ data }) => data.status === 'completed');
    server.emit('MIGRATION', { status: 'active' });
    server.emit('MIGRATION', { status: 'completed' });
    expect((await completed).data).toEqual({ status: 'completed' });
    const controller = new AbortController();
    const never = client.waitForEvent('STOP', () => true, { signal: controller.signal });
    controller.abort();
    await expect(never).rejects.toMatchObject({ code: 'ABORTED' });
    const failing = client.waitForEvent('STOP', () => {
      throw new RangeError('bad predicate');
    });
    server.emit('STOP');
    await expect(failing).rejects.toThrow('bad predicate');
  });

  it('can be iterated until the client closes', async () => {
    const { client, server } = await connect();
    const events = client.events('MIGRATION_PASS');
    server.emit('MIGRATION_PASS', { pass: 1 });
    server.emit('STOP');
    server.emit('MIGRATION_PASS', { pass: 2 });
    await client.execute('query-status');
    client.close();
    const passes = [];
    for await (const event of events) passes.push(event.data.pass);
    expect(passes).toEqual([1, 2]);
  });

  it('make the loop throw when the connection is lost', async () => {
    const { client, far } = await connect();
    const next = client.events().next();
    far.close();
    await expect(next).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    await expect(client.events().next()).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
  });

  it('make the loop throw when too many are left unread', async () => {
    const { near, far } = scripted(GREETING);
    const client = await QmpClient.connect(near);
    const events = client.events('A');
    const text = '{"event": "A", "timestamp": {"seconds": 0, "microseconds": 0}}';
    far.send(text.repeat(10_001));
    await new Promise((resolve) => setTimeout(resolve));
    let count = 0;
    const readEvents = async () => {
      for await (const event of events) count += event.event.length;
    };
    await expect(readEvents()).rejects.toMatchObject({ code: 'EVENT_OVERFLOW' });
    expect(count).toBe(10_000);
  });
});
