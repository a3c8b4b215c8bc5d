import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { expect, it, describe as suite } from 'vitest';
import {
  array,
  bool,
  type Description,
  describe,
  field,
  markedPointerArray,
  pointerArray,
  struct,
  u8,
  u16,
  unused,
  VMDESC_STYLES,
  type VmdescStyle,
  varray,
} from '../src/index.ts';

/** What a vmdesc says of each entry of a field: its length or index, and what is unusual of its type. */
function entriesOf(description: Description<never>, state: object, style: VmdescStyle): string[] {
  const { fields } = description.save(new ByteWriter(), state as never, { style });
  return fields.map(({ name, array_len: length, index, type, size }) => {
    const place = length === undefined ? (index === undefined ? '' : `#${index}`) : `*${length}`;
    return `${name}${place} ${type} ${size}`;
  });
}

const optional = describe({
  name: 'optional',
  version: 1,
  fields: [
    field('has', bool),
    field('value', u8, { present: (state: { has: boolean }) => state.has }),
  ],
});
const of = (fields: Parameters<typeof describe>[0]['fields']): Description<never> =>
  describe({ name: 'd', version: 1, fields }) as unknown as Description<never>;

suite('an array in the vmdesc', () => {
  const conditional = of([field('v', array(struct(optional), 3))]);
  const some = { v: [{ has: true, value: 1 }, { has: false }, { has: true, value: 3 }] };

  it.each([
    ['5.2', ['v#0 struct 2', 'v#1 struct 1', 'v#2 struct 2']],
    ['7.2', ['v#0 struct 2', 'v#1 struct 1', 'v#2 struct 2']],
    ['10.0', ['v#0 struct 2', 'v#1 struct 1', 'v struct 2']],
    ['11.1', ['v struct 2', 'v struct 1', 'v struct 2']],
  ] as const)('of conditional elements has an entry for each, in %s', (style, entries) => {
    expect(entriesOf(conditional, some, style)).toEqual(entries);
  });

  it.each(VMDESC_STYLES)(
    'of uniform elements has one entry, without a length for one, in %s',
    (style) => {
      const uniform = of([
        field('v', array(u16, 3)),
        field('one', array(u16, 1)),
        field('none', array(u16, 0)),
        field('w', array(unused(2), 4)),
      ]);
      const state = { v: [1, 2, 3], one: [1], none: [] };
      expect(entriesOf(uniform, state, style)).toEqual([
        'v*3 uint16 2',
        'one uint16 2',
        'w*4 unused_buffer 2',
      ]);
    },
  );

  const pointers = of([field('v', pointerArray(u16, 4))]);
  it.each([
    // Both say what QEMU says, not what is there: the first describes all by one element, the second
    // gives the run before the first null the length of the whole.
    ['7.2', [1, 2, null, null], ['v*4 uint16 2']],
    ['7.2', [null, 2, null, null], ['v*4 uint16 1']],
    ['10.0', [1, 2, null, null], ['v*4 uint16 2', 'v*2 nullptr 1']],
    ['10.0', [null, null, 1, 2], ['v*2 nullptr 1', 'v*2 uint16 2']],
    ['10.0', [null, 1, null, 2], ['v nullptr 1', 'v uint16 2', 'v nullptr 1', 'v uint16 2']],
    ['11.1', [null, null, 1, 2], ['v*2 ptr-marker 1', 'v*2 uint16 2']],
    ['11.1', [1, 2, 3, null], ['v*4 uint16 2']],
  ] as const)('of pointers with holes, in %s: %j', (style, v, entries) => {
    expect(entriesOf(pointers, { v }, style)).toEqual(entries);
  });

  it('of marked pointers has the marker and the element, each', () => {
    const marked = of([field('v', markedPointerArray(u16, 3))]);
    expect(entriesOf(marked, { v: [1, null, 2] }, '11.1')).toEqual([
      'v ptr-marker 1',
      'v uint16 2',
      'v ptr-marker 1',
      'v ptr-marker 1',
      'v uint16 2',
    ]);
  });

  it('whose name is used more than once has its ordinal, sent or not', () => {
    const twice = of([field('v', u8, { present: () => false }), field('v', u8), field('w', u8)]);
    expect(entriesOf(twice, { v: 1, w: 2 }, '10.0')).toEqual(['v[1] uint8 1', 'w uint8 1']);
  });
});

suite('an array on the wire', () => {
  function load(description: Description<never>, bytes: readonly number[], base: object): unknown {
    const reader = ByteReader.over(Uint8Array.from(bytes));
    return runParser(description.load(reader, base as never), reader);
  }

  it('is refused where its length is negative or more than its elements can be', () => {
    const counted = of([field('n', u8), field('v', varray(struct(of([])), 'n', { times: 1000 }))]);
    expect(() => load(counted, [66], {})).toThrow(/expected 0 to 65536, found 66000/);
    expect(load(counted, [1], {})).toMatchObject({ n: 1 });
    const negative = of([field('v', varray(u8, 'n'))]);
    expect(() => load(negative, [1], { n: -1 })).toThrow(/found -1, at offset 0x0 \(0\), in d > v/);
  });

  it('takes its holes from the base, and tells where a marker is another', () => {
    const pointers = of([field('v', pointerArray(u8, 2))]);
    expect(load(pointers, [7, 0x30], { v: [0, null] })).toEqual({ v: [7, null] });
    expect(() => load(pointers, [7, 8], { v: [0, null] })).toThrow(
      /expected 0x30, found 0x08, at offset 0x1 \(1\), in d > v\[1\]/,
    );
    const marked = of([field('v', markedPointerArray(u8, 2))]);
    expect(() => load(marked, [0x31, 7, 0x32], {})).toThrow(/expected 0x30 or 0x31, found 0x32/);
  });
});
