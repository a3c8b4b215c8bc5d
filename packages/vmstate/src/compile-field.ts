import { type ByteReader, type ByteWriter, need, type Parser } from '@wherry/bytes';
import { type Field, isArray, isConditional, type State } from './field.ts';
import type { VmdescStyle } from './format-vmdesc.ts';
import type { ArrayOf, FixedKind, Kind, LoadContext } from './kind.ts';
import type { FieldContext } from './load-context.ts';
import type { VmdescField } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

const MAX_ELEMENTS = 1 << 24;
/** Elements without a byte cost their sender nothing. */
const MAX_EMPTY_ELEMENTS = 1 << 16;
const NULL_POINTER = 0x30;
const VALID_POINTER = 0x31;

/** Where the entries of a vmdesc go, and how they are written. */
export interface VmdescSink {
  readonly style: VmdescStyle;
  readonly fields: VmdescField[];
}

/** A field that can be written and read. */
export interface CompiledField {
  readonly field: Field;
  /** Bytes of the field, where it always has as many. */
  readonly fixedBytes: number | undefined;
  /** Writes the field; adds its entries to the vmdesc where one is wanted. */
  save(writer: ByteWriter, state: State, sink: VmdescSink | undefined): void;
  /** Reads the field into the context's owner, waiting for bytes as needed. */
  load(reader: ByteReader, context: FieldContext): Parser<void>;
  /** Reads a field of fixed size whose bytes are at hand. */
  loadAtHand(reader: ByteReader, context: FieldContext): void;
}

/** Compiles a field; `name` is its name in the vmdesc. */
export function compileField(field: Field, name: string, isUnique: boolean): CompiledField {
  const { kind } = field;
  // A marker is not one of the table's fields, so that QEMU finds no ordinal for it.
  const markerName = isUnique ? name : `${field.name}[-1]`;
  return isArray(kind)
    ? compileArray(field, kind, name, markerName)
    : compileSingle(field, kind, name);
}

function compileSingle(field: Field, kind: Kind<unknown>, name: string): CompiledField {
  const { name: key } = field;
  const { type, fixedBytes, holdsNothing = false } = kind;
  const take = (state: State, value: unknown): void => {
    if (!holdsNothing) state[key] = value;
  };
  return {
    field,
    fixedBytes,
    save(writer, state, sink) {
      const before = writer.length;
      const detail = kind.save(writer, state[key], state, sink?.style);
      sink?.fields.push({ name, type, ...detail, size: writer.length - before });
    },
    *load(reader, context) {
      const { owner } = context;
      if (kind.fixedBytes === undefined) {
        take(owner, yield* kind.load(reader, owner[key], context));
        return;
      }
      if (reader.available < kind.fixedBytes) yield* need(reader, kind.fixedBytes);
      take(owner, kind.load(reader, owner[key], context));
      if (kind.loadRest !== undefined) yield* kind.loadRest(reader, owner[key], context);
    },
    loadAtHand(reader, context) {
      const { owner } = context;
      take(owner, (kind as FixedKind<unknown>).load(reader, owner[key], context));
    },
  };
}

function compileArray(
  field: Field,
  kind: ArrayOf<unknown, unknown>,
  name: string,
  markerName: string,
): CompiledField {
  const { name: key } = field;
  const { element, count, pointers } = kind;
  const holdsNothing = element.holdsNothing ?? false;
  const isUniform = !isConditional(field);
  const unpack = (value: unknown): readonly unknown[] =>
    kind.unpack === undefined ? (value as readonly unknown[]) : kind.unpack(value);
  const take = (state: State, elements: unknown[]): void => {
    if (holdsNothing) return;
    state[key] = kind.pack === undefined ? elements : kind.pack(elements, state[key]);
  };
  const elementBytes = element.fixedBytes;

  return {
    field,
    fixedBytes:
      elementBytes === undefined || typeof count === 'string' || pointers !== undefined
        ? undefined
        : elementBytes * count,
    save(writer, state, sink) {
      const n = countOf(kind, state, writer.length, [key]);
      const values = holdsNothing ? [] : unpack(state[key]);
      if (!holdsNothing && values.length < n) {
        throw new VmstateError('COUNT_INVALID', `Field ${key} has too few elements`, {
          expected: `${n}`,
          found: `${values.length}`,
        });
      }
      const entries = sink && new ArrayEntries(sink, { isUniform, values, count: n, pointers });
      for (let i = 0; i < n; i++) {
        const value = values[i];
        const isNull = pointers !== undefined && value === null;
        const isMarked = isNull || pointers === 'marked';
        const place = entries?.begin(i, isNull);
        if (isMarked) {
          writer.u8(isNull ? NULL_POINTER : VALID_POINTER);
          if (place !== undefined) entries?.addMarker(name, markerName, element.type, place);
        }
        if (!isNull) {
          const before = writer.length;
          const detail = element.save(writer, value, state, place && sink?.style);
          if (place !== undefined) {
            const size = writer.length - before;
            entries?.add({ name, ...place, type: element.type, ...detail, size });
          }
        }
        entries?.end();
      }
    },
    *load(reader, context) {
      const { owner } = context;
      const n = countOf(kind, owner, reader.offset, context.path);
      const current = currentElements(owner[key], unpack);
      const elements: unknown[] = [];
      let empty = 0;
      for (let i = 0; i < n; i++) {
        context.index = i;
        let before = current?.[i];
        const { offset } = reader;
        if (pointers === 'marked' || (pointers === 'own' && before === null)) {
          if (yield* loadMarker(reader, pointers, context)) {
            elements.push(null);
            continue;
          }
          before = undefined;
        }
        if (elementBytes === undefined) {
          elements.push(yield* element.load(reader, before, context) as Parser<unknown>);
        } else {
          if (reader.available < elementBytes) yield* need(reader, elementBytes);
          const value = (element as FixedKind<unknown>).load(reader, before, context);
          if (!holdsNothing) elements.push(value);
        }
        if (reader.offset === offset && ++empty > MAX_EMPTY_ELEMENTS) {
          throw badCount(kind, n, MAX_EMPTY_ELEMENTS, offset, context.path);
        }
      }
      context.index = undefined;
      take(owner, elements);
    },
    loadAtHand(reader, context) {
      const { owner } = context;
      const current = currentElements(owner[key], unpack);
      const elements: unknown[] = [];
      for (let i = 0; i < (count as number); i++) {
        context.index = i;
        const value = (element as FixedKind<unknown>).load(reader, current?.[i], context);
        if (!holdsNothing) elements.push(value);
      }
      context.index = undefined;
      take(owner, elements);
    },
  };
}

function currentElements(
  value: unknown,
  unpack: (value: unknown) => readonly unknown[],
): readonly unknown[] | undefined {
  return value === undefined ? undefined : unpack(value);
}

/** Reads the marker of a pointer. @returns whether it is null */
function* loadMarker(
  reader: ByteReader,
  pointers: 'own' | 'marked',
  context: LoadContext,
): Parser<boolean> {
  yield* need(reader, 1);
  const { offset } = reader;
  const marker = reader.u8();
  if (marker === NULL_POINTER) return true;
  if (marker === VALID_POINTER && pointers === 'marked') return false;
  const hex = (byte: number): string => `0x${byte.toString(16).padStart(2, '0')}`;
  throw new VmstateError('VALUE_INVALID', 'A pointer of an array has another marker', {
    expected:
      pointers === 'own' ? hex(NULL_POINTER) : `${hex(NULL_POINTER)} or ${hex(VALID_POINTER)}`,
    found: hex(marker),
    offset,
    path: context.path,
    likely:
      'The device has a part on the other side that it lacks here: give both the same options',
  });
}

function countOf(
  kind: ArrayOf<unknown, unknown>,
  owner: Readonly<State>,
  offset: number,
  path: readonly string[],
): number {
  const { count, times = 1 } = kind;
  const n = typeof count === 'number' ? count : Number(owner[count]) * times;
  if (Number.isInteger(n) && n >= 0 && n <= MAX_ELEMENTS) return n;
  throw badCount(kind, n, MAX_ELEMENTS, offset, path);
}

function badCount(
  { count }: ArrayOf<unknown, unknown>,
  found: number,
  limit: number,
  offset: number,
  path: readonly string[],
): VmstateError {
  return new VmstateError('COUNT_INVALID', `The array length in field ${count} is not usable`, {
    expected: `0 to ${limit}`,
    found: `${found}`,
    offset,
    path,
    likely: 'The stream is corrupt, or an earlier field has another size on the other side',
  });
}

/** What an entry says of its place in the array. */
type Place = { readonly array_len?: number; readonly index?: number };

interface ArrayFacts {
  /** Whether QEMU describes an element once for all. */
  readonly isUniform: boolean;
  readonly values: readonly unknown[];
  readonly count: number;
  readonly pointers: 'own' | 'marked' | undefined;
}

/**
 * Decides which elements of an array the vmdesc describes, and as what. It follows QEMU where QEMU is
 * wrong: before 10.0 an array with null pointers is described by its first element; since then the run
 * of elements before the first null is said to be as long as the whole array.
 *
 * @see the loop of vmstate_save_state_v in QEMU's migration/vmstate.c
 */
class ArrayEntries {
  readonly #sink: VmdescSink;
  readonly #facts: ArrayFacts;
  /** 5.2 and 7.2 know nothing of runs. */
  readonly #hasRuns: boolean;
  readonly #indexes: boolean;
  #isDescribing = true;
  #wasNull = false;
  #max = 0;

  constructor(sink: VmdescSink, facts: ArrayFacts) {
    this.#sink = sink;
    this.#facts = facts;
    this.#indexes = sink.style !== '11.1';
    this.#hasRuns = sink.style === '10.0' || sink.style === '11.1';
  }

  /** Begins element `i`. @returns its place, unless an earlier element has described it */
  begin(i: number, isNull: boolean): Place | undefined {
    const { isUniform, count, pointers } = this.#facts;
    this.#max = this.#hasRuns ? count - i : count;
    if (!this.#indexes && !isUniform) this.#max = 1;
    const canRun = this.#hasRuns && pointers !== undefined && (this.#indexes || this.#max > 1);
    if (canRun && isNull !== this.#wasNull) {
      this.#wasNull = isNull;
      this.#isDescribing = true;
      this.#max = this.#runFrom(i, isNull) ?? this.#max;
    }
    if (!this.#isDescribing) return undefined;
    if (this.#max <= 1) return {};
    return isUniform || (isNull && this.#hasRuns) ? { array_len: this.#max } : { index: i };
  }

  add(entry: VmdescField): void {
    this.#sink.fields.push(entry);
  }

  addMarker(name: string, markerName: string, type: string, place: Place): void {
    if (this.#hasRuns) {
      const markerType = this.#indexes ? 'nullptr' : 'ptr-marker';
      this.add({ name: markerName, ...place, type: markerType, size: 1 });
    } else {
      this.add({
        name,
        ...place,
        type,
        ...(type === 'struct' && { struct: {} }),
        size: 1,
      } as VmdescField);
    }
  }

  end(): void {
    if (this.#indexes ? this.#facts.isUniform : this.#max > 1) this.#isDescribing = false;
  }

  #runFrom(start: number, isNull: boolean): number | undefined {
    const { values, count } = this.#facts;
    for (let i = start + 1; i < count; i++) {
      if ((values[i] === null) !== isNull) return i - start;
    }
    return undefined;
  }
}
