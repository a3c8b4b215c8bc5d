import type { ByteReader, ByteWriter, Parser } from '@wherry/bytes';

/** What a kind may look at while it loads a value. */
export interface LoadContext {
  /** Section, device and fields down to the value, outermost first; for messages. */
  readonly path: readonly string[];
  /** The fields of the same description that were loaded before, over the previous state. */
  readonly owner: Readonly<Record<string, unknown>>;
}

/** What a kind adds to its field's entry in the vmdesc, such as `{ struct: … }`. */
export type VmdescDetail = { readonly [key: string]: unknown };

interface KindBase<T> {
  /** The type's name in a vmdesc. @see the `name` of each VMStateInfo in QEMU's migration/vmstate-types.c */
  readonly type: string;
  /** Writes a value in wire order; returns what the vmdesc tells about its inside. */
  save(
    writer: ByteWriter,
    value: T,
    owner: Readonly<Record<string, unknown>>,
  ): VmdescDetail | undefined;
}

/** A kind whose every value takes the same number of bytes, so that runs of them load without waiting. */
export interface FixedKind<T> extends KindBase<T> {
  readonly fixedBytes: number;
  /** Writes as `save` does and tells nothing, for elements that the vmdesc describes once. */
  put?(writer: ByteWriter, value: T, owner: Readonly<Record<string, unknown>>): void;
  /** Reads a value; its bytes are at hand. `current` is the value before the load. */
  load(reader: ByteReader, current: T | undefined, context: LoadContext): T;
}

/** A kind whose size depends on the value or on other fields. */
export interface VariableKind<T> extends KindBase<T> {
  readonly fixedBytes: undefined;
  /** Reads a value, waiting for bytes as needed. `current` is the value before the load. */
  load(reader: ByteReader, current: T | undefined, context: LoadContext): Parser<T>;
}

/** How one value of device state is written and read. */
export type Kind<T> = FixedKind<T> | VariableKind<T>;

/** Elements of one kind, back to back; their number is fixed or held by an earlier field, and never on the wire. */
export interface ArrayOf<T> {
  readonly element: Kind<T>;
  /** The number of elements, or the name of the earlier field that holds it. */
  readonly count: number | string;
}

/** Makes an array of a fixed number of elements. @see VMSTATE_ARRAY in QEMU's include/migration/vmstate.h */
export function array<T>(element: Kind<T>, count: number): ArrayOf<T> {
  return { element, count };
}

/** Makes an array whose length an earlier field holds. @see VMSTATE_VARRAY_UINT32 in QEMU's include/migration/vmstate.h */
export function varray<T>(element: Kind<T>, countField: string): ArrayOf<T> {
  return { element, count: countField };
}
