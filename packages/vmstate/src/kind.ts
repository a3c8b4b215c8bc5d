import type { ByteReader, ByteWriter, Parser } from '@wherry/bytes';
import type { VmdescStyle } from './format-vmdesc.ts';
import type { VmdescState } from './vmdesc.ts';

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
  /** Whether parts of a value come and go, so that a vmdesc describes each element of an array of it. */
  readonly conditional?: boolean;
  /** Whether values are no part of the state, as of bytes that nobody uses. */
  readonly holdsNothing?: boolean;
  /**
   * Writes a value in wire order.
   *
   * @param style the vmdesc that is wanted; without it nothing is to be described
   * @returns what the vmdesc tells about the value's inside
   */
  save(
    writer: ByteWriter,
    value: T,
    owner: Readonly<Record<string, unknown>>,
    style?: VmdescStyle,
  ): VmdescDetail | undefined;
}

/** A kind whose every value takes the same number of bytes, so that runs of them load without waiting. */
export interface FixedKind<T> extends KindBase<T> {
  readonly fixedBytes: number;
  /** Reads a value; its bytes are at hand. `current` is the value before the load. */
  load(reader: ByteReader, current: T | undefined, context: LoadContext): T;
  /** How a compiled description does the same in line; kinds that look at anything but the bytes have none. */
  readonly inline?: InlineCode;
  /** Reads the subsections behind a struct that is a field of its own. */
  loadRest?(reader: ByteReader, state: T, context: LoadContext): Parser<void>;
}

/** A kind whose size depends on the value or on other fields. */
export interface VariableKind<T> extends KindBase<T> {
  readonly fixedBytes: undefined;
  /** Reads a value, waiting for bytes as needed. `current` is the value before the load. */
  load(reader: ByteReader, current: T | undefined, context: LoadContext): Parser<T>;
}

/** How one value of device state is written and read. */
export type Kind<T> = FixedKind<T> | VariableKind<T>;

/**
 * JavaScript that reads a value at index `at` of the bytes `b` (`v` is a DataView of them), and that
 * writes one there; or the struct whose fields do so.
 */
export type InlineCode =
  | {
      readonly read: (at: string) => string;
      readonly write: (at: string, value: string) => string;
    }
  | { readonly struct: InlineStruct };

/** A description all of whose fields are read and written in line. */
export interface InlineStruct {
  readonly fields: readonly InlineField[];
  /** What the vmdesc says of it, whatever its values. */
  readonly vmdesc: VmdescState;
}

/** A field that is read and written in line. */
export interface InlineField {
  readonly name: string;
  readonly kind: Kind<unknown> | ArrayOf<unknown, unknown>;
}

/**
 * Elements of one kind, back to back; their number is fixed or held by an earlier field, and never on
 * the wire. `V` is how the state holds them.
 */
export interface ArrayOf<T, V = T[]> {
  readonly element: Kind<T>;
  /** The number of elements, or the name of the earlier field that holds it. */
  readonly count: number | string;
  /** What the number that the field holds is multiplied by; default 1. */
  readonly times?: number;
  /** Where elements can be null: `own` takes the holes from the state itself, `marked` from the wire. */
  readonly pointers?: 'own' | 'marked';
  /** Gives the elements that are on the wire, of a value of the state. */
  unpack?(value: V): readonly T[];
  /** Gives the state's value, from the elements that were on the wire and the value before. */
  pack?(elements: T[], current: V | undefined): V;
}
