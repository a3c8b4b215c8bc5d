import { type ByteReader, type ByteWriter, need, type Parser } from '@wherry/bytes';
import type { ArrayOf, FixedKind, Kind, LoadContext } from './kind.ts';
import type { VmdescField } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

const MAX_ELEMENTS = 1 << 24;

/** A state while its fields are walked: by name, of any type. */
export type State = Record<string, unknown>;

/** One field of a description. `S` is the state that `present` looks at. */
export interface Field<Name extends string = string, T = unknown> {
  readonly name: Name;
  readonly kind: Kind<T> | ArrayOf<unknown>;
  /** First version of the description that holds the field; ignored where `present` is given, as in QEMU. */
  readonly since: number;
  /** Decides whether the field is there, from the state so far and the version of the stream. */
  readonly present: ((state: never, version: number) => boolean) | undefined;
}

/** Options of a {@link field}. */
export interface FieldOptions<S> {
  readonly since?: number;
  readonly present?: (state: S, version: number) => boolean;
}

/** Declares a field: its name in the state and in the vmdesc, and how its value is encoded. */
export function field<const Name extends string, T>(
  name: Name,
  kind: Kind<T>,
  options?: FieldOptions<never>,
): Field<Name, T>;
/** Declares a field that holds an array. */
export function field<const Name extends string, T>(
  name: Name,
  kind: ArrayOf<T>,
  options?: FieldOptions<never>,
): Field<Name, T[]>;
export function field(
  name: string,
  kind: Kind<unknown> | ArrayOf<unknown>,
  options: FieldOptions<never> = {},
): Field {
  return { name, kind, since: options.since ?? 0, present: options.present };
}

/** Tells an array of a kind from a kind. */
export function isArray(kind: Field['kind']): kind is ArrayOf<unknown> {
  return 'element' in kind;
}

/** Whether a field is on the wire of a state of this version. */
export function isPresent(f: Field, state: State, version: number): boolean {
  return f.present === undefined ? f.since <= version : f.present(state as never, version);
}

function countOf(
  kind: ArrayOf<unknown>,
  owner: Readonly<State>,
  offset: number,
  path: readonly string[],
): number {
  const count = typeof kind.count === 'number' ? kind.count : Number(owner[kind.count]);
  if (!(Number.isInteger(count) && count >= 0 && count <= MAX_ELEMENTS)) {
    throw new VmstateError(
      'COUNT_INVALID',
      `The array length in field ${kind.count} is not usable`,
      {
        expected: `0 to ${MAX_ELEMENTS}`,
        found: `${count}`,
        offset,
        path,
        likely: 'The stream is corrupt, or an earlier field has another size on the other side',
      },
    );
  }
  return count;
}

/** Writes a field and adds its entries to the vmdesc. */
export function saveField(
  writer: ByteWriter,
  f: Field,
  name: string,
  state: State,
  vmdesc: VmdescField[],
): void {
  const { kind } = f;
  const before = writer.length;
  if (!isArray(kind)) {
    const detail = kind.save(writer, state[f.name], state);
    vmdesc.push({ name, type: kind.type, ...detail, size: writer.length - before });
    return;
  }
  const { element } = kind;
  const values = state[f.name] as readonly unknown[];
  const count = arrayCount(kind, f.name, values, state, before);
  for (let i = 0; i < count; i++) {
    if (i > 0 && element.fixedBytes !== undefined) {
      putValue(writer, element, values[i], state);
      continue;
    }
    const start = writer.length;
    const detail = element.save(writer, values[i], state);
    const size = writer.length - start;
    // Uniform elements are described once; see vmsd_can_compress in QEMU's migration/vmstate.c.
    if (element.fixedBytes === undefined) {
      vmdesc.push({
        name,
        ...(count > 1 ? { index: i } : {}),
        type: element.type,
        ...detail,
        size,
      });
    } else {
      vmdesc.push({
        name,
        ...(count > 1 ? { array_len: count } : {}),
        type: element.type,
        ...detail,
        size,
      });
    }
  }
}

function arrayCount(
  kind: ArrayOf<unknown>,
  name: string,
  values: readonly unknown[],
  owner: State,
  offset: number,
): number {
  const count = countOf(kind, owner, offset, [name]);
  if (values.length < count) {
    throw new VmstateError('COUNT_INVALID', `Field ${name} has too few elements`, {
      expected: `${count}`,
      found: `${values.length}`,
    });
  }
  return count;
}

/** Writes a field of fixed size, without an entry for the vmdesc. */
export function putFixedField(writer: ByteWriter, f: Field, state: State): void {
  const { kind, name } = f;
  if (!isArray(kind)) {
    putValue(writer, kind as FixedKind<unknown>, state[name], state);
    return;
  }
  const element = kind.element as FixedKind<unknown>;
  const values = state[name] as readonly unknown[];
  const count = arrayCount(kind, name, values, state, writer.length);
  for (let i = 0; i < count; i++) putValue(writer, element, values[i], state);
}

function putValue(
  writer: ByteWriter,
  kind: FixedKind<unknown>,
  value: unknown,
  owner: State,
): void {
  if (kind.put === undefined) kind.save(writer, value, owner);
  else kind.put(writer, value, owner);
}

/** Reads a field into the context's owner, waiting for bytes as needed. */
export function* loadField(reader: ByteReader, f: Field, context: FieldContext): Parser<void> {
  const { kind, name } = f;
  const state = context.owner;
  context.name = name;
  if (!isArray(kind)) {
    if (kind.fixedBytes === undefined) {
      state[name] = yield* kind.load(reader, state[name], context);
    } else {
      yield* need(reader, kind.fixedBytes);
      setValue(state, name, kind.load(reader, state[name], context));
    }
    return;
  }
  const { element } = kind;
  const count = countOf(kind, state, reader.offset, context.path);
  const current = state[name] as readonly unknown[] | undefined;
  const values: unknown[] = [];
  for (let i = 0; i < count; i++) {
    if (element.fixedBytes === undefined) {
      const path = [...context.path, `${i}`];
      values.push(yield* element.load(reader, current?.[i], { path, owner: state }));
    } else {
      yield* need(reader, element.fixedBytes);
      values.push(element.load(reader, current?.[i], context));
    }
  }
  state[name] = values;
}

/** Reads a field of fixed size whose bytes are at hand. */
export function loadFixedField(reader: ByteReader, f: Field, context: FieldContext): void {
  const { kind, name } = f;
  const state = context.owner;
  context.name = name;
  if (!isArray(kind)) {
    setValue(state, name, (kind as FixedKind<unknown>).load(reader, state[name], context));
    return;
  }
  const element = kind.element as FixedKind<unknown>;
  const current = state[name] as readonly unknown[] | undefined;
  const values: unknown[] = [];
  for (let i = 0; i < (kind.count as number); i++) {
    values.push(element.load(reader, current?.[i], context));
  }
  state[name] = values;
}

function setValue(state: State, name: string, value: unknown): void {
  if (value !== undefined) state[name] = value; // unused bytes hold nothing
}

/** Where a load is: the path is put together only when somebody asks, that is for an error. */
export class FieldContext implements LoadContext {
  readonly owner: State;
  name = '';
  readonly #parent: { readonly path: readonly string[] };

  constructor(parent: { readonly path: readonly string[] }, owner: State) {
    this.#parent = parent;
    this.owner = owner;
  }

  get path(): readonly string[] {
    return [...this.#parent.path, this.name];
  }
}
