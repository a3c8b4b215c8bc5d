import { spawn, spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, listen, TransportError } from '../src/index.ts';
import {
  pattern,
  readAll,
  type TestTls,
  testFolder,
  testListener,
  testPair,
  testTls,
} from './channel.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const bytes = (value: string): Uint8Array => Buffer.from(value);
const kinds = ['tcp', 'tcp6', 'unix', 'tls x509', 'tls psk', 'tls over unix'] as const;

function address(kind: (typeof kinds)[number]): string {
  if (kind.endsWith('unix')) return `unix:${join(testFolder(), 'socket')}`;
  return kind === 'tcp6' ? 'tcp:[::1]:0' : 'tcp:127.0.0.1:0';
}

async function tlsOf(kind: (typeof kinds)[number]): Promise<TestTls | undefined> {
  if (!kind.startsWith('tls')) return undefined;
  return testTls(kind === 'tls psk' ? 'psk' : 'good');
}

describe.each(kinds)('%s', (kind) => {
  it('carries bytes both ways, at the same time', async () => {
    const [a, b] = await testPair(address(kind), await tlsOf(kind));
    const there = pattern(3_000_001, 7);
    const back = pattern(2_000_003, 9);
    const send = async (to: typeof a, data: Uint8Array): Promise<void> => {
      await to.write(data);
      await to.end();
    };
    const [atB, atA] = await Promise.all([readAll(b), readAll(a), send(a, there), send(b, back)]);
    expect(atB.equals(there)).toBe(true);
    expect(atA.equals(back)).toBe(true);
  });

  it('keeps the other direction open after an end', async () => {
    const [a, b] = await testPair(address(kind), await tlsOf(kind));
    await a.write(bytes('ping'));
    await a.end();
    expect(text(await readAll(b))).toBe('ping');
    expect(await b.read(new Uint8Array(1))).toBe(0);
    await b.write(bytes('pong'));
    await b.end();
    expect(text(await readAll(a))).toBe('pong');
    await expect(a.write(bytes('x'))).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('destroy rejects the read and the write under way with its reason, once', async () => {
    const [a, b] = await testPair(address(kind), await tlsOf(kind));
    const reason = new Error('the test wants it');
    const read = a.read(new Uint8Array(10));
    const write = a.write(new Uint8Array(64 * 1024 * 1024));
    a.destroy(reason);
    a.destroy(new Error('too late'));
    await expect(read).rejects.toBe(reason);
    await expect(write).rejects.toBe(reason);
    await expect(a.read(new Uint8Array(1))).rejects.toBe(reason);
    await expect(a.write(new Uint8Array(1))).rejects.toBe(reason);
    await expect(a.end()).rejects.toBe(reason);
    // What had been sent, then the end or the loss of the connection: never a hang.
    await readAll(b).catch((error: unknown) => expect(error).toBeInstanceOf(TransportError));
  });

  it('says that the connection is lost when writing to a peer that is gone', async () => {
    const [a, b] = await testPair(address(kind), await tlsOf(kind));
    b.destroy();
    const write = async (): Promise<void> => {
      for (;;) await a.write(new Uint8Array(1024 * 1024));
    };
    await expect(write()).rejects.toMatchObject({
      name: 'TransportError',
      code: 'CONNECTION_LOST',
    });
  });

  it('serves several connections of one listener in order', async () => {
    const tls = await tlsOf(kind);
    const listener = await testListener(address(kind), tls);
    const clients = [];
    for (const name of ['main', 'preempt', 'third']) {
      const client = await connect(listener.uri, { tls: tls?.client });
      onTestFinished(() => client.destroy());
      await client.write(bytes(name));
      clients.push(client);
    }
    for (const name of ['main', 'preempt', 'third']) {
      const server = await listener.accept();
      onTestFinished(() => server.destroy());
      const into = new Uint8Array(100);
      expect(text(into.subarray(0, await server.read(into)))).toBe(name);
    }
  });

  it('allows one read and one write at a time', async () => {
    const [a, b] = await testPair(address(kind), await tlsOf(kind));
    const first = a.read(new Uint8Array(1));
    await expect(a.read(new Uint8Array(1))).rejects.toMatchObject({ code: 'BUSY' });
    const write = a.write(new Uint8Array(32 * 1024 * 1024));
    await expect(a.write(new Uint8Array(1))).rejects.toMatchObject({ code: 'BUSY' });
    await b.write(bytes('x'));
    expect(await first).toBe(1);
    a.destroy();
    await expect(write).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('buffers', () => {
  it.each([
    ['plain', undefined, (pages: number) => new WebAssembly.Memory({ initial: pages }).buffer],
    [
      'shared',
      undefined,
      (pages: number) =>
        new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer,
    ],
    [
      'shared, with TLS,',
      'good',
      (pages: number) =>
        new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer,
    ],
  ])('reads into and writes from views of %s WebAssembly memory', async (_, tls, memory) => {
    const [a, b] = await testPair(
      'tcp:127.0.0.1:0',
      tls === undefined ? undefined : await testTls(tls),
    );
    const data = pattern(1_500_001);
    const from = new Uint8Array(memory(64), 4097, data.length);
    from.set(data);
    const storage = new Uint8Array(memory(64));
    storage.fill(0xee);
    const into = storage.subarray(65537, 65537 + data.length);
    const sent = a.write(from).then(() => a.end());
    let got = 0;
    for (;;) {
      const count = await b.read(into.subarray(got));
      got += count;
      if (count === 0) break;
    }
    await sent;
    expect(got).toBe(data.length);
    expect(Buffer.compare(into, data)).toBe(0);
    expect(storage[65536]).toBe(0xee);
    expect(storage[65537 + data.length]).toBe(0xee);
  });

  it.each([
    ['plain', undefined],
    ['TLS', 'good'],
  ])('keeps every byte in order, whatever the sizes of writes and reads: %s', async (_, tls) => {
    const uri = `unix:${join(testFolder(), 's')}`;
    const [a, b] = await testPair(uri, tls === undefined ? undefined : await testTls(tls));
    const data = pattern(24 * 1024 * 1024 + 13);
    const sizes = [1, 13, 32768, 32767, 32769, 4096, 1_000_003, 65536, 2_500_000, 7];
    const send = async (): Promise<void> => {
      for (let at = 0, i = 0; at < data.length; i++) {
        const size = sizes[i % sizes.length] ?? 1;
        await a.write(data.subarray(at, at + size));
        at += size;
      }
      await a.end();
    };
    const sending = send();
    const got = Buffer.alloc(data.length);
    let at = 0;
    for (let i = 0; ; i++) {
      const room = Math.min(sizes[(i * 3 + 1) % sizes.length] ?? 1, got.length - at);
      const count = await b.read(room === 0 ? new Uint8Array(1) : got.subarray(at, at + room));
      if (count === 0) break;
      at += count;
    }
    await sending;
    expect(at).toBe(data.length);
    expect(got.equals(data)).toBe(true);
  });

  it('lets timers run while data keeps coming', async () => {
    const [a, b] = await testPair('tcp:127.0.0.1:0');
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    onTestFinished(() => clearInterval(timer));
    const send = async (): Promise<void> => {
      while (ticks < 20) await a.write(new Uint8Array(1024 * 1024));
      await a.end();
    };
    const [, got] = await Promise.all([send(), readAll(b, new Uint8Array(2 * 1024 * 1024))]);
    expect(ticks).toBeGreaterThanOrEqual(20);
    expect(got.length % (1024 * 1024)).toBe(0);
  });

  it('keeps what comes while nobody reads, and its end', async () => {
    const [a, b] = await testPair('tcp:127.0.0.1:0');
    const into = new Uint8Array(100);
    await a.write(bytes('one'));
    expect(await b.read(into)).toBe(3);
    await a.write(bytes('two'));
    await sleep(20); // it is at b, most likely
    await a.write(bytes('three'));
    await a.end();
    await sleep(20);
    expect(text(await readAll(b))).toBe('twothree');
  });

  it('reads nothing more into its memory than one buffer while nobody reads', async () => {
    const [a, b] = await testPair('tcp:127.0.0.1:0');
    const into = new Uint8Array(1);
    await a.write(new Uint8Array(1));
    expect(await b.read(into)).toBe(1);
    let isWritten = false;
    const much = a.write(pattern(64 * 1024 * 1024, 3)).then(() => {
      isWritten = true;
    });
    await sleep(50);
    expect(isWritten).toBe(false);
    const got = readAll(b);
    await much;
    await a.end();
    expect((await got).equals(pattern(64 * 1024 * 1024, 3))).toBe(true);
  });

  it('delivers what came before a reset, then says that the connection is lost', async () => {
    const listener = await testListener('tcp:127.0.0.1:0');
    const port = Number(listener.uri.split(':').at(-1));
    const raw = new Socket();
    raw.on('error', () => {});
    const connected = new Promise<void>((resolve) => raw.connect(port, '127.0.0.1', resolve));
    const server = await listener.accept();
    await connected;
    const into = new Uint8Array(100);
    await new Promise((resolve) => raw.write('abc', resolve));
    expect(await server.read(into)).toBe(3);
    const read = server.read(into);
    raw.resetAndDestroy();
    await expect(read).rejects.toMatchObject({ code: 'CONNECTION_LOST' });
  });
});

describe('listen', () => {
  it('says the port that it got, and that it is in use for the next one', async () => {
    const listener = await testListener('tcp:127.0.0.1:0');
    expect(listener.uri).toMatch(/^tcp:127\.0\.0\.1:[1-9]\d*$/);
    await expect(listen(listener.uri)).rejects.toMatchObject({
      code: 'ADDRESS_IN_USE',
      message: expect.stringContaining('Choose another address'),
    });
  });

  it('takes the first free port up to to=', async () => {
    const first = await testListener('tcp:127.0.0.1:0');
    const port = Number(first.uri.split(':').at(-1));
    const second = await testListener(`tcp:127.0.0.1:${port},to=${Math.min(65535, port + 50)}`);
    expect(Number(second.uri.split(':').at(-1))).toBeGreaterThan(port);
  });

  it.each(['tcp::0', 'tcp:0:0', 'tcp:localhost:0', 'tcp::0,ipv4=on', 'tcp::0,keep-alive=on'])(
    'listens on %s and is reached there',
    async (uri) => {
      const [a, b] = await testPair(uri);
      await a.write(bytes('x'));
      await a.end();
      expect(text(await readAll(b))).toBe('x');
    },
  );

  it('listens on many addresses at once', async () => {
    const pairs = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        testPair(i % 2 === 0 ? 'tcp:127.0.0.1:0' : `unix:${join(testFolder(), 's')}`),
      ),
    );
    const texts = await Promise.all(
      pairs.map(async ([a, b], i) => {
        await a.write(bytes(`connection ${i}`));
        await a.end();
        return text(await readAll(b));
      }),
    );
    expect(texts).toEqual(pairs.map((_, i) => `connection ${i}`));
  });

  it('removes its unix socket when it closes, and ends those who wait', async () => {
    const path = join(testFolder(), 'socket');
    const listener = await listen(`unix:${path}`);
    expect(existsSync(path)).toBe(true);
    const accept = listener.accept();
    await Promise.all([
      expect(accept).rejects.toMatchObject({ code: 'ABORTED' }),
      listener.close(),
      listener.close(),
    ]);
    expect(existsSync(path)).toBe(false);
    await expect(listener.accept()).rejects.toMatchObject({ code: 'ABORTED' });
  });

  it('takes over a unix socket that a dead process left, and no other', async () => {
    const path = join(testFolder(), 'socket');
    const live = await testListener(`unix:${path}`);
    await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    await live.close();

    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(existsSync(path)).toBe(true);
    const [a, b] = await testPair(`unix:${path}`);
    await a.end();
    expect(await b.read(new Uint8Array(1))).toBe(0);
  });

  it('leaves a file that is no socket alone', async () => {
    const path = join(testFolder(), 'notes.txt');
    writeFileSync(path, 'precious');
    await expect(listen(`unix:${path}`)).rejects.toMatchObject({ code: 'ADDRESS_IN_USE' });
    expect(existsSync(path)).toBe(true);
  });

  it('closes when its signal aborts, and drops who had not been accepted', async () => {
    const abort = new AbortController();
    const listener = await listen('tcp:127.0.0.1:0', { signal: abort.signal });
    const client = await connect(listener.uri);
    onTestFinished(() => client.destroy());
    await client.write(bytes('x'));
    await new Promise((resolve) => setTimeout(resolve, 20));
    abort.abort();
    await expect(client.read(new Uint8Array(1)).then(assertEnd)).rejects.toMatchObject({
      code: 'CONNECTION_LOST',
    });
    await expect(listener.accept()).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(listen('tcp:127.0.0.1:0', { signal: abort.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
  });

  it('gives up one accept by its signal and serves the next', async () => {
    const listener = await testListener('tcp:127.0.0.1:0');
    const abort = new AbortController();
    const accept = listener.accept({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(accept).rejects.toMatchObject({ code: 'ABORTED', cause: new Error('enough') });
    const [client, server] = await Promise.all([connect(listener.uri), listener.accept()]);
    client.destroy();
    server.destroy();
  });

  it('refuses an address that this machine does not have', async () => {
    await expect(listen('tcp:192.0.2.1:0')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(listen('unix:/nowhere/at/all')).rejects.toBeInstanceOf(TransportError);
  });
});

describe('connect', () => {
  it('says what to do when nobody listens', async () => {
    const listener = await listen('tcp:127.0.0.1:0');
    await listener.close();
    await expect(connect(listener.uri)).rejects.toMatchObject({
      code: 'CONNECTION_REFUSED',
      message: expect.stringContaining('Start the other side first'),
    });
    await expect(connect(`unix:${join(testFolder(), 'none')}`)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('refuses URIs that name no one port', async () => {
    await expect(connect('tcp:127.0.0.1:0')).rejects.toMatchObject({ code: 'BAD_URI' });
    await expect(connect('tcp:127.0.0.1:1,to=2')).rejects.toMatchObject({ code: 'BAD_URI' });
  });

  it('gives up by its signal and after its time', async () => {
    const uri = await deafAddress();
    const abort = new AbortController();
    const attempt = connect(uri, { signal: abort.signal });
    setTimeout(() => abort.abort(), 10);
    await expect(attempt).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(connect(uri, { signal: abort.signal })).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(connect(uri, { timeoutMs: 20 })).rejects.toMatchObject({ code: 'TIMEOUT' });
  });
});

/** Makes a tcp address that answers no more: its process is stopped and its backlog is full. */
async function deafAddress(): Promise<string> {
  const script = `
    const server = require('node:net').createServer();
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port));`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const port = await new Promise<number>((resolve) => {
    child.stdout.once('data', (line: Buffer) => resolve(Number(line)));
  });
  child.kill('SIGSTOP');
  for (let i = 0; i < 4; i++) {
    const filler = new Socket().on('error', () => {}).connect(port, '127.0.0.1');
    onTestFinished(() => void filler.destroy());
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  return `tcp:127.0.0.1:${port}`;
}

function assertEnd(count: number): never {
  expect(count).toBe(0);
  throw new TransportError('CONNECTION_LOST', 'The peer ended its direction');
}
