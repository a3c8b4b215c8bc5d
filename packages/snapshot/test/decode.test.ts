import { ByteReader, ByteWriter, runParser, WherryError } from '@wherry/bytes';
import type { Schema } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { decodeDevices, locate, StreamWalk } from '../src/index.ts';
import { postcopyStream } from './sections.ts';
import { SyntheticStream, smallStream, walk } from './synthetic-stream.ts';

const schema: Schema = {
  decode({ idstr, version }, body, offset = 0) {
    if (idstr !== 'toy' || version !== 1) throw new WherryError('UNKNOWN', 'No such section');
    return [{ name: 'all', type: 'buffer', offset, lengthBytes: body.length, value: body }];
  },
};

describe('devices', () => {
  test('that the stream does not describe are decoded by a schema', () => {
    const { model } = walk(postcopyStream());
    expect([...decodeDevices(model)]).toMatchObject([
      { note: expect.stringContaining('postcopy') },
    ]);
    const [decoded] = decodeDevices(model, { schema });
    expect(decoded).toMatchObject({ by: 'schema', state: [{ name: 'all' }] });
  });

  test('that the schema does not know are no error of the stream', () => {
    const bytes = new SyntheticStream().begin().device('other', 5, Uint8Array.of(1)).end();
    const [decoded] = decodeDevices(walk(bytes).model, { schema });
    expect(decoded).toMatchObject({ note: 'not decoded: No such section' });
    expect(decoded?.mismatch).toBeUndefined();
  });

  test('that the stream describes are not looked up in a schema', () => {
    expect([...decodeDevices(walk(smallStream()).model, { schema })]).toMatchObject([
      { by: 'vmdesc' },
    ]);
  });

  test('that differ from their description show what comes before', () => {
    const fields = [
      { name: 'first', type: 'uint16', size: 2 },
      { name: 'wide', type: 'uint64', size: 8 },
    ];
    const device = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1, fields };
    const stream = new SyntheticStream().begin().device('toy', 9, Uint8Array.of(1, 2, 3));
    const [decoded] = decodeDevices(walk(stream.end({ page_size: 4096, devices: [device] })).model);
    expect(decoded).toMatchObject({
      mismatch: { code: 'VMDESC_MISMATCH', path: ['toy', 'wide'] },
      state: [{ name: 'first', value: 0x102 }],
    });
  });

  const keys = new ByteWriter()
    .u64(0x1002n)
    .u64(3n)
    .raw(Uint8Array.of(7, 8, 9))
    .u64(1n)
    .finish();
  const slirp = new ByteWriter().u8(0).u16(77).zeros(8).u16(1).zeros(6).zeros(112).finish();
  const clock = new ByteWriter().u8(1).u8(2).u64(3n).finish();

  test.each([
    ['s390-skeys', keys, ['address and flags', 'pages', 'keys', 'address and flags']],
    ['slirp', slirp, ['end of the sockets', 'ip_id', 'bootp_clients']],
    ['todclock', clock, ['present', 'high', 'low']],
    ['todclock', Uint8Array.of(0), ['present']],
  ])('that QEMU never described are known: %s', (idstr, body, names) => {
    const described = {
      ...{ name: idstr, instance_id: 0, size: body.length },
      fields: [{ name: 'data', size: body.length, type: 'buffer' }],
    };
    for (const vmdesc of [undefined, { page_size: 4096, devices: [described] }]) {
      const { model } = walk(new SyntheticStream().begin().device(idstr, 5, body).end(vmdesc));
      const [decoded] = decodeDevices(model);
      expect(decoded).toMatchObject({ by: 'layout' });
      expect(decoded?.state?.map(({ name }) => name)).toEqual(names);
      let at = model.devices[0]!.bodyOffset;
      for (const { offset, lengthBytes } of decoded!.state!) {
        expect(offset).toBe(at);
        at += lengthBytes;
      }
      expect(at).toBe(model.devices[0]!.bodyOffset + body.length);
    }
  });

  test.each([
    [
      's390-skeys',
      new ByteWriter()
        .u64(0x1002n)
        .u64(2n ** 50n)
        .finish(),
    ],
    ['slirp', Uint8Array.of(42, 1, 2)],
    ['todclock', Uint8Array.of(1, 2, 3)],
  ])('whose layout is another one are shown as bytes: %s', (idstr, body) => {
    const described = {
      ...{ name: idstr, instance_id: 0, size: body.length },
      fields: [{ name: 'data', size: body.length, type: 'buffer' }],
    };
    const stream = new SyntheticStream().begin().device(idstr, 5, body);
    const [decoded] = decodeDevices(
      walk(stream.end({ page_size: 4096, devices: [described] })).model,
    );
    expect(decoded).toMatchObject({ by: 'vmdesc', state: [{ name: 'data', type: 'buffer' }] });
  });
});

describe('a byte of a device', () => {
  const bytes = smallStream();
  const { bodyOffset } = walk(bytes).model.devices[0]!;

  function at(offset: number): ReturnType<typeof locate> {
    const streamWalk = new StreamWalk({ at: offset });
    const reader = ByteReader.over(bytes);
    runParser(streamWalk.walk(reader), reader);
    return locate(streamWalk.model);
  }

  test.each([
    [2, ['id'], 'Byte 2 of the field id, type uint32', 0, 4, 0xdeadbeef],
    [4, ['when'], 'Byte 0 of the field when, type uint64', 4, 8, 0xffff_ffff_ffff_ffffn],
    [15, ['counts', '1'], 'Byte 1 of the field 1, type uint16', 14, 2, 5],
    [16, ['inner', 'on'], 'Byte 0 of the field on, type bool', 16, 1, true],
    [31, ['toy/more', 'level'], 'Byte 0 of the field level, type uint8', 31, 1, 0x7e],
  ])('at %i is the field %j', (offset, path, what, start, lengthBytes, value) => {
    expect(at(bodyOffset + offset)).toEqual({
      offset: bodyOffset + offset,
      path: ['toy (full of section 9)', ...path],
      what,
      range: { offset: bodyOffset + start, lengthBytes },
      value,
    });
  });

  test('may belong to the head of a subsection', () => {
    expect(at(bodyOffset + 20)).toMatchObject({
      path: ['toy (full of section 9)', 'toy/more'],
      what: expect.stringContaining('outside its fields'),
    });
  });

  test('is only counted where the device is not decoded', () => {
    const stream = new SyntheticStream()
      .begin()
      .device('toy', 9, Uint8Array.of(1, 2, 3))
      .end();
    const start = walk(stream).model.devices[0]!.bodyOffset;
    const located = locate(walk(stream, { at: start + 1 }).model);
    expect(located?.what).toBe('Byte 1 of the state of toy; not decoded: the stream has no vmdesc');
  });

  test('that was not asked for is nothing', () => {
    expect(locate(walk(bytes).model)).toBeUndefined();
  });
});
