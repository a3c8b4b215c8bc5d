import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatUri, parseUri } from './migration-uri.ts';

describe('parseUri', () => {
  it.each([
    ['tcp:10.0.0.7:4444', { kind: 'tcp', host: '10.0.0.7', port: 4444 }],
    ['tcp::0', { kind: 'tcp', host: '', port: 0 }],
    ['tcp:[fe80::1%eth0]:1', { kind: 'tcp', host: 'fe80::1%eth0', port: 1 }],
    ['tcp:h:1,to=9,ipv4', { kind: 'tcp', host: 'h', port: 1, toPort: 9, family: 4 }],
    ['tcp:h:1,ipv4=off', { kind: 'tcp', host: 'h', port: 1, family: 6 }],
    ['tcp:h:1,ipv4=on,ipv6=on', { kind: 'tcp', host: 'h', port: 1 }],
    ['tcp:h:1,keep-alive=on', { kind: 'tcp', host: 'h', port: 1, keepAlive: true }],
    ['unix:/run/a,b:c', { kind: 'unix', path: '/run/a,b:c' }],
    ['exec:gzip -c > "a b"', { kind: 'exec', command: 'gzip -c > "a b"' }],
    ['fd:3', { kind: 'fd', fd: 3 }],
    ['file:a,b', { kind: 'file', path: 'a,b', offset: 0 }],
    ['file:a,offset=0x1000', { kind: 'file', path: 'a', offset: 4096 }],
    ['file:a,offset=2M', { kind: 'file', path: 'a', offset: 2 * 1024 ** 2 }],
  ])('reads %s', (uri, expected) => {
    expect(parseUri(uri)).toEqual(expected);
  });

  it.each([
    '',
    'tcp',
    'tcp:',
    'tcp:host',
    'tcp:host:',
    'tcp:host:65536',
    'tcp:host:http',
    'tcp:fe80::1:1',
    'tcp:h:1,mptcp=on',
    'tcp:h:5,to=4',
    'tcp:h:1,ipv4=maybe',
    'tcp:h:1,ipv4=off,ipv6=off',
    'unix:',
    `unix:/${'x'.repeat(107)}`,
    'exec: ',
    'fd:',
    'fd:-1',
    'fd:name',
    'file:',
    'file:,offset=1',
    'file:a,offset=',
    'file:a,offset=-1',
    'file:a,offset=9999999T',
    'file:a\0b',
    'rdma:host:1',
  ])('refuses %j, and says what it takes', (uri) => {
    expect(() => parseUri(uri)).toThrow(
      expect.objectContaining({ code: 'BAD_URI', message: expect.stringContaining('expected') }),
    );
  });

  it('gives a URI or a TransportError for any text', () => {
    const text = fc.oneof(
      fc.string(),
      fc
        .tuple(fc.constantFrom('tcp:', 'unix:', 'file:', 'fd:'), fc.string())
        .map((a) => a.join('')),
    );
    fc.assert(
      fc.property(text, (uri) => {
        try {
          expect(parseUri(formatUri(parseUri(uri)))).toEqual(parseUri(uri));
        } catch (error) {
          expect(error).toMatchObject({ name: 'TransportError', code: 'BAD_URI' });
        }
      }),
    );
  });
});
