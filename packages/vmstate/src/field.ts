import { array } from './array-kinds.ts';
import { unused } from './buffer-kinds.ts';
import type { ArrayOf, Kind } from './kind.ts';
import type { TmpKind } from './tmp.ts';

/** A state while its fields are walked: by name, of any type. */
export type State = Record<string, unknown>;

/**
 * One field of a description: its name, the type of its value, whether a state may lack it, and the
 * part of the state that a `tmp` stands for.
 */
export interface Field<
  Name extends string = string,
  T = unknown,
  Optional extends boolean = boolean,
  Parent = unknown,
> {
  readonly name: Name;
  readonly kind: Kind<T> | ArrayOf<unknown, unknown>;
  /** First version of the description that holds the field; ignored where `present` is given, as in QEMU. */
  readonly since: number;
  /** Decides whether the field is there, from the state so far and the version of the stream. */
  readonly present: ((state: never, version: number) => boolean) | undefined;
  /** Whether a state in which the field is not there is refused. */
  readonly mustExist: boolean;
  /** Never there: what the compiler infers a state by. */
  readonly inferred?: { readonly optional: Optional; readonly parent: Parent };
}

/** Options of a {@link field}. */
export interface FieldOptions {
  /** First version of the description that holds the field. */
  readonly since?: number;
  readonly present?: undefined;
}

/** Options of a {@link field} under a test: it may be absent from the state as it may from the wire. */
export interface TestedFieldOptions<S> {
  /** Decides alone, whatever the version. @see the `_TEST` macros in QEMU's include/migration/vmstate.h */
  readonly present: (state: S, version: number) => boolean;
}

/** Declares a field: its name in the state and in the vmdesc, and how its value is encoded. */
export function field<const Name extends string, P>(
  name: Name,
  kind: TmpKind<P>,
  options?: FieldOptions | TestedFieldOptions<never>,
): Field<Name, undefined, true, P>;
/** Declares a field that may be absent. */
export function field<const Name extends string, T>(
  name: Name,
  kind: Kind<T>,
  options: TestedFieldOptions<never>,
): Field<Name, T, true>;
/** Declares a field of one value. */
export function field<const Name extends string, T>(
  name: Name,
  kind: Kind<T>,
  options?: FieldOptions,
): Field<Name, T, false>;
/** Declares an array that may be absent. */
export function field<const Name extends string, T, V>(
  name: Name,
  kind: ArrayOf<T, V>,
  options: TestedFieldOptions<never>,
): Field<Name, V, true>;
/** Declares a field that holds an array. */
export function field<const Name extends string, T, V>(
  name: Name,
  kind: ArrayOf<T, V>,
  options?: FieldOptions,
): Field<Name, V, false>;
export function field(
  name: string,
  kind: Kind<unknown> | ArrayOf<unknown, unknown>,
  options: FieldOptions | TestedFieldOptions<never> = {},
): Field {
  const { since = 0, present } = options as FieldOptions & Partial<TestedFieldOptions<never>>;
  return { name, kind, since, present, mustExist: false };
}

/**
 * Declares a check of the state so far: no bytes, and a state that fails it is refused, also when saving.
 *
 * @see VMSTATE_VALIDATE in QEMU's include/migration/vmstate.h
 */
export function validate<const Name extends string>(
  name: Name,
  test: (state: never, version: number) => boolean,
): Field<Name, undefined, true> {
  return { name, kind: array(unused(1), 0), since: 0, present: test, mustExist: true };
}

/** Tells an array of a kind from a kind. */
export function isArray(
  kind: Kind<unknown> | ArrayOf<unknown, unknown>,
): kind is ArrayOf<unknown, unknown> {
  return 'element' in kind;
}

/** Whether a field is on the wire of a state of this version. */
export function isPresent(f: Field, state: State, version: number): boolean {
  return f.present === undefined ? f.since <= version : f.present(state as never, version);
}

/** Whether a vmdesc cannot describe an element once for all. @see vmsd_can_compress in QEMU's migration/vmstate.c */
export function isConditional({ kind, present }: Field): boolean {
  if (present !== undefined) return true;
  if (!isArray(kind)) return kind.conditional ?? false;
  return kind.pointers === 'marked' || (kind.element.conditional ?? false);
}

type Nothing = undefined | undefined[];

type Required<K> =
  K extends Field<infer Name, infer T, infer Optional>
    ? [T] extends [Nothing]
      ? never
      : true extends Optional
        ? never
        : Name
    : never;

type Optional<K> =
  K extends Field<infer Name, infer T, infer Optional>
    ? [T] extends [Nothing]
      ? never
      : true extends Optional
        ? Name
        : never
    : never;

type ValueOf<K> = K extends Field<string, infer T> ? T : never;
/** All the parts together; a union of them would be no more than the least of them. */
type ParentsOf<K> = (
  K extends Field<string, unknown, boolean, infer P>
    ? (parent: P) => void
    : never
) extends (parent: infer All) => void
  ? All
  : never;

type Flat<T> = { [K in keyof T]: T[K] };

/** The state that a list of fields describes: a field that holds nothing is no part of it, one under a test is optional. */
export type FieldsState<F extends readonly Field[]> = Flat<
  { [K in F[number] as Required<K>]: ValueOf<K> } & {
    [K in F[number] as Optional<K>]?: ValueOf<K>;
  } & ParentsOf<F[number]>
>;
