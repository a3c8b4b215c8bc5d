import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { CALM, expectGuestRuns, Lab, type RunningHost, untilStatus } from './processes.ts';

const lab = new Lab();
afterAll(() => lab.close());

const folder = (set: string): string =>
  join(import.meta.dirname, '../../../packages/transport/test/fixtures/tls', set);

function object(set: string, endpoint: 'client' | 'server'): readonly string[] {
  const kind = set === 'psk' ? 'psk' : 'x509';
  return ['--object', `tls-creds-${kind},id=tls0,dir=${folder(set)},endpoint=${endpoint}`];
}

/** A source and a destination with credentials. */
function pair(source: readonly string[], destination: readonly string[]): Promise<RunningHost[]> {
  return Promise.all([
    lab.host([...CALM, ...source]),
    lab.host([...CALM, '--incoming', 'defer', ...destination]),
  ]);
}

function migrate(source: RunningHost, destination: RunningHost, ...args: readonly string[]) {
  return lab.run(['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json', ...args]);
}

describe('migration over TLS', () => {
  test.each([
    ['x509', 'good', []],
    ['x509, postcopy', 'good', ['--postcopy']],
    ['x509, another name', 'good', ['--tls-hostname', 'destination.example']],
    ['x509, multifd', 'good', ['--multifd-channels', '3']],
    ['PSK', 'psk', []],
    ['PSK, multifd with zlib', 'psk', ['--multifd-channels', '2', '--multifd-compression', 'zlib']],
  ])('%s: the guest arrives whole', async (_, set, args) => {
    const [source, destination] = await pair(object(set, 'client'), object(set, 'server'));
    const { code, stdout, stderr } = await migrate(
      source!,
      destination!,
      ...['--tls-creds', 'tls0', ...args],
    );
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(JSON.parse(stdout)).toMatchObject({ status: 'completed' });
    await expectGuestRuns(destination!);
  });

  test.each([
    [
      'a name that is not in the certificate',
      'good',
      'good',
      ['--tls-hostname', 'x.example'],
      'another host name',
    ],
    ['a destination of another CA', 'good', 'other', [], 'a CA that is not known here'],
    ['PSK and x509', 'psk', 'good', [], 'no cipher in common'],
  ])('%s: one error, and the guest goes on', async (_, client, server, args, message) => {
    const [source, destination] = await pair(object(client, 'client'), object(server, 'server'));
    const { code, stdout } = await migrate(
      source!,
      destination!,
      ...['--tls-creds', 'tls0', ...args],
    );
    expect(code).toBe(1);
    expect(JSON.parse(stdout).problem).toContain(message);
    await expectGuestRuns(source!);
  });

  test('a plain source: the destination says so', async () => {
    const [source, destination] = await pair([], object('good', 'server'));
    const { client } = destination!;
    await client.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
    const uri = `unix:${await lab.path('tls')}`;
    await client.execute('migrate-incoming', { uri, 'exit-on-error': false });
    await source!.client.execute('migrate', { uri });
    const { 'error-desc': reason } = await untilStatus(destination!, 'failed');
    expect(reason).toContain('does not speak TLS');
    await untilStatus(source!, 'failed');
    await expectGuestRuns(source!);
  });
});

describe('objects', () => {
  test('are added, refused and removed as QEMU does', async () => {
    const { client } = await lab.host(['--ram', 'pc.ram=1M', '--vcpu', 'idle']);
    const tls0 = { 'qom-type': 'tls-creds-x509', id: 'tls0', dir: folder('good') } as const;
    await client.execute('object-add', { ...tls0, endpoint: 'client' });
    const refusals: [object, string][] = [
      [tls0, "attempt to add duplicate property 'tls0'"],
      [{ ...tls0, id: '0' }, "Parameter 'id' expects an identifier"],
      [{ 'qom-type': 'tls-creds-psk', id: 'a' }, "Missing 'dir' property value"],
      [{ ...tls0, id: 'a', username: 'x' }, "Property 'tls-creds-x509.username' not found"],
      [{ ...tls0, id: 'a', priority: 'NORMAL' }, "Property 'priority' is not supported"],
      [{ ...tls0, id: 'a', dir: '/nowhere' }, 'ca-cert.pem'],
      [{ ...tls0, id: 'a', dir: folder('expired'), endpoint: 'server' }, 'has expired'],
      [{ ...tls0, id: 'a', 'qom-type': 'secret' }, "does not accept value 'secret'"],
    ];
    for (const [properties, message] of refusals) {
      await expect(client.execute('object-add', properties as typeof tls0)).rejects.toThrow(
        message,
      );
    }
    await client.execute('migrate-set-parameters', { 'tls-creds': 'tls0', 'tls-hostname': 'x' });
    const named = await client.execute('query-migrate-parameters');
    expect(named).toMatchObject({ 'tls-creds': 'tls0', 'tls-hostname': 'x' });
    await client.execute('migrate-set-parameters', { 'tls-creds': null, 'tls-hostname': '' });
    const unset = await client.execute('query-migrate-parameters');
    expect(unset).toMatchObject({ 'tls-creds': '', 'tls-hostname': '' });
    await expect(
      client.execute('migrate-set-parameters', { 'tls-authz': 'authz0' }),
    ).rejects.toThrow("Parameter 'tls-authz' is not supported by this host");
    await client.execute('object-del', { id: 'tls0' });
    await expect(client.execute('object-del', { id: 'tls0' })).rejects.toThrow("'tls0' not found");
  });

  test('a destination refuses to listen with credentials that are none, or for the other side', async () => {
    const { client } = await lab.host([
      ...['--ram', 'pc.ram=1M', '--incoming', 'defer'],
      ...object('good', 'client'),
    ]);
    const listen = (): Promise<unknown> =>
      client.execute('migrate-incoming', { uri: 'tcp:127.0.0.1:0' });
    await client.execute('migrate-set-parameters', { 'tls-creds': 'other' });
    await expect(listen()).rejects.toThrow("No TLS credentials with id 'other'");
    await client.execute('migrate-set-parameters', { 'tls-creds': 'tls0' });
    await expect(listen()).rejects.toThrow('Expected TLS credentials for a server endpoint');
  });

  test.each([
    ['secret,id=a', 'no kind of object'],
    ['tls-creds-x509,dir=/x', "'id' is missing"],
    ['tls-creds-x509,id=a,endpoint=both', 'no property'],
    [`tls-creds-psk,id=a,dir=${folder('good')}`, 'keys.psk'],
    [`tls-creds-x509,id=a,dir=/a,,b`, '/a,b/ca-cert.pem'],
  ])('--object %s is wrong usage', async (text, message) => {
    const qmp = await lab.path('qmp');
    const { code, stderr } = await lab.run(['host', '--qmp', `unix:${qmp}`, '--object', text]);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});
