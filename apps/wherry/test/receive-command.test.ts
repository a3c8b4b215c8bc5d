import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { contentsOf } from './kept-guest.ts';

const main = join(import.meta.dirname, '../src/main.ts');
let directory: string;
let file: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-receive-'));
  file = join(directory, 'kept.qevm');
});
afterEach(() => rmSync(directory, { recursive: true }));

/** `wherry receive` as a process. */
class Receiver implements AsyncDisposable {
  readonly #child;
  readonly #exited: Promise<number | null>;
  stdout = '';
  stderr = '';

  constructor(...args: readonly string[]) {
    this.#child = spawn(process.execPath, [main, 'receive', ...args]);
    this.#child.stdout.on('data', (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.#child.stderr.on('data', (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.#exited = once(this.#child, 'close').then(([code]) => code as number | null);
  }

  /** Waits until it listens; resolves to the TCP port, 0 for other sockets. */
  async port(): Promise<number> {
    for (;;) {
      const uri = /^Listening on (\S+)$/m.exec(this.stderr)?.[1];
      if (uri !== undefined) return Number(/:(\d+)$/.exec(uri)?.[1] ?? 0);
      const ended = await Promise.race([once(this.#child.stderr, 'data'), this.#exited]);
      if (!Array.isArray(ended)) throw new Error(`it ended: ${this.stderr}`);
    }
  }

  exit(): Promise<number | null> {
    return this.#exited;
  }

  interrupt(): void {
    this.#child.kill('SIGINT');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

async function send(port: number, bytes: Uint8Array): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(bytes);
  return socket;
}

describe('wherry receive', () => {
  test('keeps a stream, for its owner alone, and sums it up', async () => {
    const stream = smallStream();
    writeFileSync(file, 'an older one');
    await using receiver = new Receiver('tcp:127.0.0.1:0', file);
    (await send(await receiver.port(), stream)).end();
    expect(await receiver.exit()).toBe(0);
    expect(contentsOf(readFileSync(file))).toEqual(contentsOf(stream));
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readdirSync(directory)).toEqual(['kept.qevm']);
    expect(receiver.stdout).toContain('completed');
    expect(receiver.stdout).toMatch(/pages: full, zero +│ +2, 2 /);
  });

  test('replaces what a link points to, and prints JSON', async () => {
    const target = join(directory, 'target');
    writeFileSync(target, 'old');
    symlinkSync('target', file);
    await using receiver = new Receiver(`unix:${join(directory, 's')}`, file, '--json');
    await receiver.port();
    const socket = connect(join(directory, 's'));
    socket.end(smallStream());
    expect(await receiver.exit()).toBe(0);
    expect(contentsOf(readFileSync(target))).toEqual(contentsOf(smallStream()));
    expect(JSON.parse(receiver.stdout)).toMatchObject({
      ...{ status: 'completed', machineType: 'pc-q35-5.2', lengthBytes: smallStream().length },
      ...{ returnPath: false, vmdesc: true, devices: 1, trailingBytes: 0 },
      pages: { page: 2, zero: 2, xbzrle: 1, compress: 0 },
    });
    expect(readdirSync(directory).sort()).toEqual(['kept.qevm', 'target']);
  });

  test.each([
    ['exec', (path: string) => `exec:cat '${path}'`],
    ['file', (path: string) => `file:${path}`],
  ])('keeps a stream as a stream, each page once, from %s', async (_, uriOf) => {
    const input = join(directory, 'input');
    writeFileSync(input, smallStream());
    await using receiver = new Receiver(uriOf(input), file, '--format', 'stream');
    expect(await receiver.exit()).toBe(0);
    const kept = readFileSync(file);
    expect(contentsOf(kept)).toEqual(contentsOf(smallStream()));
    expect(kept.length).toBeLessThan(smallStream().length); // a page less, which came twice
    expect(readdirSync(directory).sort()).toEqual(['input', 'kept.qevm']);
  });

  test.each([
    ['nonsense', Buffer.from('GET / HTTP/1.0\r\n\r\n'), 'This is not a migration stream'],
    ['half a stream', smallStream().subarray(0, 5000), 'ends too early'],
    ['nothing', new Uint8Array(0), 'ends too early'],
  ])('keeps nothing of %s', async (_, bytes, message) => {
    writeFileSync(file, 'an older one');
    await using receiver = new Receiver('tcp:127.0.0.1:0', file);
    (await send(await receiver.port(), bytes)).end();
    expect(await receiver.exit()).toBe(1);
    expect(receiver.stderr).toContain(message);
    expect(receiver.stdout).toBe('');
    expect(readFileSync(file, 'latin1')).toBe('an older one');
    expect(readdirSync(directory)).toEqual(['kept.qevm']);
  });

  test('tells in JSON why nothing was kept', async () => {
    await using receiver = new Receiver('tcp:127.0.0.1:0', file, '--json');
    (await send(await receiver.port(), smallStream().subarray(0, 300))).end();
    expect(await receiver.exit()).toBe(1);
    expect(JSON.parse(receiver.stdout)).toMatchObject({
      status: 'failed',
      error: {
        code: 'UNEXPECTED_END',
        offset: 300,
        path: ['ram (part of section 2)', 'pc.ram', 'page 0x0'],
      },
    });
  });

  test('sends strangers away while it receives, and refuses multifd channels', async () => {
    const stream = smallStream();
    {
      await using receiver = new Receiver('tcp:127.0.0.1:0', file);
      const port = await receiver.port();
      const source = await send(port, stream.subarray(0, 100));
      const stranger = await send(port, Buffer.from('hello'));
      await once(stranger.resume(), 'close');
      source.end(stream.subarray(100));
      expect(await receiver.exit()).toBe(0);
    }
    rmSync(file);
    await using receiver = new Receiver('tcp:127.0.0.1:0', file);
    const port = await receiver.port();
    await send(port, stream.subarray(0, 100));
    await send(port, Uint8Array.of(0x11, 0x22, 0x33, 0x44));
    expect(await receiver.exit()).toBe(1);
    expect(receiver.stderr).toContain('multifd');
    expect(readdirSync(directory)).toEqual([]);
  });

  test.each([0, 100])('an interrupt after %i bytes leaves nothing', async (count) => {
    await using receiver = new Receiver('tcp:127.0.0.1:0', file);
    const port = await receiver.port();
    if (count > 0) await send(port, smallStream().subarray(0, count));
    receiver.interrupt();
    expect(await receiver.exit()).toBe(130);
    expect(receiver.stderr).toContain('Nothing was kept');
    expect(readdirSync(directory)).toEqual([]);
  });

  test.each<[string, () => string[]]>([
    ['not valid', () => ['carrier-pigeon:1', file]],
    ['tcp:HOST:PORT', () => ['tcp:127.0.0.1', file]],
    ['no such folder', () => ['tcp:127.0.0.1:0', join(directory, 'none', 'file')]],
    ['a directory', () => ['tcp:127.0.0.1:0', directory]],
    ['no regular file', () => ['tcp:127.0.0.1:0', '/dev/null']],
    ['missing required argument', () => ['tcp:127.0.0.1:0']],
  ])('calls it wrong usage: %s', async (message, args) => {
    await using receiver = new Receiver(...args());
    expect(await receiver.exit()).toBe(2);
    expect(receiver.stderr).toContain(message);
    expect(readdirSync(directory)).toEqual([]);
  });

  test('calls a port in use wrong usage', async () => {
    const server = createServer();
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as { port: number };
    await using receiver = new Receiver(`tcp:127.0.0.1:${port}`, file);
    expect(await receiver.exit()).toBe(2);
    expect(receiver.stderr).toContain('is in use');
    expect(readdirSync(directory)).toEqual([]);
    server.close();
  });
});
