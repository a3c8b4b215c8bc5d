import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectPlain } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  connect,
  listen,
  loadTlsCredentials,
  type TlsCredentials,
  type TlsCredentialsOptions,
} from '../src/index.ts';
import { testFolder, testListener, testTls, tlsFolder } from './channel.ts';

const HOSTNAME = 'destination.example';

/** Loads one of the sets of credentials that tests have. */
async function load(
  name: string,
  endpoint: 'server' | 'client',
  options: Partial<TlsCredentialsOptions> = {},
): Promise<TlsCredentials> {
  return loadTlsCredentials({ dir: tlsFolder(name), endpoint, ...options });
}

/** The credentials of one side whose own certificate is of another folder, unchecked. */
async function withCertificateOf(
  name: string,
  endpoint: 'server' | 'client',
): Promise<TlsCredentials> {
  const good = await load('good', endpoint);
  const file = (part: string): Buffer =>
    readFileSync(join(tlsFolder(name), `${endpoint}-${part}.pem`));
  return { ...good, context: { ...good.context, cert: file('cert'), key: file('key') } };
}

interface Ends {
  readonly server?: TlsCredentials | undefined;
  readonly client?: TlsCredentials | undefined;
  readonly hostname?: string;
}

/** Lets two sides meet. @returns what each of them says, or `fine` once a byte has gone both ways */
async function meet({ server, client, hostname = HOSTNAME }: Ends): Promise<[string, string]> {
  const listener = await listen('tcp:127.0.0.1:0', { tls: server });
  onTestFinished(() => listener.close());
  const say = (error: unknown): string => (error as Error).message;
  const exchange = async (end: Promise<Awaited<ReturnType<typeof connect>>>): Promise<string> => {
    try {
      const transport = await end;
      onTestFinished(() => transport.destroy());
      await transport.write(Uint8Array.of(0x51, 0x45, 0x56, 0x4d, 1, 2, 3, 4));
      const count = await transport.read(new Uint8Array(64));
      if (count > 0 && server !== undefined && client !== undefined) return 'fine';
      // A side without TLS: it drops what it does not understand, as QEMU does.
      transport.destroy();
      return count > 0 ? 'got bytes' : 'got the end';
    } catch (error) {
      return say(error);
    }
  };
  const tls = client === undefined ? undefined : { credentials: client, hostname };
  const signal = AbortSignal.timeout(1_000);
  return Promise.all([
    exchange(listener.accept({ signal })),
    exchange(connect(listener.uri, { tls, timeoutMs: 3_000 })),
  ]);
}

describe('TLS between two sides', () => {
  it.each(['good', 'psk'])('works with %s', async (name) => {
    const { server, client } = await testTls(name);
    expect(await meet({ server, client: client.credentials })).toEqual(['fine', 'fine']);
  });

  it.each<[string, () => Promise<Ends>, string, string]>([
    [
      'a server of another CA',
      async () => ({ server: await load('other', 'server'), client: await load('good', 'client') }),
      '',
      'shows a certificate of a CA that is not known here',
    ],
    [
      'a client of another CA',
      async () => ({
        server: await load('good', 'server'),
        client: await withCertificateOf('other', 'client'),
      }),
      'shows a certificate of a CA that is not known here',
      '',
    ],
    [
      'a client without a certificate',
      async () => {
        const client = await load('good', 'client');
        const { cert: _, key: __, ...context } = client.context;
        return { server: await load('good', 'server'), client: { ...client, context } };
      },
      'wants a certificate|none was shown',
      '',
    ],
    [
      'an expired server',
      async () => ({
        server: await withCertificateOf('expired', 'server'),
        client: await load('good', 'client'),
      }),
      '',
      'shows a certificate that has expired',
    ],
    [
      'an expired client',
      async () => ({
        server: await load('good', 'server'),
        client: await withCertificateOf('expired', 'client'),
      }),
      'shows a certificate that has expired',
      '',
    ],
    [
      'a revoked client',
      async () => ({
        server: await load('revoked', 'server'),
        client: await load('good', 'client'),
      }),
      'shows a certificate that was revoked',
      '',
    ],
    [
      'a server of another name',
      async () => ({
        server: await load('good', 'server'),
        client: await load('good', 'client'),
        hostname: 'elsewhere.example',
      }),
      '',
      'of another host name',
    ],
    [
      'x509 and psk',
      async () => ({ server: await load('good', 'server'), client: await load('psk', 'client') }),
      'no cipher in common',
      'no cipher in common',
    ],
    [
      'psk and x509',
      async () => ({ server: await load('psk', 'server'), client: await load('good', 'client') }),
      'no cipher in common',
      'no cipher in common',
    ],
    [
      'another key of that name',
      async () => {
        const client = await load('psk', 'client');
        return {
          server: await load('psk', 'server'),
          client: { ...client, keys: new Map([['qemu', new Uint8Array(32)]]) },
        };
      },
      'another key',
      'another key',
    ],
    [
      'a key that the server has not',
      async () => {
        const client = await load('psk', 'client');
        return {
          server: await load('psk', 'server'),
          client: {
            ...client,
            username: 'stranger',
            keys: new Map([['stranger', new Uint8Array(32)]]),
          },
        };
      },
      'another key',
      'another key',
    ],
    [
      'a plain client',
      async () => ({ server: await load('good', 'server') }),
      'does not speak TLS',
      '',
    ],
    [
      'a plain server',
      async () => ({ client: await load('good', 'client') }),
      '',
      'does not speak TLS|closed the connection during the TLS handshake',
    ],
  ])('says what is wrong: %s', async (_, ends, atServer, atClient) => {
    const [server, client] = await meet(await ends());
    // Who refuses says why; the other side at least learns that it is over.
    if (atServer !== '') expect(server).toMatch(new RegExp(atServer));
    if (atClient !== '') expect(client).toMatch(new RegExp(atClient));
    expect([server, client]).not.toContain('fine');
    expect(`${server}${client}`).not.toContain('undefined');
  });

  it('takes the name from the URI, and wants one where there is none', async () => {
    const { server, client } = await testTls('good');
    const { credentials } = client;
    const listener = await testListener('tcp:127.0.0.1:0', { server, client });
    const [near, far] = await Promise.all([
      connect(listener.uri, { tls: { credentials } }), // 127.0.0.1 is in the certificate
      listener.accept(),
    ]);
    near.destroy();
    far.destroy();
    await expect(connect('unix:/nowhere', { tls: { credentials } })).rejects.toMatchObject({
      code: 'TLS_FAILED',
      message: expect.stringContaining('tls-hostname'),
    });
  });

  it('does not ask who the peer is with verify-peer off', async () => {
    const server = await load('other', 'server', { verifyPeer: false });
    const client = await load('good', 'client', { verifyPeer: false });
    const { cert: _, key: __, ...context } = client.context;
    expect(await meet({ server, client: { ...client, context } })).toEqual(['fine', 'fine']);
  });

  it('strangers who say nothing, or leave at once, hold up nobody', async () => {
    const tls = await testTls('good');
    const listener = await testListener('tcp:127.0.0.1:0', tls);
    const port = Number(listener.uri.split(':').at(-1));
    const silent = connectPlain(port, '127.0.0.1').on('error', () => {});
    onTestFinished(() => void silent.destroy());
    const accept = listener.accept();
    connectPlain(port, '127.0.0.1')
      .on('error', () => {})
      .end();
    await sleep(50);
    const near = await connect(listener.uri, { tls: tls.client });
    const far = await accept;
    near.destroy();
    far.destroy();
    await listener.close(); // does not wait for the silent one
  });

  it.each(['exec:cat', 'file:/tmp/x', 'fd:1'])('refuses %s', async (uri) => {
    const { server, client } = await testTls('good');
    await expect(connect(uri, { tls: client })).rejects.toMatchObject({ code: 'TLS_FAILED' });
    await expect(listen(uri, { tls: server })).rejects.toMatchObject({ code: 'TLS_FAILED' });
  });

  it('refuses credentials of the other endpoint', async () => {
    const { server, client } = await testTls('good');
    await expect(
      connect('tcp:127.0.0.1:1', { tls: { credentials: server } }),
    ).rejects.toMatchObject({ message: expect.stringContaining('endpoint=client') });
    await expect(listen('tcp:127.0.0.1:0', { tls: client.credentials })).rejects.toMatchObject({
      message: expect.stringContaining('endpoint=server'),
    });
  });
});

describe('credentials', () => {
  it('are guessed by what the folder holds', async () => {
    expect((await load('good', 'server')).kind).toBe('x509');
    expect((await load('psk', 'server')).kind).toBe('psk');
  });

  it('of a client may lack a certificate', async () => {
    const dir = testFolder();
    cpSync(join(tlsFolder('good'), 'ca-cert.pem'), join(dir, 'ca-cert.pem'));
    expect((await loadTlsCredentials({ dir, endpoint: 'client' })).context.cert).toBeUndefined();
  });

  it.each<[string, string, (dir: string) => void]>([
    ['ca-cert.pem.* does not exist', 'no CA', (dir) => rmSync(join(dir, 'ca-cert.pem'))],
    [
      'server-cert.pem.* does not exist',
      'no certificate',
      (dir) => rmSync(join(dir, 'server-cert.pem')),
    ],
    ['server-key.pem.* does not exist', 'no key', (dir) => rmSync(join(dir, 'server-key.pem'))],
    [
      'holds no certificate',
      'a certificate that is none',
      (dir) => writeFileSync(join(dir, 'server-cert.pem'), 'hello'),
    ],
    [
      'do not fit together',
      'the key of another',
      (dir) => cpSync(join(tlsFolder('other'), 'server-key.pem'), join(dir, 'server-key.pem')),
    ],
    [
      'server-cert.pem.* has expired',
      'an expired certificate',
      (dir) => cpSync(join(tlsFolder('expired'), 'server-cert.pem'), join(dir, 'server-cert.pem')),
    ],
    [
      'cannot be read',
      'a folder for a file',
      (dir) => {
        rmSync(join(dir, 'ca-cert.pem'));
        mkdirSync(join(dir, 'ca-cert.pem'));
      },
    ],
    [
      'a line that is no key',
      'no hex',
      (dir) => writeFileSync(join(dir, 'keys.psk'), 'qemu:xyz\n'),
    ],
    ['holds no key', 'no lines', (dir) => writeFileSync(join(dir, 'keys.psk'), '# nothing\n')],
  ])('are refused: %s (%s)', async (message, _, spoil) => {
    const dir = testFolder();
    cpSync(tlsFolder('good'), dir, { recursive: true });
    spoil(dir);
    await expect(loadTlsCredentials({ dir, endpoint: 'server' })).rejects.toMatchObject({
      name: 'TransportError',
      code: 'BAD_CREDENTIALS',
      message: expect.stringMatching(new RegExp(message)),
    });
  });

  it('name the keys there are when the one asked for is not among them', async () => {
    await expect(load('psk', 'client', { username: 'nobody' })).rejects.toMatchObject({
      code: 'BAD_CREDENTIALS',
      message: expect.stringContaining('qemu, other'),
    });
  });
});
