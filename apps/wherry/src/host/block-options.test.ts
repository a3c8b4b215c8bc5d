import { describe, expect, test } from 'vitest';
import { parseBlockdev, parseDiskDevice, parseDrive } from './block-options.ts';

test('a block device is described as for QEMU, by keys or in JSON', () => {
  const expected = {
    driver: 'qcow2',
    'node-name': 'disk0',
    'read-only': true,
    file: { driver: 'file', filename: 'a,b=c.qcow2' },
    backing: null,
  };
  expect(
    parseBlockdev(
      'driver=qcow2,node-name=disk0,read-only=on,file.driver=file,file.filename=a,,b=c.qcow2,backing=',
    ),
  ).toEqual(expected);
  expect(parseBlockdev(JSON.stringify(expected))).toEqual(expected);
  expect(parseBlockdev('driver=null-co,node-name=n,size=64M,read-zeroes=on')).toEqual({
    driver: 'null-co',
    'node-name': 'n',
    size: 64 * 2 ** 20,
  });
  expect(parseBlockdev('driver=copy-on-read,node-name=cor,file=disk0')).toMatchObject({
    file: 'disk0',
  });
});

test('a drive is an image in a file, with a device’s end', () => {
  expect(parseDrive('file=a.qcow2,format=qcow2,if=none,id=d,node-name=n,readonly=on')).toEqual({
    id: 'd',
    node: {
      driver: 'qcow2',
      'node-name': 'n',
      'read-only': true,
      file: { driver: 'file', filename: 'a.qcow2', 'read-only': true },
    },
  });
  expect(parseDiskDevice('virtio-blk-pci,drive=d,id=disk')).toEqual({ drive: 'd', id: 'disk' });
});

describe('what is not understood is refused', () => {
  test.each<[(text: string) => unknown, string, RegExp]>([
    [parseBlockdev, 'node-name=x', /'driver' is missing/],
    [parseBlockdev, 'driver=raw,node-name=x,cache.direct=on', /'cache' is unexpected/],
    [parseBlockdev, 'driver=raw,file.driver=nbd', /'nbd' is no driver here: use qcow2, raw, file/],
    [parseBlockdev, 'driver=mirror_top,file=x', /'mirror_top' is no driver/],
    [parseBlockdev, 'driver=raw,driver=raw', /'driver' is given twice/],
    [parseBlockdev, 'driver=raw,file=x,file.driver=file', /both a value and a group/],
    [parseBlockdev, '{"driver":', /That is no JSON/],
    [parseBlockdev, 'driver=raw,read-only=yes', /expects 'on' or 'off'/],
    [parseBlockdev, 'driver=null-co,read-zeroes=off', /'read-zeroes' is unexpected/],
    [parseDrive, 'file=a,format=raw,if=ide', /if=ide is not supported here/],
    [parseDrive, 'file=a,format=raw', /if=none is missing/],
    [parseDrive, 'file=a,if=none', /format is missing/],
    [parseDrive, 'format=raw,if=none', /file is missing/],
    [parseDrive, 'file=a,format=raw,if=none,cache=none', /does not support the option 'cache'/],
    [parseDiskDevice, 'virtio-blk-pci', /drive property not set/],
    [
      parseDiskDevice,
      'virtio-blk-pci,drive=d,bus=pci.1',
      /Property 'virtio-blk-pci.bus' not found/,
    ],
  ])('%#: %s', (parse, text, message) => {
    expect(() => parse(text)).toThrow(message);
  });
});
