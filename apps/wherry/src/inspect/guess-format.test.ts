import { expect, test } from 'vitest';
import { causeOf } from '../explain/catalogue.ts';
import { guessFormat } from './guess-format.ts';

const bytes = (hex: string): Uint8Array =>
  new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value, 'latin1'));

test.each([
  ['MVEQ, 32-bit words swapped', text('MVEQ\u0003\0\0\0'), 'BYTE_ORDER', '32-bit'],
  ['EQMV, 16-bit words swapped', text('EQMV\0\0\u0003\0'), 'BYTE_ORDER', '16-bit'],
  ['a multifd channel', bytes('11223344 00000001'), 'MULTIFD_CHANNEL', 'multifd'],
  ['a TLS handshake', bytes('160301 0200 01'), 'TLS_HANDSHAKE', 'TLS'],
  [
    'a return path',
    bytes('0002 0004 00000001 0002 0004 00000002'),
    'RETURN_PATH_BYTES',
    'return path',
  ],
  ['a return path that ended', bytes('0001 0004 00000000'), 'RETURN_PATH_BYTES', 'return path'],
  [
    'a preempt channel',
    bytes('0000000000044008 06 70632e72616d 0102'),
    'PREEMPT_CHANNEL',
    'preempt',
  ],
  ['a cpr channel', text('QCPR\0\0\0\u0001'), 'CPR_CHANNEL', 'cpr-transfer'],
  ['a qcow2 image', text('QFI\u00fb\0\0\0\u0003'), 'BYTES_OF_ANOTHER_PROGRAM', 'qcow2'],
  ['a program', text('\u007fELF\u0002\u0001'), 'BYTES_OF_ANOTHER_PROGRAM', 'ELF'],
  ['an HTTP request', text('GET / HTTP/1.1\r\n'), 'BYTES_OF_ANOTHER_PROGRAM', 'HTTP request'],
  ['an HTTP response', text('HTTP/1.1 200 OK\r\n'), 'BYTES_OF_ANOTHER_PROGRAM', 'HTTP response'],
  ['an SSH banner', text('SSH-2.0-OpenSSH_9.2\r\n'), 'BYTES_OF_ANOTHER_PROGRAM', 'SSH'],
  ['a VNC banner', text('RFB 003.008\n'), 'BYTES_OF_ANOTHER_PROGRAM', 'VNC'],
  ['a QMP greeting', text('{"QMP": {"version"'), 'BYTES_OF_ANOTHER_PROGRAM', 'QMP'],
  ['a dump', text('{\n "vmschkmachine": {'), 'BYTES_OF_ANOTHER_PROGRAM', '-dump-vmstate'],
  ['XML', text('<domain>'), 'BYTES_OF_ANOTHER_PROGRAM', 'XML'],
  ['text', text('hello, world'), 'BYTES_OF_ANOTHER_PROGRAM', 'text'],
])('knows %s', (_, head, cause, format) => {
  expect(guessFormat(head)).toEqual({ cause, format: expect.stringContaining(format) });
  expect(causeOf(cause)).toBeDefined();
});

test('knows a disk by its end mark', () => {
  const disk = new Uint8Array(1024).fill(0x90);
  disk.set([0x55, 0xaa], 510);
  expect(guessFormat(disk)?.format).toBe('a raw disk image');
});

test('says nothing of what it does not know', () => {
  expect(guessFormat(bytes('fedcba9876543210'))).toBeUndefined();
  expect(guessFormat(new Uint8Array(0))).toBeUndefined();
});
