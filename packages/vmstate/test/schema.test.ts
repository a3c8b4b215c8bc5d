import { ByteWriter } from '@wherry/bytes';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Dump,
  type DumpDescription,
  type DumpField,
  encodeState,
  type Schema,
  type StateNode,
  schemaFromDump,
  schemaFromVmdesc,
  type VmdescDevice,
  type VmdescField,
  type VmdescState,
  VmstateError,
} from '../src/index.ts';

const head = { idstr: 'dev', instanceId: 0, version: 1 };

function valuesOf(nodes: readonly StateNode[]): object[] {
  return nodes.map(({ name, value, children }) => ({
    [name]: children === undefined ? value : valuesOf(children),
  }));
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.replaceAll(' ', '').match(/../g) ?? [], (byte) => Number(`0x${byte}`));
}

/** Decodes, checks that the bytes come out again, and gives the values. */
function decode(schema: Schema, hex: string, section = head): object[] {
  const body = bytesOf(hex);
  const nodes = schema.decode(section, body, 1000);
  expect(encodeState(nodes)).toEqual(body);
  return valuesOf(nodes);
}

function subsectionHex(name: string, version: number, content: string): string {
  const start = new ByteWriter().u8(5).counted(name).u32(version).finish();
  return [...start].map((byte) => byte.toString(16).padStart(2, '0')).join('') + content;
}

describe('a schema of a vmdesc', () => {
  const u8 = (name: string): VmdescField => ({ name, type: 'uint8', size: 1 });
  const state = (
    name: string,
    fields: readonly VmdescField[],
    ...subsections: readonly VmdescState[]
  ): VmdescState => ({ vmsd_name: name, version: 1, fields, subsections });
  const device = (name: string, instance: number, of: VmdescState): VmdescDevice => ({
    name,
    instance_id: instance,
    ...of,
  });
  const schemaOf = (...devices: readonly VmdescDevice[]): Schema =>
    schemaFromVmdesc({ page_size: 4096, devices });
  const b = subsectionHex('dev/b', 3, '07');
  const c = subsectionHex('dev/b/c', 1, '08');

  it('decodes subsections that the stream described has in another section, or not at all', () => {
    const nested = state('dev/b', [u8('y')], state('dev/b/c', [u8('z')]));
    const schema = schemaOf(
      device('dev', 0, state('dev', [u8('x')])),
      device('dev', 1, state('dev', [u8('x')], nested)),
    );
    expect(decode(schema, '01')).toEqual([{ x: 1 }]);
    expect(decode(schema, `01${b}`)).toEqual([{ x: 1 }, { 'dev/b': [{ y: 7 }] }]);
    expect(decode(schema, `01${b}${c}`)).toEqual([
      { x: 1 },
      { 'dev/b': [{ y: 7 }, { 'dev/b/c': [{ z: 8 }] }] },
    ]);
    const [, subsection] = schema.decode(head, bytesOf(`01${b}`));
    expect(subsection).toMatchObject({ description: { name: 'dev/b', version: 3 } });
    expect(decode(schema, '01', { ...head, instanceId: 1 })).toEqual([{ x: 1 }]);
  });

  it('names a subsection that it does not know', () => {
    const schema = schemaOf(device('dev', 0, state('dev', [u8('x')])));
    expect(() => decode(schema, `01${b}`)).toThrow(
      expect.objectContaining({
        code: 'SUBSECTION_UNKNOWN',
        found: 'subsection dev/b',
        offset: 1001,
        path: ['dev'],
      }),
    );
  });

  it('takes another instance, or the same device at another address, where it has none', () => {
    const schema = schemaOf(
      device('dev', 0, state('dev', [u8('x')])),
      device('0000:00:02.0/nic', 0, state('nic', [u8('n')])),
    );
    expect(decode(schema, '01', { ...head, instanceId: 3 })).toEqual([{ x: 1 }]);
    expect(decode(schema, '02', { ...head, idstr: '0000:00:05.0/nic' })).toEqual([{ n: 2 }]);
    expect(() => decode(schema, '02', { ...head, idstr: 'panic' })).toThrow(
      /does not know a section: expected an entry for panic/,
    );
  });

  it('finds the length of the one array or buffer that differs', () => {
    const words = { name: 'words', array_len: 2, type: 'uint16', size: 2 };
    const schema = schemaOf(device('dev', 0, state('dev', [u8('x'), words, u8('z')])));
    expect(decode(schema, '01 0002 0003 04')).toEqual([
      { x: 1 },
      { words: [{ 0: 2 }, { 1: 3 }] },
      { z: 4 },
    ]);
    expect(decode(schema, '01 0002 04')).toEqual([{ x: 1 }, { words: [{ 0: 2 }] }, { z: 4 }]);
    expect(decode(schema, '01 04')).toEqual([{ x: 1 }, { words: [] }, { z: 4 }]);
    expect(() => decode(schema, '01 00 04')).toThrow(/SCHEMA|differs from the schema/);
    const buffer = { name: 'blob', type: 'buffer', size: 3 };
    const withBuffer = schemaOf(device('dev', 0, state('dev', [u8('x'), buffer, u8('z')])));
    expect(decode(withBuffer, '01 0203040506 07')).toEqual([
      { x: 1 },
      { blob: bytesOf('0203040506') },
      { z: 7 },
    ]);
  });

  it('does not guess which of two arrays has become longer', () => {
    const a = { name: 'a', array_len: 2, type: 'uint16', size: 2 };
    const schema = schemaOf(device('dev', 0, state('dev', [a, { ...a, name: 'b' }])));
    expect(() => decode(schema, '0001 0002 0003')).toThrow(
      expect.objectContaining({ code: 'SCHEMA_AMBIGUOUS', offset: 1006, path: ['dev', 'b', '1'] }),
    );
  });

  it.each(['nullptr', 'ptr-marker'])('finds other holes in an array of pointers, %s', (type) => {
    const pointee = state('p', [{ name: 'v', type: 'uint32', size: 4 }]);
    const run = { name: 'p', type: 'struct', struct: pointee, size: 4 };
    const hole = { name: 'p', type, size: 1 };
    const schema = schemaOf(device('dev', 0, state('dev', [run, hole, run])));
    const [one, none] = [{ v: 1 }, bytesOf('30')];
    expect(decode(schema, '00000001 30 00000001')).toMatchObject([{ p: [one] }, { p: none }, {}]);
    expect(decode(schema, '30 00000001 00000001')).toEqual([
      { p: [{ 0: none }, { 1: [one] }, { 2: [one] }] },
    ]);
    expect(decode(schema, '30 30 00000001')).toEqual([
      { p: [{ 0: none }, { 1: none }, { 2: [one] }] },
    ]);
  });

  it('refuses bytes that no sender of this description puts there', () => {
    const schema = schemaOf(
      device('dev', 0, state('dev', [{ name: 'on', type: 'bool', size: 1 }])),
      device('pad', 0, state('pad', [{ name: 'unused', type: 'unused_buffer', size: 2 }])),
    );
    expect(() => decode(schema, '02')).toThrow(/expected a bool, found byte 2.*dev > on/);
    expect(() => decode(schema, '0001', { ...head, idstr: 'pad' })).toThrow(/not zero/);
  });

  it('whose subsections hold one another ends', () => {
    const inner = state('dev', [], state('dev/b', []));
    const schema = schemaOf(
      device('dev', 0, inner),
      device('other', 0, state('dev/b', [], { ...state('dev', []), vmsd_name: 'dev/b' })),
    );
    const body = subsectionHex('dev/b', 1, '').repeat(200);
    expect(() => schema.decode(head, bytesOf(body))).toThrow(VmstateError);
  });

  it('decodes what it can and else says so, whatever the bytes', () => {
    const element = state('e', [u8('v'), { name: 'w', array_len: 2, type: 'bool', size: 1 }]);
    const schema = schemaOf(
      device(
        'dev',
        0,
        state(
          'dev',
          [
            { name: 's', array_len: 3, type: 'struct', struct: element, size: 3 },
            { name: 'l', type: 'qlist', ...element, size: 5 },
            { name: 'n', type: 'virtio', size: 1 },
          ],
          state('dev/b', [u8('y')]),
        ),
      ),
    );
    fc.assert(
      fc.property(fc.uint8Array({ max: 2, maxLength: 30 }), (body) => {
        try {
          expect(encodeState(schema.decode(head, body))).toEqual(body);
        } catch (error) {
          if (!(error instanceof VmstateError)) throw error;
          expect(error.code).toMatch(/^SCHEMA_(MISMATCH|AMBIGUOUS)$/);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('a schema of a dump', () => {
  const field = (name: string, size: number, more: Partial<DumpField> = {}): DumpField => ({
    field: name,
    versionId: 0,
    fieldExists: false,
    size,
    ...more,
  });
  const description = (
    name: string,
    fields: readonly DumpField[],
    ...subsections: readonly DumpDescription[]
  ): DumpDescription => ({ name, versionId: 2, minimumVersionId: 1, fields, subsections });
  const schemaOf = (...descriptions: readonly DumpDescription[]): Schema => {
    const types = descriptions.map((of, i) => {
      const name = `type-${i}`;
      return [name, { name, versionId: 2, minimumVersionId: 1, description: of }] as const;
    });
    return schemaFromDump({ machine: 'pc', types: new Map(types) } satisfies Dump);
  };

  it('decodes plain fields, numbers as unsigned', () => {
    const inner = description('inner', [field('v', 1)]);
    const schema = schemaOf(
      description('dev', [
        field('a', 1),
        field('b', 2),
        field('c', 4),
        field('d', 8),
        field('e', 3),
        field('unused', 2),
        field('s', 96, { description: inner }),
        field('r', 2, { num: 2 }),
      ]),
    );
    const hex = '01 0002 00000003 0000000000000004 050607 0000 08 0009 000a';
    expect(decode(schema, hex)).toEqual([
      { a: 1 },
      { b: 2 },
      { c: 3 },
      { d: 4n },
      { e: bytesOf('050607') },
      { unused: bytesOf('0000') },
      { s: [{ v: 8 }] },
      { r: [{ 0: 9 }, { 1: 10 }] },
    ]);
    expect(() => decode(schema, hex.replace('050607 0000', '050607 0001'))).toThrow(VmstateError);
  });

  it('leaves out fields that came after the version of the section', () => {
    const schema = schemaOf(description('dev', [field('a', 1), field('b', 1, { versionId: 2 })]));
    expect(decode(schema, '01')).toEqual([{ a: 1 }]);
    expect(decode(schema, '01 02', { ...head, version: 2 })).toEqual([{ a: 1 }, { b: 2 }]);
  });

  it('finds which fields under a test are there, where their sizes tell', () => {
    const option = { fieldExists: true };
    const schema = schemaOf(
      description('dev', [
        field('small', 2, option),
        field('large', 4, option),
        field('n', 1, { num: 1 }),
      ]),
    );
    expect(decode(schema, '0001 07')).toEqual([{ small: 1 }, { n: [{ 0: 7 }] }]);
    expect(decode(schema, '00000001 07')).toEqual([{ large: 1 }, { n: [{ 0: 7 }] }]);
    const alike = schemaOf(description('dev', [field('a', 2, option), field('b', 2, option)]));
    expect(() => decode(alike, '0001')).toThrow(
      expect.objectContaining({ code: 'SCHEMA_AMBIGUOUS' }),
    );
  });

  it('finds the number of nested states that another field decides', () => {
    const timer = description('timer', [field('config', 8), field('flag', 1)]);
    const schema = schemaOf(
      description('dev', [
        field('count', 1),
        field('timers', 80, { description: timer }),
        field('r', 2, { num: 1 }),
      ]),
    );
    const element = '0000000000000001 02';
    const value = [{ config: 1n }, { flag: 2 }];
    expect(decode(schema, `02 ${element}${element} 0003`)).toEqual([
      { count: 2 },
      { timers: [{ 0: value }, { 1: value }] },
      { r: [{ 0: 3 }] },
    ]);
    expect(decode(schema, '00 0003')).toMatchObject([{ count: 0 }, { timers: [] }, {}]);
    expect(decode(schema, `00 01${element} 00 0003`)).toMatchObject([{}, { timers: [{}] }, {}]);
  });

  it('takes a timer for what it is on the wire', () => {
    const schema = schemaOf(description('dev', [field('a', 1, { num: 1 }), field('timer', 48)]));
    expect(decode(schema, '01 ffffffffffffffff')).toMatchObject([{}, { timer: -1n }]);
  });

  it('decodes the subsections that are there', () => {
    const schema = schemaOf(
      description('dev', [field('a', 1)], description('dev/b', [field('y', 1)])),
    );
    expect(decode(schema, '01')).toEqual([{ a: 1 }]);
    expect(decode(schema, `01${subsectionHex('dev/b', 2, '07')}`)).toEqual([
      { a: 1 },
      { 'dev/b': [{ y: 7 }] },
    ]);
    expect(() => decode(schema, `01${subsectionHex('dev/c', 2, '07')}`)).toThrow(VmstateError);
  });

  it('keeps what it says nothing of as bytes, unless arrays could have taken them', () => {
    const opaque = schemaOf(description('virtio-net', [field('virtio', 0)]));
    const section = { ...head, idstr: '0000:00:01.0/virtio-net' };
    expect(decode(opaque, '01020304', section)).toEqual([{ virtio: bytesOf('01020304') }]);
    const sized = schemaOf(description('dev', [field('sense', 1), field('requests', 0)]));
    expect(decode(sized, '01')).toEqual([{ sense: 1 }, { requests: bytesOf('') }]);
    expect(() => decode(sized, '01 0203')).toThrow(
      expect.objectContaining({ code: 'SCHEMA_AMBIGUOUS' }),
    );
  });

  it('takes one of several types of a name, unless more than one fits', () => {
    const [a, b] = [field('a', 2), field('b', 2)];
    const wrapped = field('s', 9, { description: description('s', [a]) });
    const schema = schemaOf(description('dev', [a]), description('dev', [a, b]));
    expect(decode(schema, '0001')).toEqual([{ a: 1 }]);
    expect(decode(schema, '0001 0002')).toEqual([{ a: 1 }, { b: 2 }]);
    const alike = schemaOf(description('dev', [wrapped]), description('dev', [a]));
    expect(decode(alike, '0001')).toEqual([{ s: [{ a: 1 }] }]);
    const unlike = schemaOf(description('dev', [a]), description('dev', [b]));
    expect(() => decode(unlike, '0001')).toThrow(
      expect.objectContaining({ code: 'SCHEMA_AMBIGUOUS' }),
    );
  });

  it('does not know sections of no device type', () => {
    expect(() => decode(schemaOf(), '00', { ...head, idstr: 'timer' })).toThrow(
      /does not know a section: expected an entry for timer/,
    );
  });
});
