import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { connect, listen, TransportError } from '../src/index.ts';
import { pattern, readAll, testFolder, testListener } from './channel.ts';

const bytes = (value: string): Uint8Array => Buffer.from(value);

describe('exec', () => {
  it('writes to a command and waits for it to end well', async () => {
    const path = join(testFolder(), 'out.gz');
    const data = pattern(5_000_001);
    const channel = await connect(`exec:sleep 0.1; gzip -1c > ${path}`);
    await channel.write(data);
    await channel.end();
    const plain = spawnSync('gzip', ['-dc', path], { maxBuffer: 1 << 26 }).stdout;
    expect(plain.equals(data)).toBe(true);
    expect(await channel.read(new Uint8Array(1))).toBe(0);
  });

  it('reads what a command writes', async () => {
    const path = join(testFolder(), 'in');
    const data = pattern(5_000_001);
    writeFileSync(path, data);
    const listener = await testListener(`exec:cat ${path}`);
    expect(listener.uri).toBe(`exec:cat ${path}`);
    const channel = await listener.accept();
    expect((await readAll(channel)).equals(data)).toBe(true);
    await expect(listener.accept()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('carries both directions of one command at once, in shared memory too', async () => {
    const channel = await connect('exec:cat');
    const data = pattern(3_000_001);
    const from = new Uint8Array(new SharedArrayBuffer(data.length));
    from.set(data);
    const sending = channel.write(from).then(() => channel.end());
    const got = await readAll(channel, new Uint8Array(new SharedArrayBuffer(1 << 20)));
    await sending;
    expect(got.equals(data)).toBe(true);
  });

  it('does not wait for the end of a command whose output nobody has read', async () => {
    const channel = await connect('exec:cat; head -c 3000000 /dev/zero');
    await channel.write(bytes('abc'));
    await channel.end();
    expect((await readAll(channel)).length).toBe(3_000_003);
  });

  it('says what a failing command said', async () => {
    const reading = await (
      await testListener('exec:echo first; echo no luck >&2; exit 3')
    ).accept();
    await expect(readAll(reading)).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: expect.stringMatching(/exit status 3.*no luck/s),
    });
    const ending = await connect('exec:cat > /dev/null; echo disk full >&2; exit 1');
    await ending.write(bytes('abc'));
    await expect(ending.end()).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: expect.stringMatching(/exit status 1.*disk full/s),
    });
  });

  it('says why it takes no more', async () => {
    const write = async (command: string): Promise<void> => {
      const channel = await connect(`exec:${command}`);
      for (;;) await channel.write(new Uint8Array(1024 * 1024));
    };
    await expect(write('head -c 10; echo enough >&2; exit 7')).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: expect.stringMatching(/exit status 7.*enough/s),
    });
    await expect(write('head -c 10 > /dev/null')).rejects.toMatchObject({
      code: 'COMMAND_FAILED',
      message: expect.stringContaining('before it had read everything'),
    });
    await expect(write('kill -9 $$')).rejects.toMatchObject({
      message: expect.stringContaining('SIGKILL'),
    });
    await expect(write('/nowhere/at/all')).rejects.toMatchObject({
      message: expect.stringContaining('exit status 127'),
    });
  });

  it('destroy ends the command and what it had started', async () => {
    const path = join(testFolder(), 'pid');
    const channel = await connect(`exec:sh -c 'echo $$ > ${path}; echo up; sleep 60'; true`);
    const into = new Uint8Array(10);
    expect(await channel.read(into)).toBe(3);
    const reason = new Error('over');
    const read = channel.read(into);
    channel.destroy(reason);
    await expect(read).rejects.toBe(reason);
    await expect(channel.write(into)).rejects.toBe(reason);
    await expect(channel.end()).rejects.toBe(reason);
    const pid = Number(readFileSync(path, 'utf8'));
    await expect.poll(() => isAlive(pid)).toBe(false);
  });

  it('ends a command that nobody accepted when the listener closes', async () => {
    const path = join(testFolder(), 'pid');
    const listener = await listen(`exec:echo $$ > ${path}; exec sleep 60`);
    await expect.poll(() => existsSync(path) && readFileSync(path, 'utf8')).toMatch(/\d\n/);
    await listener.close();
    await expect.poll(() => isAlive(Number(readFileSync(path, 'utf8')))).toBe(false);
  });
});

describe('file', () => {
  it('is written, then read, with nothing on the way back', async () => {
    const path = join(testFolder(), 'stream');
    writeFileSync(path, 'something longer that was there before');
    const out = await connect(`file:${path}`);
    const data = pattern(3_000_001);
    const shared = new Uint8Array(new SharedArrayBuffer(data.length));
    shared.set(data);
    await out.write(shared.subarray(0, 1_000_000));
    await out.write(shared.subarray(1_000_000));
    expect(await out.read(new Uint8Array(1))).toBe(0);
    await out.end();
    await expect(out.write(data)).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    expect(readFileSync(path).equals(data)).toBe(true);

    const listener = await testListener(`file:${path}`);
    const incoming = await listener.accept();
    expect((await readAll(incoming)).equals(data)).toBe(true);
    await expect(incoming.write(bytes('x'))).rejects.toMatchObject({
      code: 'UNSUPPORTED',
      message: expect.stringContaining('return-path'),
    });
    await incoming.end();
    incoming.destroy();
    await expect(listener.accept()).rejects.toMatchObject({ code: 'UNSUPPORTED' });
  });

  it('keeps what lies before its offset', async () => {
    const path = join(testFolder(), 'stream');
    writeFileSync(path, 'header and old tail');
    const out = await connect(`file:${path},offset=7`);
    await out.write(bytes('new'));
    await out.end();
    expect(readFileSync(path, 'utf8')).toBe('header new');
    const incoming = await (await testListener(`file:${path},offset=0x7`)).accept();
    expect((await readAll(incoming)).toString()).toBe('new');
    incoming.destroy();
  });

  it('is read and written anywhere beside the stream, which goes on elsewhere', async () => {
    const path = join(testFolder(), 'stream');
    const out = await connect(`file:${path},offset=3`);
    await out.write(bytes('begin'));
    expect(out.file?.position).toBe(8);
    await out.file?.writeAt(bytes('pages'), 20);
    out.file?.seek(30);
    await out.write(bytes('end'));
    await out.end();
    const incoming = await (await testListener(`file:${path},offset=3`)).accept();
    const into = new Uint8Array(5);
    expect(await incoming.read(into)).toBe(5);
    expect(await incoming.file?.readAt(into, 20)).toBe(5);
    expect(Buffer.from(into).toString()).toBe('pages');
    expect(await incoming.file?.readAt(into, 31)).toBe(2); // the file ends there
    expect(incoming.file?.position).toBe(8);
    incoming.file?.seek(30);
    expect((await readAll(incoming)).toString()).toBe('end');
    incoming.destroy();
  });

  it('says what is wrong with a path', async () => {
    const folder = testFolder();
    await expect(listen(`file:${join(folder, 'none')}`)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(connect(`file:${join(folder, 'none', 'x')}`)).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(connect(`file:${folder}`)).rejects.toMatchObject({ code: 'IO_ERROR' });
    await expect(listen(`file:${folder}`)).rejects.toMatchObject({ code: 'IO_ERROR' });
  });

  it.runIf(existsSync('/dev/full'))('says that no space is left', async () => {
    const out = await connect('file:/dev/full');
    await expect(out.write(bytes('x'))).rejects.toMatchObject({
      code: 'IO_ERROR',
      message: expect.stringContaining('no space left'),
    });
    out.destroy();
  });

  it('destroy rejects what is under way and comes later', async () => {
    const out = await connect(`file:${join(testFolder(), 'stream')}`);
    const reason = new Error('over');
    const write = out.write(pattern(1_000_000));
    await expect(out.write(bytes('x'))).rejects.toMatchObject({ code: 'BUSY' });
    out.destroy(reason);
    out.destroy();
    await expect(write).rejects.toBe(reason);
    await expect(out.write(bytes('x'))).rejects.toBe(reason);
    await expect(out.end()).rejects.toBe(reason);
    await expect(out.read(new Uint8Array(1))).rejects.toBe(reason);
  });
});

describe('fd', () => {
  it('uses a socket in both directions', async () => {
    const echo = createServer((socket) => socket.pipe(socket));
    const path = join(testFolder(), 's');
    await new Promise<void>((resolve) => echo.listen(path, resolve));
    onTestFinished(() => void echo.close());
    // A child gets one end as its descriptor 3, as a management tool would pass it.
    const socket = new Socket();
    await new Promise<void>((resolve) => socket.connect(path, resolve));
    const script = `
      const { connect } = await import(${JSON.stringify(new URL('../src/index.ts', import.meta.url).href)});
      const channel = await connect('fd:3');
      await channel.write(new TextEncoder().encode('to and fro'));
      await channel.end();
      const into = new Uint8Array(100);
      let got = 0;
      for (let count; (count = await channel.read(into.subarray(got))) > 0; ) got += count;
      console.log(new TextDecoder().decode(into.subarray(0, got)));`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit', socket],
    });
    let said = '';
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await new Promise((resolve) => child.once('close', resolve));
    socket.destroy();
    expect(said).toBe('to and fro\n');
  });

  it('uses files where they stand', async () => {
    const path = join(testFolder(), 'stream');
    const out = await connect(`fd:${openSync(path, 'w')}`);
    await out.write(bytes('abc'));
    await out.write(bytes('def'));
    await out.end();
    const incoming = await (await testListener(`fd:${openSync(path, 'r')}`)).accept();
    expect((await readAll(incoming)).toString()).toBe('abcdef');
    incoming.destroy();
  });

  it('refuses descriptors that are not open, and devices', async () => {
    await expect(connect('fd:987654')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const fd = openSync('/dev/null', 'r+');
    onTestFinished(() => closeSync(fd));
    await expect(connect(`fd:${fd}`)).rejects.toBeInstanceOf(TransportError);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie that its parent has not yet waited for is gone for our purpose.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
