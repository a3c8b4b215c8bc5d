import { expect, it } from 'vitest';
import {
  bool,
  type Description,
  describe,
  field,
  gtree,
  gtreeOfNumbers,
  i8,
  i16,
  i32,
  i64,
  pointer,
  pointerArray,
  qtailq,
  struct,
  tmp,
  u8,
  u16,
  u32,
  u64,
} from '../src/index.ts';

// Bytes that QEMU's own unit test of vmstate expects (tests/unit/test-vmstate.c), with descriptions of ours.

function expectBytes<S>(description: Description<S>, state: S, hex: string, base = {} as S): void {
  expect(Buffer.from(description.encode(state)).toString('hex')).toBe(hex.replaceAll(' ', ''));
  const wire = new Uint8Array(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  expect(description.decode(wire, base)).toEqual(state);
}

it('numbers', () => {
  const simple = describe({
    name: 'simple',
    version: 1,
    fields: [
      field('b1', bool),
      field('b2', bool),
      field('u8', u8),
      field('u16', u16),
      field('u32', u32),
      field('u64', u64),
      field('i8', i8),
      field('j8', i8),
      field('i16', i16),
      field('j16', i16),
      field('i32', i32),
      field('j32', i32),
      field('i64', i64),
      field('j64', i64),
    ],
  });
  const state = {
    ...{ b1: true, b2: false, u8: 130, u16: 512, u32: 70000, u64: 12121212n, i8: 65, j8: -65 },
    ...{ i16: 512, j16: -512, i32: 70000, j32: -70000, i64: 12121212n, j64: -12121212n },
  };
  expectBytes(
    simple,
    state,
    '01 00 82 0200 00011170 0000000000b8f47c 41 bf 0200 fe00 00011170 fffeee90 0000000000b8f47c ffffffffff470b84',
  );
});

it('a list between numbers', () => {
  const element = describe({
    name: 'element',
    version: 1,
    fields: [field('b', bool), field('u8', u8)],
  });
  const container = describe({
    name: 'container',
    version: 1,
    fields: [field('i16', i16), field('q', qtailq(element)), field('i32', i32)],
  });
  const q = [
    { b: true, u8: 130 },
    { b: false, u8: 65 },
  ];
  expectBytes(container, { i16: -512, q, i32: 70000 }, 'fe00 01 01 82 01 00 41 00 00011170');
});

it('an array of pointers with a hole', () => {
  const element = describe({ name: 'element', version: 1, fields: [field('i', i32)] });
  const holder = describe({
    name: 'holder',
    version: 1,
    fields: [field('ar', pointerArray(struct(element), 4))],
  });
  const ar = [{ i: 0 }, null, { i: 2 }, { i: 3 }];
  expectBytes(holder, { ar }, '00000000 30 00000002 00000003', { ar });
});

it('a temporary state beside what it is made from', () => {
  interface Whole {
    a: number;
    b: number;
    d: bigint;
    f: bigint;
  }
  const back = describe({ name: 'back', version: 1, fields: [field('f', u64)] });
  const child = describe({
    name: 'child',
    version: 1,
    fields: [field('diff', i64), field('parent', pointer(struct(back)))],
  });
  const whole = describe({
    name: 'whole',
    version: 1,
    fields: [
      field('a', u32),
      field('d', u64),
      field(
        'tmp',
        tmp({
          description: child,
          make: ({ a, b, f }: Whole) => ({ diff: BigInt(b - a), parent: { f } }),
          apply({ diff, parent }, state) {
            state.b = state.a + Number(diff);
            state.f = parent?.f ?? 0n;
          },
        }),
      ),
    ],
  });
  expectBytes(
    whole,
    { a: 2, b: 4, d: 1n, f: 8n },
    '00000002 0000000000000001 0000000000000002 0000000000000008',
  );
});

it('a tree of trees', () => {
  const interval = describe({
    name: 'interval',
    version: 1,
    fields: [field('low', u64), field('high', u64)],
  });
  const mapping = describe({
    name: 'mapping',
    version: 1,
    fields: [field('phys_addr', u64), field('flags', u32)],
  });
  const domain = describe({
    name: 'domain',
    version: 1,
    fields: [field('id', i32), field('mappings', gtree(interval, mapping))],
  });
  const iommu = describe({
    name: 'iommu',
    version: 1,
    fields: [field('id', i32), field('domains', gtreeOfNumbers(domain))],
  });
  const node = (low: bigint, high: bigint, phys_addr: bigint, flags: number) => ({
    key: { low, high },
    value: { phys_addr, flags },
  });
  const five = { id: 5, mappings: [node(0x1000000n, 0x1ffffffn, 0xf000000n, 3)] };
  const six = {
    id: 6,
    mappings: [node(0x1000n, 0x1fffn, 0xa000n, 1), node(0x4000n, 0x4fffn, 0xe0000n, 2)],
  };
  const domains = [
    { key: 5n, value: five },
    { key: 6n, value: six },
  ];
  expectBytes(
    iommu,
    { id: 7, domains },
    `00000007 00000002
     01 0000000000000005 00000005 00000001
     01 0000000001000000 0000000001ffffff 000000000f000000 00000003 00
     01 0000000000000006 00000006 00000002
     01 0000000000001000 0000000000001fff 000000000000a000 00000001
     01 0000000000004000 0000000000004fff 00000000000e0000 00000002 00
     00`.replaceAll(/\s+/g, ' '),
  );
});
