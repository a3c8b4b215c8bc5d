import { expectTypeOf, it } from 'vitest';
import {
  array,
  array2d,
  bool,
  buffer,
  type Description,
  describe,
  field,
  gtreeOfNumbers,
  pointer,
  pointerArray,
  qtailq,
  type StateOf,
  struct,
  tmp,
  u8,
  u16,
  u64,
  unused,
  validate,
  varray,
} from '../src/index.ts';

const element = describe({ name: 'element', version: 1, fields: [field('a', u8)] });
const minutes = describe({ name: 'minutes', version: 1, fields: [field('minutes', u16)] });

it('a state’s type follows from its fields', () => {
  const description = describe({
    name: 'd',
    version: 2,
    fields: [
      field('on', bool),
      field('address', u64, { since: 2 }),
      field('mac', buffer(6)),
      field('regs', array(u16, 4)),
      field('matrix', array2d(u8, 2, 2)),
      field('count', u8),
      field('elements', varray(struct(element), 'count')),
      field('holes', pointerArray(struct(element), 3)),
      field('part', pointer(struct(element))),
      field('list', qtailq(element)),
      field('tree', gtreeOfNumbers(element)),
    ],
  });
  expectTypeOf<StateOf<typeof description>>().toEqualTypeOf<{
    on: boolean;
    address: bigint;
    mac: Uint8Array;
    regs: number[];
    matrix: number[][];
    count: number;
    elements: { a: number }[];
    holes: ({ a: number } | null)[];
    part: { a: number } | null;
    list: { a: number }[];
    tree: { readonly key: bigint; readonly value: { a: number } }[];
  }>();
});

it('a field under a test is optional, one that holds nothing is no part of the state', () => {
  const description = describe({
    name: 'd',
    version: 1,
    fields: [
      field('flags', u8),
      field('extra', u16, { present: (state: { flags: number }) => state.flags !== 0 }),
      field('old', unused(4)),
      field('older', array(unused(1), 2)),
      validate('flags are known', (state: { flags: number }) => state.flags < 4),
    ],
    postLoad: (state) => {
      expectTypeOf(state).toEqualTypeOf<{ flags: number; extra?: number }>();
    },
  });
  expectTypeOf(description).toEqualTypeOf<Description<{ flags: number; extra?: number }>>();
});

it('the part that a tmp stands for, and the fields of subsections, belong to the state', () => {
  const description = describe({
    name: 'd',
    version: 1,
    fields: [
      field('a', u8),
      field(
        'tmp',
        tmp({
          description: minutes,
          make: (parent: { seconds: number }) => ({ minutes: parent.seconds / 60 }),
          apply: (loaded, parent) => {
            parent.seconds = loaded.minutes * 60;
          },
        }),
      ),
    ],
    subsections: [describe({ name: 'd/b', version: 1, fields: [field('b', u64)] })],
  });
  expectTypeOf<StateOf<typeof description>>().toMatchObjectType<{
    a: number;
    seconds: number;
    b: bigint;
  }>();
});
