import { ByteWriter } from '@wherry/bytes';
import { expect, it, describe as suite } from 'vitest';
import {
  array,
  bitmap,
  buffer,
  byteArray,
  type Description,
  describe,
  equal,
  type Field,
  field,
  gtreeOfNumbers,
  i32,
  i32AtMost,
  lessThan,
  pointer,
  qtailq,
  struct,
  tmp,
  u8,
  u16,
  u32,
  u64,
  validate,
  vbuffer,
} from '../src/index.ts';

const of = (...fields: Field[]): Description<object> =>
  describe({ name: 'd', version: 1, fields }) as Description<object>;
const pair = describe({ name: 'pair', version: 1, fields: [field('a', u8), field('b', u8)] });

suite('a load refuses', () => {
  it.each<[string, Description<object>, string, object, RegExp]>([
    [
      'another value, with the hint of the field',
      of(field('v', equal(u16, { hint: 'Give both sides the same smp' }))),
      '0002',
      { v: 1 },
      /VALUE_MISMATCH.*expected 1, found 2, at offset 0x0 \(0\), in d > v\. Give both sides the same smp/,
    ],
    [
      'a negative number where a positive one is wanted',
      of(field('v', i32AtMost)),
      'ffffffff',
      {},
      /VALUE_MISMATCH.*positive value of at most 2147483647, found -1/,
    ],
    [
      'a number that is not below the field before it',
      of(field('n', u8), field('v', array(lessThan(u8, 'n'), 2))),
      '03 02 03',
      {},
      /VALUE_INVALID.*expected 0 to less than 3, found 3, at offset 0x2 \(2\), in d > v\[1\]/,
    ],
    [
      'a pointer that leads nowhere here',
      of(field('v', pointer(struct(pair)))),
      '01 02',
      { v: null },
      /VALUE_INVALID.*is null, at offset 0x0 \(0\), in d > v/,
    ],
    [
      'a state that fails its check',
      of(
        field('v', u8),
        validate('v is even', (state: { v: number }) => state.v % 2 === 0),
      ),
      '03',
      {},
      /VALIDATION_FAILED.*expected v is even, at offset 0x1 \(1\), in d > v is even/,
    ],
    [
      'a tree with fewer nodes than it says',
      of(field('v', gtreeOfNumbers(pair))),
      '00000002 01 0000000000000001 02 03 00',
      {},
      /COUNT_INVALID.*expected 2 nodes, found 1, at offset 0x0/,
    ],
    [
      'a tree with more nodes than it says',
      of(field('v', gtreeOfNumbers(pair))),
      '00000000 01',
      {},
      /COUNT_INVALID.*at most 0 elements, found more, at offset 0x4/,
    ],
    [
      'a buffer of a negative length',
      of(field('n', i32), field('v', vbuffer('n'))),
      'ffffffff',
      {},
      /COUNT_INVALID.*found -1, at offset 0x4 \(4\), in d > v/,
    ],
    [
      'more bytes than any field has',
      of(field('v', byteArray)),
      'ffffffff',
      {},
      /COUNT_INVALID.*expected 0 to 67108864 bytes, found 4294967295/,
    ],
    [
      'too many bits',
      of(field('n', u64), field('v', bitmap('n'))),
      'ffffffffffffffff',
      {},
      /COUNT_INVALID.*in d > v/,
    ],
    [
      'what is wrong in an element of a list, by its place',
      of(
        field(
          'v',
          qtailq(
            describe({
              name: 'e',
              version: 1,
              fields: [field('x', equal(u8))],
              preLoad: (s) => Object.assign(s, { x: 1 }),
            }),
          ),
        ),
      ),
      '01 01 01 02 00',
      {},
      /VALUE_MISMATCH.*in d > v\[1\] > x/,
    ],
    [
      'what a temporary state cannot be applied as',
      of(
        field(
          'v',
          tmp({
            description: pair,
            make: () => ({ a: 0, b: 0 }),
            apply: () => {
              throw new Error('no such place');
            },
          }),
        ),
      ),
      '01 02',
      {},
      /HOOK_FAILED.*apply of 'pair' refused the state: found no such place, in d > v/,
    ],
    [
      'a subsection of a nested struct that is not known here',
      of(field('v', struct(pair)), field('w', u8)),
      `01 02 05 06 ${Buffer.from('pair/x').toString('hex')} 00000001 07`,
      {},
      /SUBSECTION_UNKNOWN.*A subsection of 'pair' is not known here: expected none, found pair\/x, at offset 0x2/,
    ],
    [
      'bytes behind the state',
      of(field('v', u8)),
      '01 02',
      {},
      /TRAILING_BYTES.*expected 1 bytes, found 2 bytes, at offset 0x1/,
    ],
  ])('%s', (_what, description, hex, base, message) => {
    const wire = new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
    let told = '';
    try {
      description.decode(wire, base);
    } catch (error) {
      const { code, message: text } = error as { code: string; message: string };
      told = `${code} ${text}`;
    }
    expect(told).toMatch(message);
  });
});

suite('a save refuses, and names the field', () => {
  it.each<[string, Description<object>, object, RegExp]>([
    [
      'a buffer of another length',
      of(field('a', u8), field('v', buffer(2))),
      { a: 1, v: new Uint8Array(3) },
      /expected 2 bytes, found 3 bytes, in d > v/,
    ],
    [
      'an array with too few elements, deep inside',
      of(field('v', array(struct(of(field('w', array(u16, 20)))), 1))),
      { v: [{ w: [1] }] },
      /expected 20, found 1, in d > v > w/,
    ],
    ['a value of another type', of(field('v', u64)), { v: 'x' }, /cannot be written.*in d > v/],
    ['a state without the field', of(field('v', struct(pair))), {}, /cannot be written.*in d > v/],
    [
      'a null pointer',
      of(field('v', pointer(struct(pair)))),
      { v: null },
      /must lead somewhere is null, in d > v/,
    ],
    [
      'a state that fails its check',
      of(validate('never', () => false)),
      {},
      /fails the check of 'd': expected never, in d > never/,
    ],
  ])('%s', (_what, description, state, message) => {
    expect(() => description.encode(state)).toThrow(message);
    expect(() => description.save(new ByteWriter(), state)).toThrow(message);
  });
});

suite('subsections', () => {
  const device = describe({
    name: 'd',
    version: 1,
    fields: [field('v', u8)],
    subsections: [
      describe({
        name: 'd/one',
        version: 1,
        fields: [field('a', u8)],
        subsections: [describe({ name: 'd/one/deep', version: 1, fields: [field('c', u32)] })],
      }),
      describe({ name: 'd/two', version: 1, fields: [field('b', u8)] }),
    ],
    preLoad: (state) => Object.assign(state, { a: 0, b: 0, c: 0 }),
  });
  const one = new ByteWriter().u8(5).counted('d/one').u32(1).u8(7);
  const deep = new ByteWriter().u8(5).counted('d/one/deep').u32(1).u32(9);
  const two = new ByteWriter().u8(5).counted('d/two').u32(1).u8(8);
  const twoAgain = new ByteWriter().u8(5).counted('d/two').u32(1).u8(6);
  const base = { v: 0, a: 1, b: 1, c: 1 };
  const wireOf = (...parts: ByteWriter[]): Uint8Array =>
    parts.reduce((all, part) => all.raw(part.bytes), new ByteWriter().u8(1)).finish();

  it('are saved in the order of the table, nested ones inside', () => {
    const state = { v: 1, a: 7, b: 8, c: 9 };
    expect(device.encode(state)).toEqual(wireOf(one, deep, two));
  });

  it.each([
    ['in order', [one, deep, two], { v: 1, a: 7, b: 8, c: 9 }],
    ['in any order', [two, one, deep], { v: 1, a: 7, b: 8, c: 9 }],
    ['not at all', [], { v: 1, a: 0, b: 0, c: 0 }],
    ['one of them', [two], { v: 1, a: 0, b: 8, c: 0 }],
    ['the later of two', [two, twoAgain], { v: 1, a: 0, b: 6, c: 0 }],
  ])('are loaded: %s', (_what, parts, state) => {
    expect(device.decode(wireOf(...parts), base)).toEqual(state);
  });

  it('are refused with their path where one inside is of another version', () => {
    const newer = new ByteWriter().u8(5).counted('d/one/deep').u32(2).u32(9);
    expect(() => device.decode(wireOf(one, newer), base)).toThrow(
      /'d\/one\/deep' is of a newer version: expected at most 1, found 2, .*in d > d\/one > d\/one\/deep/,
    );
  });

  it('in a wrong place are left to whoever comes next', () => {
    expect(() => device.decode(wireOf(deep), base)).toThrow(
      /A subsection of 'd' is not known here: expected d\/one, d\/two, found d\/one\/deep/,
    );
    const foreign = new ByteWriter().u8(5).counted('e/x').u32(1);
    expect(() => device.decode(wireOf(foreign), base)).toThrow(/Bytes are left behind/);
  });
});
