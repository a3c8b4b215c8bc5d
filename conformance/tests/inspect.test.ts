import { ByteReader, runParser } from '@wherry/bytes';
import { decodeDevices, StreamWalk } from '@wherry/snapshot';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';

function walk(bytes: Uint8Array): StreamWalk {
  const streamWalk = new StreamWalk();
  const reader = ByteReader.over(bytes);
  runParser(streamWalk.walk(reader), reader);
  return streamWalk;
}

describe.each(listFixtures())('the stream $release/$case', ({ release, case: name }) => {
  const { stream, meta } = loadFixture(release, name);
  const { model } = walk(stream);

  test('ends where it ends', () => {
    expect(model).toMatchObject({ endOffset: stream.length, trailingBytes: 0, omittedItems: 0 });
    expect(model.configuration).toEqual({ machineType: meta.machine });
  });

  test('holds the pages that QEMU counted', () => {
    const sum = (kind: 'page' | 'zero'): number =>
      model.ram?.blocks.reduce((total, { pages }) => total + pages[kind], 0) ?? 0;
    expect(sum('page')).toBe(meta.ram['normal']);
    expect(sum('zero')).toBe(meta.ram['duplicate']);
    expect(model.ram?.totalBytes).toBe(meta.ram['total']);
    const xbzrle = model.ram?.blocks.some(({ pages }) => pages.xbzrle > 0);
    expect(xbzrle).toBe(name === 'xbzrle');
  });

  test('is described by its own vmdesc, section by section', () => {
    const devices = [...decodeDevices(model)];
    expect(devices.length).toBeGreaterThan(20);
    if (name === 'postcopy') {
      expect(model.vmdesc).toBeUndefined();
      expect(devices.every(({ note }) => note?.includes('postcopy'))).toBe(true);
      return;
    }
    expect(devices.filter(({ state }) => state === undefined)).toEqual([]);
    // Each section's nodes lie one behind the other and fill it; so the vmdesc fits to the byte.
    for (const { device, state } of devices) {
      let at = device.bodyOffset;
      for (const node of state ?? []) {
        expect(node.offset).toBe(at);
        at += node.lengthBytes;
      }
      expect(at).toBe(device.bodyOffset + device.bodyLengthBytes);
    }
  });

  test('has its commands in the order of its kind', () => {
    const commands = model.items.flatMap((item) =>
      item.type === 'command' ? [`${item.packaged ? '> ' : ''}${item.command.name}`] : [],
    );
    const deduplicated = commands.filter((command, i) => command !== commands[i - 1]);
    if (name !== 'postcopy') {
      // microvm has no versions: it has what the release has, and from 10.0 on that is a command.
      const isNew = meta.machine === 'microvm' && Number(release) >= 10;
      expect(deduplicated).toEqual(isNew ? ['switchover-start'] : []);
      return;
    }
    expect(deduplicated).toEqual([
      'open-return-path',
      'ping',
      'postcopy-advise',
      'postcopy-ram-discard',
      'ping',
      'packaged',
      '> postcopy-listen',
      '> ping',
      '> postcopy-run',
      'ping',
    ]);
  });
});
