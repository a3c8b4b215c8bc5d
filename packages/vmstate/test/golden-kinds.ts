import {
  array,
  array2d,
  bitmap,
  bool,
  buffer,
  bufferPart,
  byteArray,
  capability,
  cpuDouble,
  type Description,
  describe,
  equal,
  type Field,
  field,
  float64,
  gtree,
  gtreeOfNumbers,
  i8,
  i16,
  i32,
  i32AtMost,
  i64,
  lessThan,
  markedPointerArray,
  pointer,
  pointerArray,
  qlist,
  qtailq,
  struct,
  subArray,
  timer,
  tmp,
  u8,
  u16,
  u32,
  u64,
  unused,
  validate,
  varray,
  vbuffer,
  vstruct,
} from '../src/index.ts';

/** One kind of field in a description named `d`, a state of it and the bytes of that state. */
export interface Golden {
  /** The function or constant that makes the kind. */
  readonly kind: string;
  /** The field's type in a vmdesc; nothing where the vmdesc has no entry. */
  readonly type: string | undefined;
  readonly description: Description<object>;
  readonly state: object;
  /** What a load starts from; default: nothing. */
  readonly base?: object;
  /** The state's bytes, a space between fields and parts of fields. */
  readonly hex: string;
  /** Lengths at which the state, cut short, is the whole of a smaller one. */
  readonly wholeAt?: readonly number[];
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function golden(
  kind: string,
  type: string | undefined,
  fields: readonly Field[],
  state: object,
  hex: string,
  base?: object,
): Golden {
  const description = describe({ name: 'd', version: 1, fields }) as Description<object>;
  return { kind, type, description, state, hex, ...(base && { base }) };
}

const pair = describe({ name: 'pair', version: 1, fields: [field('a', u8), field('b', u16)] });
const versioned = describe({
  name: 'versioned',
  version: 2,
  minimumVersion: 1,
  fields: [field('a', u8), field('b', u16, { since: 2 })],
});
const number = describe({ name: 'number', version: 1, fields: [field('n', u8)] });

/** A part of a state that has another layout on the wire: minutes there, seconds here. */
const minutes = describe({ name: 'minutes', version: 1, fields: [field('minutes', u16)] });
const inMinutes = tmp({
  description: minutes,
  make: (parent: { seconds: number }) => ({ minutes: parent.seconds / 60 }),
  apply: (loaded, parent) => {
    parent.seconds = loaded.minutes * 60;
  },
});

/** A golden for every kind. */
export const goldens: readonly Golden[] = [
  golden('bool', 'bool', [field('v', bool)], { v: true }, '01'),
  golden('u8', 'uint8', [field('v', u8)], { v: 0xfe }, 'fe'),
  golden('u16', 'uint16', [field('v', u16)], { v: 0x1234 }, '1234'),
  golden('u32', 'uint32', [field('v', u32)], { v: 0xdeadbeef }, 'deadbeef'),
  golden('u64', 'uint64', [field('v', u64)], { v: 0x0123456789abcdefn }, '0123456789abcdef'),
  golden('i8', 'int8', [field('v', i8)], { v: -2 }, 'fe'),
  golden('i16', 'int16', [field('v', i16)], { v: -2 }, 'fffe'),
  golden('i32', 'int32', [field('v', i32)], { v: -2 }, 'fffffffe'),
  golden('i64', 'int64', [field('v', i64)], { v: -2n }, 'fffffffffffffffe'),
  golden('timer', 'timer', [field('v', timer)], { v: -1n }, 'ffffffffffffffff'),
  golden(
    'float64',
    'float64',
    [field('v', float64)],
    { v: 0x3ff8000000000000n },
    '3ff8000000000000',
  ),
  golden(
    'cpuDouble',
    'CPU_Double_U',
    [field('v', cpuDouble)],
    { v: 0xc00400000000beefn },
    'c0040000 0000beef',
  ),
  golden('equal', 'uint16 equal', [field('v', equal(u16))], { v: 7 }, '0007', { v: 7 }),
  golden('i32AtMost', 'int32 le', [field('v', i32AtMost)], { v: 3 }, '00000003', { v: 4 }),
  golden('lessThan', 'uint8', [field('v', lessThan(u8, 4))], { v: 3 }, '03'),
  golden('array', 'uint16', [field('v', array(u16, 3))], { v: [1, 2, 3] }, '0001 0002 0003'),
  golden(
    'varray',
    'uint16',
    [field('n', u8), field('v', varray(u16, 'n'))],
    { n: 2, v: [1, 2] },
    '02 0001 0002',
  ),
  golden(
    'varray, times',
    'uint8',
    [field('n', i32), field('v', varray(u8, 'n', { times: 3 }))],
    { n: 2, v: [1, 2, 3, 4, 5, 6] },
    '00000002 01 02 03 04 05 06',
  ),
  golden(
    'array2d',
    'uint8',
    [field('v', array2d(u8, 2, 3))],
    {
      v: [
        [1, 2, 3],
        [4, 5, 6],
      ],
    },
    '01 02 03 04 05 06',
  ),
  golden(
    'subArray',
    'uint16',
    [field('v', subArray(u16, 1, 2))],
    { v: [9, 1, 2, 9] },
    '0001 0002',
    { v: [9, 0, 0, 9] },
  ),
  golden('buffer', 'buffer', [field('v', buffer(3))], { v: Uint8Array.of(1, 2, 3) }, '010203'),
  golden(
    'bufferPart',
    'buffer',
    [field('v', bufferPart(1, 3))],
    { v: Uint8Array.of(9, 1, 2, 9) },
    '0102',
    { v: Uint8Array.of(9, 0, 0, 9) },
  ),
  golden(
    'vbuffer',
    'buffer',
    [field('n', u32), field('v', vbuffer('n'))],
    { n: 2, v: Uint8Array.of(1, 2) },
    '00000002 0102',
  ),
  golden(
    'vbuffer, unitBytes',
    'buffer',
    [field('n', u32), field('v', vbuffer('n', { unitBytes: 2 }))],
    { n: 2, v: Uint8Array.of(1, 2, 3, 4) },
    '00000002 01020304',
  ),
  golden(
    'bitmap',
    'bitmap',
    [field('n', i32), field('v', bitmap('n'))],
    { n: 65, v: Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0) },
    '00000041 8000000000000001 0000000000000001',
  ),
  golden('unused', 'unused_buffer', [field('v', unused(3))], {}, '000000'),
  golden(
    'byteArray',
    'GByteArray',
    [field('v', byteArray)],
    { v: Uint8Array.of(7, 8) },
    '00000002 0708',
  ),
  golden('capability', 'capability', [field('v', capability)], { v: 'xbzrle' }, '06 78627a726c65'),
  golden('struct', 'struct', [field('v', struct(pair))], { v: { a: 1, b: 2 } }, '01 0002'),
  golden('vstruct', 'vstruct', [field('v', vstruct(versioned, 1))], { v: { a: 1, b: 5 } }, '01', {
    v: { b: 5 },
  }),
  golden(
    'pointer',
    'struct',
    [field('v', pointer(struct(pair)))],
    { v: { a: 1, b: 2 } },
    '01 0002',
  ),
  golden(
    'pointerArray',
    'nullptr',
    [field('v', pointerArray(struct(pair), 3))],
    { v: [{ a: 1, b: 2 }, null, { a: 3, b: 4 }] },
    '01 0002 30 03 0004',
    { v: [{ a: 0, b: 0 }, null, { a: 0, b: 0 }] },
  ),
  golden(
    'markedPointerArray',
    'ptr-marker',
    [field('n', u8), field('v', markedPointerArray(struct(pair), 'n'))],
    { n: 2, v: [{ a: 1, b: 2 }, null] },
    '02 31 01 0002 30',
  ),
  golden('qtailq', 'qtailq', [field('v', qtailq(pair))], { v: [{ a: 1, b: 2 }] }, '01 01 0002 00'),
  golden(
    'qlist',
    'qlist',
    [field('v', qlist(number))],
    { v: [{ n: 1 }, { n: 2 }] },
    '01 01 01 02 00',
  ),
  golden(
    'gtree',
    'gtree',
    [field('v', gtree(pair, number))],
    { v: [{ key: { a: 1, b: 2 }, value: { n: 3 } }] },
    '00000001 01 01 0002 03 00',
  ),
  golden(
    'gtreeOfNumbers',
    'gtree',
    [field('v', gtreeOfNumbers(number))],
    { v: [{ key: 5n, value: { n: 3 } }] },
    '00000001 01 0000000000000005 03 00',
  ),
  golden('tmp', 'tmp', [field('tmp', inMinutes)], { seconds: 120 }, '0002'),
  golden(
    'validate',
    undefined,
    [field('v', u8), validate('v is even', (state: { v: number }) => state.v % 2 === 0)],
    { v: 4 },
    '04',
  ),
  {
    kind: 'subsections',
    type: 'uint8',
    description: describe({
      name: 'd',
      version: 1,
      fields: [field('v', u8)],
      subsections: [
        describe({
          name: 'd/more',
          version: 3,
          needed: ({ w }: { w: number }) => w !== 0,
          fields: [field('w', u16)],
        }),
      ],
      preLoad: (state) => Object.assign(state, { w: 0 }),
    }) as Description<object>,
    state: { v: 1, w: 2 },
    hex: `01 05 06 ${Buffer.from(text('d/more')).toString('hex')} 00000003 0002`,
    wholeAt: [1],
  },
];

/** Gives the bytes of a golden. */
export function bytesOf({ hex }: Golden): Uint8Array {
  return new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}
