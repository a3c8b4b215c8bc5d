import fc from 'fast-check';
import {
  type ArrayOf,
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
  type Kind,
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
  varray,
  vbuffer,
  vstruct,
} from '../src/index.ts';

type State = Record<string, unknown>;

/** Any description, states of it, and for each state the base over which it loads to itself. */
export interface Described {
  readonly description: Description<object>;
  readonly state: object;
  readonly base: object;
}

/** A kind with a value of it, and what the state holds there before the load. */
interface Sample {
  readonly kind: Kind<unknown>;
  readonly value: unknown;
  readonly base?: unknown;
}

/** Fields that belong together, and their part of the state and of the base. */
interface Part {
  readonly fields: readonly Field[];
  readonly state: State;
  readonly base: State;
}

const u = (bits: number): fc.Arbitrary<number> => fc.nat(2 ** bits - 1);
const i = (bits: number): fc.Arbitrary<number> =>
  fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 });
const big = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const signedBig = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

const of = <T>(kind: Kind<T>, values: fc.Arbitrary<T>): fc.Arbitrary<Sample> =>
  values.map((value) => ({ kind: kind as Kind<unknown>, value }));

/** Kinds whose base does not matter. */
const plainScalar: fc.Arbitrary<Sample> = fc.oneof(
  of(bool, fc.boolean()),
  of(u8, u(8)),
  of(u16, u(16)),
  of(u32, u(32)),
  of(u64, big),
  of(i8, i(8)),
  of(i16, i(16)),
  of(i32, i(32)),
  of(i64, signedBig),
  of(timer, signedBig),
  of(float64, big),
  of(cpuDouble, big),
  of(lessThan(u8, 200), fc.nat(199)),
  fc.nat(9).chain((length) => of(buffer(length), bytes(length))),
  of(byteArray, fc.uint8Array({ maxLength: 9 })),
  of(capability, fc.stringMatching(/^[a-z-]{0,12}$/)),
  fc.nat(130).chain((bits) => of(bitmap(bits), bytes(Math.ceil(bits / 64) * 8))),
);

const scalar: fc.Arbitrary<Sample> = fc.oneof(
  { weight: 8, arbitrary: plainScalar },
  u(16).map((value) => ({ kind: equal(u16) as Kind<unknown>, value, base: value })),
  fc
    .tuple(fc.nat(9), fc.nat(9))
    .map(([value, more]) => ({ kind: i32AtMost as Kind<unknown>, value, base: value + more })),
);

const name = fc.stringMatching(/^[a-z]{1,3}$/);

/** Nested descriptions are no deeper than `depth`. */
function sampleOf(depth: number): fc.Arbitrary<Sample> {
  if (depth === 0) return scalar;
  const nested = describedBelow(depth - 1);
  return fc.oneof(
    { weight: 6, arbitrary: scalar },
    nested.map(({ description, state, base }) => ({
      kind: struct(description) as Kind<unknown>,
      value: state,
      base,
    })),
    nested.map(({ description, state, base }) => ({
      kind: pointer(struct(description)) as Kind<unknown>,
      value: state,
      base,
    })),
    nested.map(({ description, state, base }) => ({
      kind: vstruct(description, description.version) as Kind<unknown>,
      value: state,
      base,
    })),
  );
}

/** Lists take their elements from the wire alone. */
const element = fc.record({ a: u(8), b: big }).map((value) => value as object);
const elements = describe({
  name: 'element',
  version: 2,
  fields: [field('a', u8), field('b', u64)],
});
const list: fc.Arbitrary<Sample> = fc.oneof(
  of(qtailq(elements) as Kind<object[]>, fc.array(element, { maxLength: 3 })),
  of(qlist(elements) as Kind<object[]>, fc.array(element, { maxLength: 3 })),
  of(
    gtree(elements, elements) as Kind<object[]>,
    fc.array(fc.record({ key: element, value: element }), { maxLength: 3 }),
  ),
  of(
    gtreeOfNumbers(elements) as Kind<object[]>,
    fc.array(fc.record({ key: big, value: element }), { maxLength: 3 }),
  ),
);

function partOf(at: number, depth: number): fc.Arbitrary<Part> {
  const key = `f${at}`;
  const count = `n${at}`;
  const one = (
    kind: Kind<unknown> | ArrayOf<unknown, unknown>,
    value: unknown,
    base: unknown,
    before: Partial<Part> = {},
  ): Part => ({
    fields: [...(before.fields ?? []), field(key, kind as Kind<unknown>)],
    state: { ...before.state, [key]: value },
    base: base === undefined ? {} : { [key]: base },
  });
  const single = fc
    .oneof(sampleOf(depth), list)
    .map(({ kind, value, base }) => one(kind, value, base));
  const repeated = (
    length: number,
  ): fc.Arbitrary<Sample & { values: unknown[]; bases: unknown[] }> =>
    sampleOf(depth).map((sample) => ({
      ...sample,
      values: Array(length).fill(sample.value),
      bases: Array(length).fill(sample.base),
    }));
  const counter = fc.constantFrom<Kind<number>>(u8, u16, u32, i32);
  return fc.oneof(
    { weight: 3, arbitrary: single },
    fc
      .nat(12)
      .chain((length) =>
        repeated(length).map(({ kind, values, bases }) => one(array(kind, length), values, bases)),
      ),
    fc.tuple(fc.nat(3), counter, fc.constantFrom(1, 2)).chain(([n, countKind, times]) =>
      repeated(n * times).map(({ kind, values, bases }) =>
        one(varray(kind, count, { times }), values, bases, {
          fields: [field(count, countKind)],
          state: { [count]: n },
        }),
      ),
    ),
    fc
      .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }), u(16))
      .map(([rows, columns, v]) => {
        const value = Array.from({ length: rows }, () => Array(columns).fill(v));
        return one(array2d(u16, rows, columns), value, undefined);
      }),
    fc
      .tuple(fc.nat(3), fc.nat(3), fc.array(u(32), { minLength: 8, maxLength: 8 }))
      .map(([start, length, whole]) => {
        const base = whole.map((v, k) => (k >= start && k < start + length ? 0 : v));
        return one(subArray(u32, start, length), whole, base);
      }),
    fc.tuple(fc.nat(3), fc.nat(3), bytes(8)).map(([start, length, whole]) => {
      const base = whole.slice().fill(0, start, start + length);
      return one(bufferPart(start, start + length), whole, base);
    }),
    fc.tuple(fc.nat(4), fc.constantFrom(1, 3)).chain(([n, unitBytes]) =>
      bytes(n * unitBytes).map((value) =>
        one(vbuffer(count, { unitBytes }), value, undefined, {
          fields: [field(count, u16)],
          state: { [count]: n },
        }),
      ),
    ),
    fc.array(fc.option(u(16)), { maxLength: 5 }).map((value) =>
      one(
        pointerArray(u16, value.length),
        value,
        value.map((v) => (v === null ? null : 0)),
      ),
    ),
    fc.array(fc.option(element), { maxLength: 5 }).map((value) =>
      one(
        markedPointerArray(struct(elements) as Kind<object>, value.length),
        value,
        value.map(() => null),
      ),
    ),
    fc.nat(6).map((length) => ({ fields: [field(key, unused(length))], state: {}, base: {} })),
    u(16).map((value) => ({
      fields: [field(key, halved(key))],
      state: { [`${key}x`]: value * 2 },
      base: {},
    })),
    fc.tuple(fc.boolean(), u(16)).map(([isThere, value]) => ({
      fields: [
        field(count, bool),
        field(key, u16, { present: (state: State) => state[count] === true }),
      ],
      state: { [count]: isThere, ...(isThere ? { [key]: value } : {}) },
      base: {},
    })),
  );
}

function halved(key: string) {
  const half = describe({ name: 'half', version: 1, fields: [field('half', u16)] });
  return tmp({
    description: half,
    make: (parent: State) => ({ half: Number(parent[`${key}x`]) / 2 }),
    apply: (loaded, parent) => {
      parent[`${key}x`] = loaded.half * 2;
    },
  });
}

function describedBelow(depth: number, prefix?: string): fc.Arbitrary<Described> {
  const offset = prefix === undefined ? 0 : 100 * prefix.split('/').length;
  const parts = fc
    .nat(depth === 0 ? 3 : 5)
    .chain((length) => fc.tuple(...Array.from({ length }, (_, at) => partOf(offset + at, depth))));
  // Elements of an array that could begin with a subsection would be taken for those of the one before.
  const head = { fields: [field('head', u8)], state: { head: 0 }, base: {} };
  const own = fc
    .tuple(name, parts, fc.integer({ min: 1, max: 4 }))
    .map(([suffix, all, version]) => ({
      name: prefix === undefined ? suffix : `${prefix}/${suffix}`,
      version,
      fields: [head, ...all].flatMap(({ fields }) => fields),
      state: Object.assign({}, ...[head, ...all].map(({ state }) => state)) as State,
      base: Object.assign({}, ...all.map(({ base }) => base)) as State,
    }));
  return own.chain((d) => {
    const whole = (subsection?: Described, isNeeded = true): Described => ({
      description: describe({
        name: d.name,
        version: d.version,
        fields: d.fields,
        ...(subsection && {
          subsections: [
            describe({
              name: subsection.description.name,
              version: subsection.description.version,
              needed: () => isNeeded,
              fields: subsection.description.fields,
              subsections: subsection.description.subsections,
            }),
          ],
        }),
      }) as Description<object>,
      state: { ...d.state, ...(isNeeded ? subsection?.state : {}) },
      base: { ...d.base, ...(isNeeded ? subsection?.base : {}) },
    });
    if (depth === 0) return fc.constant(whole());
    return fc.oneof(
      { weight: 2, arbitrary: fc.constant(whole()) },
      fc
        .tuple(describedBelow(depth - 1, d.name), fc.boolean())
        .map(([subsection, isNeeded]) => whole(subsection, isNeeded)),
    );
  });
}

/** Any description of any kinds of fields, with a state of it. */
export const described: fc.Arbitrary<Described> = describedBelow(2);
