import { ByteReader, runParser } from '@wherry/bytes';
import { StreamWalk } from '@wherry/snapshot';
import {
  array,
  bool,
  buffer,
  type Description,
  describe,
  type Field,
  field,
  i8,
  i16,
  i32,
  i64,
  type Kind,
  struct,
  u8,
  u16,
  u32,
  u64,
  type VmdescField,
  type VmdescState,
} from '@wherry/vmstate';
import { loadFixture } from '../../conformance/fixtures.ts';
import type { VmstateSubject } from './vmstate-subject.ts';

/** The recorded machine has 0.47 MB of state; three of them are as much as a machine with more devices has. */
const MACHINES = 3;

type Scalar = 'bool' | 'u8' | 'u16' | 'u32' | 'u64' | 'i8' | 'i16' | 'i32' | 'i64';
const KINDS: Readonly<Record<Scalar, Kind<unknown>>> = {
  ...{ bool: bool as Kind<unknown>, u8: u8 as Kind<unknown>, u16: u16 as Kind<unknown> },
  ...{ u32: u32 as Kind<unknown>, u64: u64 as Kind<unknown>, i8: i8 as Kind<unknown> },
  ...{ i16: i16 as Kind<unknown>, i32: i32 as Kind<unknown>, i64: i64 as Kind<unknown> },
};

/** What the loop by hand does: so many scalars of a kind, or one run of bytes. */
interface Step {
  readonly kind: Scalar | 'raw';
  readonly count: number;
}

/** Gives the scalar of a vmdesc's type. */
function scalarOf(type: string): Scalar | undefined {
  if (type === 'bool') return 'bool';
  if (type === 'timer') return 'i64';
  const [, sign, bits] = /^(u?)int(8|16|32|64)(?: equal| le)?$/.exec(type) ?? [];
  return bits === undefined ? undefined : (`${sign === 'u' ? 'u' : 'i'}${bits}` as Scalar);
}

/** Takes a leaf apart: what the vmdesc has no fields for, such as a virtio device, counts as 32-bit words. */
function stepsOf({ type, size, array_len: length = 1 }: VmdescField): Step[] {
  const kind = scalarOf(type);
  if (kind !== undefined) return [{ kind, count: length }];
  if (type !== 'virtio') return Array<Step>(length).fill({ kind: 'raw', count: size });
  const words: Step = { kind: 'u32', count: Math.floor(size / 4) };
  return size % 4 === 0 ? [words] : [words, { kind: 'raw', count: size % 4 }];
}

const keyOf = (state: VmdescState, i: number, part = 0): string =>
  `${state.vmsd_name}.${state.fields[i]!.name}/${i}.${part}`;

function describeFrom(state: VmdescState): Description {
  const fields = state.fields.flatMap((f, i): Field[] => {
    if (f.struct !== undefined) {
      const nested = struct(describeFrom(f.struct));
      return [
        f.array_len === undefined
          ? field(keyOf(state, i), nested)
          : field(keyOf(state, i), array(nested, f.array_len)),
      ];
    }
    return stepsOf(f).map(({ kind, count }, part): Field => {
      const key = keyOf(state, i, part);
      if (kind === 'raw') return field(key, buffer(count));
      return count === 1 ? field(key, KINDS[kind]) : field(key, array(KINDS[kind], count));
    });
  });
  const { subsections = [] } = state;
  return describe({
    name: state.vmsd_name,
    version: state.version,
    fields,
    ...(subsections.length > 0 && { subsections: subsections.map(describeFrom) }),
  });
}

/** Lists the steps over a whole section; the heads of subsections are bytes like others. */
function programOf(state: VmdescState): Step[] {
  const own = state.fields.flatMap((f): Step[] => {
    if (f.struct === undefined) return stepsOf(f);
    const { struct: inner, array_len: length = 1 } = f;
    return Array.from({ length }, () => programOf(inner)).flat();
  });
  const behind = (state.subsections ?? []).flatMap((subsection): Step[] => [
    { kind: 'raw', count: 2 + subsection.vmsd_name.length + 4 },
    ...programOf(subsection),
  ]);
  return [...own, ...behind];
}

/** Lists a state's values in wire order. */
function* valuesOf(state: VmdescState, held: Record<string, unknown>): Generator<unknown> {
  for (const [i, f] of state.fields.entries()) {
    if (f.struct === undefined) {
      for (let part = 0; part < stepsOf(f).length; part++) {
        const value = held[keyOf(state, i, part)];
        if (Array.isArray(value)) yield* value;
        else yield value;
      }
      continue;
    }
    const nested = held[keyOf(state, i)];
    for (const each of Array.isArray(nested) ? nested : [nested]) yield* valuesOf(f.struct, each);
  }
  for (const subsection of state.subsections ?? []) yield* valuesOf(subsection, held);
}

/** Makes the state of a q35 machine of 11.1 with many devices, and a loop over the same bytes. */
export function q35Guest(): VmstateSubject {
  const { stream } = loadFixture('11.1', 'zoo-q35');
  const walk = new StreamWalk();
  const reader = ByteReader.over(stream);
  runParser(walk.walk(reader), reader);
  const { vmdesc, devices } = walk.model;
  const machine = (vmdesc?.value?.devices ?? []).flatMap((device, i) => {
    const { body } = devices[i]!;
    if (device.vmsd_name === undefined || body === undefined) return [];
    return [{ state: device as VmdescState, bytes: body }];
  });
  const all = Array.from({ length: MACHINES }, () => machine).flat();
  const described = new Map(machine.map(({ state }) => [state, describeFrom(state)]));
  const bytes = Buffer.concat(all.map((section) => section.bytes));
  const program = all.flatMap(({ state }) => programOf(state));
  return {
    sections: all.map((s) => ({ description: described.get(s.state)!, bytes: s.bytes })),
    handLoad: () => handLoad(program, bytes),
    handSave: (loaded, view) => handSave(program, loaded as unknown[], view),
    isSame(states, loaded) {
      const wanted = loaded as unknown[];
      let at = 0;
      for (const [i, { state }] of all.entries()) {
        for (const value of valuesOf(state, states[i] as Record<string, unknown>)) {
          while (isHead(wanted[at])) at++;
          if (!isEqual(wanted[at++], value)) return false;
        }
      }
      while (isHead(wanted[at])) at++;
      return at === wanted.length;
    },
  };
}

/** A subsection's head is no part of a state. */
function isHead(value: unknown): boolean {
  return value instanceof Uint8Array && value[0] === 5 && value.length === 6 + value[1]!;
}

function isEqual(a: unknown, b: unknown): boolean {
  if (!(a instanceof Uint8Array && b instanceof Uint8Array)) return a === b;
  return Buffer.compare(a, b) === 0;
}

function handLoad(program: readonly Step[], bytes: Uint8Array): unknown[] {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const values: unknown[] = [];
  let at = 0;
  for (const { kind, count } of program) {
    switch (kind) {
      case 'bool':
        for (let i = 0; i < count; i++) values.push(v.getUint8(at++) !== 0);
        break;
      case 'u8':
        for (let i = 0; i < count; i++) values.push(v.getUint8(at++));
        break;
      case 'i8':
        for (let i = 0; i < count; i++) values.push(v.getInt8(at++));
        break;
      case 'u16':
        for (let i = 0; i < count; i++, at += 2) values.push(v.getUint16(at));
        break;
      case 'i16':
        for (let i = 0; i < count; i++, at += 2) values.push(v.getInt16(at));
        break;
      case 'u32':
        for (let i = 0; i < count; i++, at += 4) values.push(v.getUint32(at));
        break;
      case 'i32':
        for (let i = 0; i < count; i++, at += 4) values.push(v.getInt32(at));
        break;
      case 'u64':
        for (let i = 0; i < count; i++, at += 8) values.push(v.getBigUint64(at));
        break;
      case 'i64':
        for (let i = 0; i < count; i++, at += 8) values.push(v.getBigInt64(at));
        break;
      case 'raw':
        values.push(new Uint8Array(bytes.subarray(at, (at += count))));
    }
  }
  return values;
}

function handSave(program: readonly Step[], values: readonly unknown[], v: DataView): number {
  const bytes = new Uint8Array(v.buffer);
  let at = 0;
  let next = 0;
  for (const { kind, count } of program) {
    switch (kind) {
      case 'bool':
        for (let i = 0; i < count; i++) v.setUint8(at++, values[next++] ? 1 : 0);
        break;
      case 'u8':
      case 'i8':
        for (let i = 0; i < count; i++) v.setUint8(at++, values[next++] as number);
        break;
      case 'u16':
      case 'i16':
        for (let i = 0; i < count; i++, at += 2) v.setUint16(at, values[next++] as number);
        break;
      case 'u32':
      case 'i32':
        for (let i = 0; i < count; i++, at += 4) v.setUint32(at, values[next++] as number);
        break;
      case 'u64':
      case 'i64':
        for (let i = 0; i < count; i++, at += 8) v.setBigUint64(at, values[next++] as bigint);
        break;
      case 'raw':
        bytes.set(values[next++] as Uint8Array, at);
        at += count;
    }
  }
  return at;
}
