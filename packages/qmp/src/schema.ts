/**
 * Schemas are plain data in QAPI's own terms, written `as const`, and TypeScript infers the types
 * from them: a member named `'*x'` is optional, `['T']` is a list of `T`.
 *
 * @see QEMU docs/devel/qapi-code-gen.rst
 */

/** Names a type: a built-in one, one of the schema's, or a list of such. */
export type QapiTypeRef = string | readonly [string];

/** Maps member names, `'*'` before the optional ones, to types. */
export interface QapiMembers {
  readonly [member: string]: QapiTypeRef;
}

export interface QapiStruct {
  readonly struct: QapiMembers;
}

export interface QapiEnum {
  readonly enum: readonly string[];
}

/** Is a flat union: the discriminator's value chooses the struct whose members stand beside it. */
export interface QapiUnion {
  readonly discriminator: string;
  /** The enum type of the discriminator. */
  readonly by: string;
  readonly union: { readonly [value: string]: string };
}

/** Is a string, or else null or a struct: told apart by their JSON type. */
export interface QapiAlternate {
  readonly alternate: readonly ['str', string];
}

export type QapiDefinition = QapiStruct | QapiEnum | QapiUnion | QapiAlternate;

export interface QapiCommand {
  /** The arguments: members, or the name of a struct that has them. */
  readonly data?: QapiMembers | string;
  readonly returns?: QapiTypeRef;
  /** May be executed out of band. */
  readonly allowOob?: boolean;
}

export interface QapiEvent {
  readonly data?: QapiMembers;
}

export interface QapiSchema {
  readonly types?: { readonly [name: string]: QapiDefinition };
  readonly commands?: { readonly [name: string]: QapiCommand };
  readonly events?: { readonly [name: string]: QapiEvent };
}

/** An integer of 64 bits: a `number` while it is exact (up to 2^53), a `bigint` beyond. */
export type QapiInt64 = number | bigint;

/** The built-in types. `number` is a double, `size` an unsigned count of bytes. */
export interface QapiBuiltins {
  str: string;
  bool: boolean;
  number: number;
  null: null;
  any: unknown;
  int: QapiInt64;
  int8: number;
  int16: number;
  int32: number;
  int64: QapiInt64;
  uint8: number;
  uint16: number;
  uint32: number;
  uint64: QapiInt64;
  size: QapiInt64;
}

type Flatten<T> = { [K in keyof T]: T[K] };
type Empty = Record<never, never>;
type Part<S, K extends string> = S extends { readonly [P in K]: infer V } ? V : Empty;

/** The object type of a set of members. */
export type QapiObject<S, M> = Flatten<
  { -readonly [K in keyof M as K extends `*${string}` ? never : K]: QapiValue<S, M[K]> } & {
    -readonly [K in keyof M as K extends `*${infer N}` ? N : never]?:
      | QapiValue<S, M[K]>
      | undefined;
  }
>;

type UnionValue<S, D extends string, U> = {
  [V in keyof U]: Flatten<{ [K in D]: V } & QapiValue<S, U[V]>>;
}[keyof U];

type DefinitionValue<S, D> = D extends { readonly enum: readonly (infer E)[] }
  ? E
  : D extends { readonly alternate: readonly ['str', infer O] }
    ? string | QapiValue<S, O>
    : D extends { readonly discriminator: infer N extends string; readonly union: infer U }
      ? UnionValue<S, N, U>
      : D extends { readonly struct: infer M }
        ? QapiObject<S, M>
        : never;

/** The TypeScript type of a type of schema `S`. */
export type QapiValue<S, R> = R extends readonly [infer E]
  ? readonly QapiValue<S, E>[]
  : R extends keyof QapiBuiltins
    ? QapiBuiltins[R]
    : R extends keyof Part<S, 'types'>
      ? DefinitionValue<S, Part<S, 'types'>[R]>
      : never;

/** The names of the commands of schema `S`. */
export type QapiCommandName<S> = keyof Part<S, 'commands'> & string;

/** The names of the events of schema `S`. */
export type QapiEventName<S> = keyof Part<S, 'events'> & string;

/** The arguments of a command, as a handler gets them and a client gives them. */
export type QapiArguments<S, N> = N extends keyof Part<S, 'commands'>
  ? Part<S, 'commands'>[N] extends { readonly data: infer D }
    ? D extends string
      ? QapiValue<S, D>
      : QapiObject<S, D>
    : Empty
  : never;

/** What a command returns; an empty object where the schema names nothing. */
export type QapiReturn<S, N> = N extends keyof Part<S, 'commands'>
  ? Part<S, 'commands'>[N] extends { readonly returns: infer R }
    ? QapiValue<S, R>
    : Empty
  : never;

/** Tells whether a command of the schema names a type that it returns. */
export type QapiHasReturn<S, N> = N extends keyof Part<S, 'commands'>
  ? Part<S, 'commands'>[N] extends { readonly returns: unknown }
    ? true
    : false
  : false;

/** The data of an event; an empty object where it has none. */
export type QapiEventData<S, N> = N extends keyof Part<S, 'events'>
  ? Part<S, 'events'>[N] extends { readonly data: infer D }
    ? QapiObject<S, D>
    : Empty
  : never;

type MergedPart<A, B, K extends string> = Flatten<Omit<Part<A, K>, keyof Part<B, K>> & Part<B, K>>;

/** Schema `A` with all of `B` added, `B`'s definition in place of one of the same name. */
export interface QapiMerged<A, B> {
  readonly types: MergedPart<A, B, 'types'>;
  readonly commands: MergedPart<A, B, 'commands'>;
  readonly events: MergedPart<A, B, 'events'>;
}

/**
 * Adds a schema to another; where both define a name, the second wins. So a server narrows an enum
 * or a struct to what it supports, and the rest is refused with QEMU's texts.
 */
export function mergeSchemas<const A extends QapiSchema, const B extends QapiSchema>(
  a: A,
  b: B,
): QapiMerged<A, B> {
  const merged: QapiSchema = {
    types: { ...a.types, ...b.types },
    commands: { ...a.commands, ...b.commands },
    events: { ...a.events, ...b.events },
  };
  return merged as QapiMerged<A, B>;
}
