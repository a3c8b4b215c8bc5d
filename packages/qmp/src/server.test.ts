import { describe, expect, it, vi } from 'vitest';
import type { QmpChannel } from './channel.ts';
import { migrationSchema } from './migration-schema.ts';
import { QmpCommandError } from './qmp-error.ts';
import { mergeSchemas } from './schema.ts';
import { QmpServer } from './server.ts';
import type { QmpServerLimits } from './server-session.ts';

/** A client's end that a test drives by hand: everything it sees is in `sent`. */
class ManualChannel implements QmpChannel {
  readonly sent: Record<string, unknown>[] = [];
  bufferedBytes = 0;
  isPaused = false;
  isClosed = false;
  isAborted = false;
  #data: (chunk: string) => void = () => {};
  #close: (error?: Error) => void = () => {};

  send(text: string): void {
    expect(text.endsWith('\r\n')).toBe(true);
    this.sent.push(JSON.parse(text));
  }
  onData(listener: (chunk: string) => void): void {
    this.#data = listener;
  }
  onClose(listener: (error?: Error) => void): void {
    this.#close = listener;
  }
  close(): void {
    this.isClosed = true;
  }
  abort(): void {
    this.isAborted = true;
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  receive(...messages: unknown[]): void {
    this.#data(messages.map((message) => JSON.stringify(message)).join(''));
  }
  hangUp(): void {
    this.#close();
  }
  /** The replies since the greeting and the negotiation. */
  get replies(): Record<string, unknown>[] {
    return this.sent.filter((message) => !('QMP' in message) && message['id'] !== 'hello');
  }
}

const schema = mergeSchemas(migrationSchema, {
  commands: {
    wait: { data: { name: 'str' } },
    'wait-oob': { data: { name: 'str' }, allowOob: true },
    fail: { data: { how: 'str' } },
    echo: { data: { value: 'any' }, returns: 'any' },
  },
});

function setUp(limits: QmpServerLimits = {}, enable: 'oob'[] = []) {
  const started: string[] = [];
  const gates = new Map<string, PromiseWithResolvers<void>>();
  const wait = async ({ name }: { name: string }): Promise<void> => {
    started.push(name);
    const gate = Promise.withResolvers<void>();
    gates.set(name, gate);
    await gate.promise;
  };
  const onDisconnect = vi.fn();
  const quitReplied = vi.fn();
  const server = new QmpServer({
    schema,
    version: { qemu: { major: 11, minor: 1, micro: 0 }, package: 'test' },
    capabilities: ['oob'],
    clock: { nowMs: () => 1_700_000_000_123.456, setTimer: () => () => {} },
    limits,
    onDisconnect,
    commands: {
      wait,
      'wait-oob': wait,
      fail: ({ how }) => {
        if (how === 'qmp') throw new QmpCommandError('DeviceNotFound', 'no such device');
        if (how === 'error') throw new TypeError('a bug');
        throw how;
      },
      echo: ({ value }) => value,
      quit: (_args, { afterReply }) => afterReply(quitReplied),
    },
  });
  const connect = async (): Promise<ManualChannel> => {
    const channel = new ManualChannel();
    server.accept(channel);
    channel.receive({ execute: 'qmp_capabilities', arguments: { enable }, id: 'hello' });
    await settle();
    return channel;
  };
  return { server, connect, started, gates, onDisconnect, quitReplied };
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
}

describe('QmpServer', () => {
  it('greets with version and capabilities', async () => {
    const { connect } = setUp();
    const channel = await connect();
    expect(channel.sent[0]).toEqual({
      QMP: {
        version: { qemu: { major: 11, minor: 1, micro: 0 }, package: 'test' },
        capabilities: ['oob'],
      },
    });
    expect(channel.sent[1]).toEqual({ return: {}, id: 'hello' });
  });

  it('answers query-version and query-commands by itself', async () => {
    const { connect } = setUp();
    const channel = await connect();
    channel.receive({ execute: 'query-version' }, { execute: 'query-commands' });
    await settle();
    expect(channel.replies[0]).toMatchObject({ return: { package: 'test' } });
    const names = (channel.replies[1]!['return'] as { name: string }[]).map(({ name }) => name);
    expect(names.sort()).toEqual([
      'echo',
      'fail',
      'qmp_capabilities',
      'query-commands',
      'query-version',
      'quit',
      'wait',
      'wait-oob',
    ]);
  });

  it('executes the commands of a client in order, one at a time, beside other clients', async () => {
    const { connect, started, gates } = setUp();
    const [first, second] = [await connect(), await connect()];
    const waitFor = (name: string) => ({ execute: 'wait', arguments: { name }, id: name });
    first.receive(waitFor('a'), waitFor('b'));
    second.receive(waitFor('c'));
    await settle();
    expect(started).toEqual(['a', 'c']);
    gates.get('a')!.resolve();
    await settle();
    expect(first.replies).toEqual([{ return: {}, id: 'a' }]);
    expect(started).toEqual(['a', 'c', 'b']);
    gates.get('b')!.resolve();
    await settle();
    expect(first.replies.map(({ id }) => id)).toEqual(['a', 'b']);
    expect(second.replies).toEqual([]);
  });

  it('turns whatever a handler throws into an error reply', async () => {
    const { connect } = setUp();
    const channel = await connect();
    for (const how of ['qmp', 'error', 'text'])
      channel.receive({ execute: 'fail', arguments: { how } });
    await settle();
    expect(channel.replies).toEqual([
      { error: { class: 'DeviceNotFound', desc: 'no such device' } },
      { error: { class: 'GenericError', desc: 'a bug' } },
      { error: { class: 'GenericError', desc: 'text' } },
    ]);
  });

  it('returns null as it is, and an empty object for nothing', async () => {
    const { connect } = setUp();
    const channel = await connect();
    channel.receive({ execute: 'echo', arguments: { value: null } }, { execute: 'quit' });
    await settle();
    expect(channel.replies).toEqual([{ return: null }, { return: {} }]);
  });

  it('answers a result that has no JSON form with an error', async () => {
    const bad = new QmpServer({
      schema,
      version: { qemu: { major: 1, minor: 0, micro: 0 }, package: '' },
      commands: { echo: () => Number.NaN },
    });
    const channel = new ManualChannel();
    bad.accept(channel);
    channel.receive({ execute: 'qmp_capabilities' });
    channel.receive({ execute: 'echo', arguments: { value: 1 } });
    await settle();
    expect(channel.sent.at(-1)).toEqual({
      error: { class: 'GenericError', desc: 'NaN has no JSON form' },
    });
  });

  it('sends events with the time to the clients that have negotiated', async () => {
    const { server, connect } = setUp();
    const channel = await connect();
    const fresh = new ManualChannel();
    server.accept(fresh);
    server.emit('STOP');
    server.emit('SHUTDOWN', { guest: false, reason: 'host-qmp-quit' });
    const timestamp = { seconds: 1_700_000_000, microseconds: 123_456 };
    expect(channel.replies).toEqual([
      { timestamp, event: 'STOP' },
      { timestamp, event: 'SHUTDOWN', data: { guest: false, reason: 'host-qmp-quit' } },
    ]);
    expect(fresh.sent).toHaveLength(1);
  });

  it('calls back after the reply has been sent', async () => {
    const { connect, quitReplied } = setUp();
    const channel = await connect();
    quitReplied.mockImplementation(() => expect(channel.replies).toEqual([{ return: {} }]));
    channel.receive({ execute: 'quit' });
    await settle();
    expect(quitReplied).toHaveBeenCalledOnce();
  });

  it('pauses a client while its command runs, and drops it when it floods all the same', async () => {
    const { connect, gates, onDisconnect } = setUp({ maxPendingInputBytes: 1000 });
    const channel = await connect();
    channel.receive({ execute: 'wait', arguments: { name: 'a' } });
    await settle();
    expect(channel.isPaused).toBe(true);
    gates.get('a')!.resolve();
    await settle();
    expect(channel.isPaused).toBe(false);
    channel.receive({ execute: 'wait', arguments: { name: 'b' } });
    channel.receive('x'.repeat(900));
    expect(channel.isAborted).toBe(false);
    channel.receive('x'.repeat(900));
    expect(channel.isAborted).toBe(true);
    expect(onDisconnect).toHaveBeenCalledExactlyOnceWith('input-overflow', undefined);
    gates.get('b')!.resolve();
    await settle();
    expect(channel.replies).toHaveLength(1);
  });

  it.each(['execute', 'exec-oob'])(
    'lets others have their turn between the requests of a flood of %s',
    async (key) => {
      const { connect } = setUp();
      const channel = await connect();
      channel.receive(...Array(1000).fill({ [key]: 'nope' }));
      await settle();
      expect(channel.replies.length).toBeGreaterThan(0);
      expect(channel.replies.length).toBeLessThan(500);
      await vi.waitFor(() => expect(channel.replies).toHaveLength(1000));
    },
  );

  it('drops a client that does not read what it is sent', async () => {
    const { server, connect, onDisconnect } = setUp({ maxPendingOutputBytes: 1000 });
    const channel = await connect();
    channel.bufferedBytes = 1001;
    server.emit('STOP');
    expect(channel.isAborted).toBe(true);
    expect(onDisconnect).toHaveBeenCalledExactlyOnceWith('output-overflow', undefined);
    expect(server.clientCount).toBe(0);
  });

  it('with oob, reads ahead of a running command up to the limit', async () => {
    const { connect, started, gates } = setUp({ maxQueuedCommands: 2 }, ['oob']);
    const channel = await connect();
    const oob = (name: string) => ({ 'exec-oob': 'wait-oob', arguments: { name }, id: name });
    const inBand = (name: string) => ({ execute: 'wait', arguments: { name }, id: name });
    channel.receive(inBand('a'), inBand('b'), oob('x'));
    await settle();
    expect(started).toEqual(['a', 'x']);
    gates.get('x')!.resolve();
    await settle();
    expect(channel.replies).toEqual([{ return: {}, id: 'x' }]);
    channel.receive(inBand('c'), oob('y'));
    await settle();
    expect(started).toEqual(['a', 'x']);
    expect(channel.isPaused).toBe(true);
    gates.get('a')!.resolve();
    await settle();
    expect(started).toEqual(['a', 'x', 'b', 'y']);
  });

  it('forgets the queued commands of a client that has gone', async () => {
    const { server, connect, started, gates, onDisconnect } = setUp();
    const channel = await connect();
    channel.receive({ execute: 'wait', arguments: { name: 'a' } });
    channel.receive({ execute: 'wait', arguments: { name: 'b' } });
    channel.hangUp();
    expect(server.clientCount).toBe(0);
    expect(onDisconnect).toHaveBeenCalledExactlyOnceWith('closed', undefined);
    gates.get('a')!.resolve();
    await settle();
    expect(started).toEqual(['a']);
    expect(channel.replies).toEqual([]);
  });

  it('cuts an error text that quotes long input', async () => {
    const { connect } = setUp();
    const channel = await connect();
    channel.receive({ execute: 'x'.repeat(100_000) });
    await settle();
    expect((channel.replies[0]!['error'] as { desc: string }).desc).toHaveLength(4096);
  });

  it('closes every client', async () => {
    const { server, connect, onDisconnect } = setUp();
    const channel = await connect();
    server.close();
    expect(channel.isClosed).toBe(true);
    expect(onDisconnect).toHaveBeenCalledExactlyOnceWith('server-closed', undefined);
  });

  it.each([
    ['nope', 'the schema has no command'],
    ['query-version', 'the server itself answers'],
  ])('refuses a handler for %s', (name, message) => {
    const version = { qemu: { major: 1, minor: 0, micro: 0 }, package: '' };
    expect(() => new QmpServer({ schema, version, commands: { [name]: () => {} } })).toThrow(
      expect.objectContaining({ code: 'SCHEMA', message: expect.stringContaining(message) }),
    );
  });
});
