import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { smallStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import {
  CALM,
  expectGuestRuns,
  incomingPort,
  Lab,
  MAIN,
  type RunningHost,
  untilStatus,
} from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** The stream of a guest that ran, in a file. */
async function savedGuest(): Promise<string> {
  const source = await lab.host(CALM);
  const file = await lab.path('guest.qevm');
  await source.client.execute('migrate', { uri: `exec:cat > ${file}` });
  await untilStatus(source, 'completed');
  return file;
}

/** A host that waits for the guest, and where. */
async function waiting(postcopy: boolean): Promise<[RunningHost, string]> {
  const host = await lab.host([...CALM, '--incoming', 'defer']);
  if (postcopy) await enablePostcopy(host);
  await host.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
  return [host, `tcp:127.0.0.1:${await incomingPort(host)}`];
}

async function enablePostcopy({ client }: RunningHost): Promise<void> {
  const capabilities = [{ capability: 'postcopy-ram', state: true } as const];
  await client.execute('migrate-set-capabilities', { capabilities });
}

describe('wherry send', () => {
  test('puts a guest into a host that waits, and sums it up', async () => {
    const file = await savedGuest();
    const [host, uri] = await waiting(false);
    const { code, stdout, stderr } = await lab.run(['send', file, uri]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/status +│ +completed/);
    expect(stdout).toMatch(/confirmed +│ +yes/);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test('lets it run at once with --postcopy, its pages follow', async () => {
    const file = await savedGuest();
    const [host, uri] = await waiting(true);
    const size = '--page-size=hugemem=2M';
    const { code, stdout } = await lab.run(['send', file, uri, '--postcopy', size, '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ status: 'completed', mode: 'postcopy', confirmed: true });
    expect(report.normalPages + report.zeroPages).toBe((24 * 2 ** 20) / 4096);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test('answers requests over a connection of their own with --preempt', async () => {
    const file = await savedGuest();
    const host = await lab.host([...CALM, '--incoming', 'defer']);
    await enablePostcopy(host);
    const capabilities = [{ capability: 'postcopy-preempt', state: true } as const];
    await host.client.execute('migrate-set-capabilities', { capabilities });
    await host.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    const uri = `tcp:127.0.0.1:${await incomingPort(host)}`;
    const argv = ['send', file, uri, '--postcopy', '--preempt', '--page-size=hugemem=2M', '--json'];
    const { code, stdout, stderr } = await lab.run(argv);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const report = JSON.parse(stdout);
    expect(report.normalPages + report.zeroPages).toBe((24 * 2 ** 20) / 4096);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test.each([
    ['none', []],
    ['zstd', ['--zero-page-detection', 'legacy']],
  ])('sends its pages over channels with --multifd, %s', async (compression, args) => {
    const file = await savedGuest();
    const host = await lab.host([...CALM, '--incoming', 'defer']);
    const capabilities = [{ capability: 'multifd', state: true } as const];
    await host.client.execute('migrate-set-capabilities', { capabilities });
    const method = compression as 'none' | 'zstd';
    const parameters = { 'multifd-channels': 3, 'multifd-compression': method };
    await host.client.execute('migrate-set-parameters', parameters);
    await host.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    const uri = `tcp:127.0.0.1:${await incomingPort(host)}`;
    const { code, stdout, stderr } = await lab.run([
      ...['send', file, uri, '--json', '--multifd', '3', '--multifd-compression', compression],
      ...args,
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const report = JSON.parse(stdout);
    expect(report.normalPages + report.zeroPages).toBe((24 * 2 ** 20) / 4096);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test('pauses a postcopy whose link is cut, and goes on with it', async () => {
    const file = await savedGuest();
    const [host, uri] = await waiting(true);
    let sent = 0;
    const path = await lab.path('relay');
    const port = Number(uri.split(':').at(-1));
    const server = createServer({ allowHalfOpen: true }, (near) => {
      const far = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
      far.on('error', () => near.destroy()).pipe(near);
      near
        .on('error', () => far.destroy())
        .on('data', (bytes) => {
          sent += bytes.length;
          far.write(bytes);
          if (sent < 4 * 2 ** 20) return;
          near.destroy();
          far.destroy();
        });
    });
    server.listen(path);
    await once(server, 'listening');
    const size = '--page-size=hugemem=2M';
    const cut = await lab.run(['send', file, `unix:${path}`, '--postcopy', size, '--json']);
    server.close();
    expect(cut.code).toBe(3);
    expect(JSON.parse(cut.stdout)).toMatchObject({ status: 'postcopy-paused' });
    expect(cut.stderr).toContain(`wherry send --recover ${file} URI`);
    await untilStatus(host, 'postcopy-paused');
    await host.client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:0' });
    const again = `tcp:127.0.0.1:${await incomingPort(host)}`;
    const { code, stdout } = await lab.run(['send', file, again, '--recover', size, '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.normalPages + report.zeroPages).toBeLessThan((21 * 2 ** 20) / 4096);
    await untilStatus(host, 'completed');
    await expectGuestRuns(host);
  });

  test('writes a stream in which each page is once, without a word back', async () => {
    const [file, out] = [await lab.path('small.qevm'), await lab.path('out.qevm')];
    writeFileSync(file, smallStream());
    const { code, stdout } = await lab.run(['send', file, `exec:cat > ${out}`, '--json']);
    expect(code).toBe(0);
    const pages = { normalPages: 2, zeroPages: 3 };
    expect(JSON.parse(stdout)).toMatchObject({ confirmed: false, ...pages });
    const inspected = await lab.run(['inspect', out, '--json']);
    expect(JSON.parse(inspected.stdout).ram.blocks).toMatchObject([
      { name: 'pc.ram', pages: { page: 2, zero: 2, xbzrle: 0 } },
      { name: 'rom', pages: { page: 0, zero: 1, xbzrle: 0 } },
    ]);
  });

  test('reads what is packed, and what comes through a pipe', async () => {
    const [file, out] = [await lab.path('small.qevm.gz'), await lab.path('out.qevm')];
    writeFileSync(file, gzipSync(smallStream()));
    const { code, stdout } = await lab.run(['send', file, `file:${out}`, '--json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ packed: 'gzip', normalPages: 2 });
    const piped = await lab.path('piped.qevm');
    const argv = [MAIN, 'send', '-', `file:${piped}`];
    const child = spawn(process.execPath, argv, { stdio: ['pipe', 'ignore', 'inherit'] });
    child.stdin.end(smallStream());
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(Buffer.compare(readFileSync(piped), readFileSync(out))).toBe(0);
  });

  test('says what a destination refuses, also out of its log', async () => {
    const file = await savedGuest();
    const other = await lab.host(['--ram', 'pc.ram=32M', '--incoming', 'defer']);
    await other.client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    const uri = `tcp:127.0.0.1:${await incomingPort(other)}`;
    const log = await lab.path('qemu.log');
    writeFileSync(log, 'qemu: Size mismatch: pc.ram: 0x1000000 != 0x2000000: Invalid argument\n');
    const { code, stdout, stderr } = await lab.run(['send', file, uri, '--log', log, '--json']);
    expect(code).toBe(1);
    expect(stderr).toContain('The destination has not got the guest');
    expect(JSON.parse(stdout)).toMatchObject({
      status: 'failed',
      log: [{ cause: 'RAM_SIZE', line: expect.stringContaining('Size mismatch') }],
    });
  });

  test('ends on an interrupt, also before a destination that does nothing', async () => {
    const [file, path] = [await lab.path('small.qevm'), await lab.path('silent')];
    writeFileSync(file, smallStream());
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    const connected = once(server, 'connection');
    const sending = lab.start(['send', file, `unix:${path}`]);
    const [socket] = await connected;
    sending.child.kill('SIGINT');
    const { code, stderr } = await sending.ended;
    socket.destroy();
    server.close();
    expect({ code, stderr }).toEqual({
      code: 130,
      stderr: 'wherry: Interrupted: the guest is still in the file\n',
    });
  });

  test.each([
    [['no-such-file', 'tcp:127.0.0.1:1'], 2, 'there is no such file'],
    [['FILE', 'tpc:127.0.0.1:1'], 2, 'A migration URI is not valid'],
    [['FILE', 'exec:cat', '--postcopy'], 2, 'Postcopy needs a connection of two directions'],
    [['FILE', 'tcp:127.0.0.1:1', '--preempt'], 2, '--preempt is for --postcopy'],
    [['FILE', 'exec:cat', '--multifd', '2'], 2, 'Multifd needs tcp: or unix:'],
    [['FILE', 'tcp:127.0.0.1:1', '--multifd', '256'], 2, '1 to 255 channels'],
    [['FILE', 'tcp:127.0.0.1:1', '--multifd-compression', 'zstd'], 2, 'with --multifd'],
    [['FILE', 'tcp:127.0.0.1:1', '--multifd', '2', '--postcopy'], 2, 'cannot be used with'],
    [['FILE', 'tcp:127.0.0.1:1', '--multifd', '2', '--uuid', '1'], 2, 'A UUID is written as'],
    [['FILE', 'exec:cat', '--tls-creds', '.'], 2, 'TLS needs tcp: or unix:'],
    [['FILE', 'tcp:127.0.0.1:1', '--tls-creds', '/nowhere'], 2, '/nowhere/ca-cert.pem'],
    [['FILE', 'tcp:127.0.0.1:1', '--tls-hostname', 'x'], 2, '--tls-creds'],
    [['FILE', 'tcp:127.0.0.1:1', '--page-size', 'pc.ram=3K'], 2, 'a power of two'],
    [['FILE', 'tcp:127.0.0.1:1', '--page-size', 'pc.rom=2M'], 2, 'it has pc.ram, rom'],
    [['FILE', 'tcp:127.0.0.1:1', '--page-size', 'pc.ram=2M'], 2, 'no multiple of 2 MiB'],
    [['FILE', 'tcp:127.0.0.1:1'], 1, 'refused the connection'],
    [['CUT', 'tcp:127.0.0.1:1'], 1, 'The input ends too early'],
    [['TEXT', 'tcp:127.0.0.1:1'], 1, 'This is not a migration stream'],
  ])('send %j ends with %i', async ([name = '', ...rest], code, said) => {
    const file = await lab.path('in.qevm');
    const contents: Record<string, Uint8Array> = {
      FILE: smallStream(),
      CUT: smallStream().subarray(0, 5000),
      TEXT: Buffer.from('no stream at all'),
    };
    if (contents[name] !== undefined) writeFileSync(file, contents[name]);
    const ended = await lab.run(['send', existsSync(file) ? file : name, ...rest]);
    expect(ended).toMatchObject({ code, stderr: expect.stringContaining(said) });
  });
});
