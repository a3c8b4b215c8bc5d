import { type ByteReader, type ByteWriter, need, type Parser } from '@wherry/bytes';
import type { Description } from './description.ts';
import type { VmdescStyle } from './format-vmdesc.ts';
import type { LoadContext, VariableKind, VmdescDetail } from './kind.ts';
import type { VmdescState } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

/** No list of a device is longer: they hold what a guest set up or has pending. */
const MAX_ELEMENTS = 1 << 20;

/**
 * Tells what is inside a field without a `struct` of its own: one description is among the field's own
 * members; QEMU repeats these for more, which is `elements` here.
 */
export function inlineDetail(
  states: readonly (VmdescState | undefined)[],
): VmdescDetail | undefined {
  const described = states.filter((state) => state !== undefined);
  if (described.length === 0) return undefined;
  return described.length === 1 ? { ...described[0] } : { elements: described };
}

/** Options of a list. */
export interface ListOptions {
  /** Version of the elements, not on the wire; default that of their description. */
  readonly version?: number;
}

/**
 * Makes a list: `01` and an element, each, then `00`. The loaded elements replace those of the base;
 * QEMU appends them, to what is empty in every device.
 *
 * @see VMSTATE_QTAILQ_V in QEMU's include/migration/vmstate.h, vmstate_info_qtailq
 */
export function qtailq<S>(description: Description<S>, options?: ListOptions): VariableKind<S[]> {
  return list('qtailq', description, options);
}

/** Makes a list with the bytes of a {@link qtailq}. @see VMSTATE_QLIST_V in QEMU's include/migration/vmstate.h, vmstate_info_qlist */
export function qlist<S>(description: Description<S>, options?: ListOptions): VariableKind<S[]> {
  return list('qlist', description, options);
}

function list<S>(
  type: string,
  description: Description<S>,
  { version = description.version }: ListOptions = {},
): VariableKind<S[]> {
  return {
    type,
    fixedBytes: undefined,
    save(writer, values, _owner, style) {
      const states: (VmdescState | undefined)[] = [];
      for (const value of values) {
        writer.u8(1);
        states.push(saveElement(writer, description, value, style));
      }
      writer.u8(0);
      return inlineDetail(states);
    },
    *load(reader, _current, context) {
      const values: S[] = [];
      while (yield* hasNext(reader, values.length, MAX_ELEMENTS, context)) {
        const state = {} as S;
        yield* description.loadInto(reader, state, version, element(context, values.length));
        values.push(state);
      }
      return values;
    },
  };
}

/** A node of a tree. */
export interface GtreeEntry<K, V> {
  readonly key: K;
  readonly value: V;
}

/**
 * Makes a tree whose keys are descriptions: the number of nodes, `01` with key and value, each, then
 * `00`. The state holds the nodes in the order of the wire, which is that of their keys.
 *
 * @see VMSTATE_GTREE_V in QEMU's include/migration/vmstate.h, vmstate_info_gtree
 */
export function gtree<K, V>(
  key: Description<K>,
  value: Description<V>,
  options: ListOptions = {},
): VariableKind<GtreeEntry<K, V>[]> {
  return tree(value, options.version, {
    save: (writer, k, style) => saveElement(writer, key, k, style),
    *load(reader, context) {
      const state = {} as K;
      yield* key.loadInto(reader, state, options.version ?? key.version, context);
      return state;
    },
  });
}

/** Makes a tree as {@link gtree} does whose keys are unsigned 64-bit numbers. @see VMSTATE_GTREE_DIRECT_KEY_V in QEMU's include/migration/vmstate.h */
export function gtreeOfNumbers<V>(
  value: Description<V>,
  options: ListOptions = {},
): VariableKind<GtreeEntry<bigint, V>[]> {
  return tree(value, options.version, {
    save(writer, key) {
      writer.u64(key);
      return undefined;
    },
    *load(reader) {
      yield* need(reader, 8);
      return reader.u64();
    },
  });
}

interface KeyCodec<K> {
  save(writer: ByteWriter, key: K, style: VmdescStyle | undefined): VmdescState | undefined;
  load(reader: ByteReader, context: { readonly path: readonly string[] }): Parser<K>;
}

function tree<K, V>(
  description: Description<V>,
  version: number | undefined,
  keys: KeyCodec<K>,
): VariableKind<GtreeEntry<K, V>[]> {
  return {
    type: 'gtree',
    fixedBytes: undefined,
    save(writer, entries, _owner, style) {
      const states: (VmdescState | undefined)[] = [];
      writer.u32(entries.length);
      for (const { key, value } of entries) {
        writer.u8(1);
        states.push(keys.save(writer, key, style));
        states.push(saveElement(writer, description, value, style));
      }
      writer.u8(0);
      return inlineDetail(states);
    },
    *load(reader, _current, context) {
      yield* need(reader, 4);
      const { offset } = reader;
      const count = reader.u32();
      const entries: GtreeEntry<K, V>[] = [];
      while (yield* hasNext(reader, entries.length, Math.min(count, MAX_ELEMENTS), context)) {
        const at = element(context, entries.length);
        const key = yield* keys.load(reader, at);
        const value = {} as V;
        yield* description.loadInto(reader, value, version ?? description.version, at);
        entries.push({ key, value });
      }
      if (entries.length === count) return entries;
      throw new VmstateError('COUNT_INVALID', 'A tree ends before its last node', {
        expected: `${count} nodes`,
        found: `${entries.length}`,
        offset,
        path: context.path,
        likely: 'The stream is corrupt, or an earlier field has another size on the other side',
      });
    },
  };
}

function saveElement<S>(
  writer: ByteWriter,
  description: Description<S>,
  value: S,
  style: VmdescStyle | undefined,
): VmdescState | undefined {
  return description.saveState(writer, value, description.version, style);
}

/** Reads the byte that says whether another element follows. */
function* hasNext(
  reader: ByteReader,
  have: number,
  limit: number,
  context: LoadContext,
): Parser<boolean> {
  yield* need(reader, 1);
  const { offset } = reader;
  if (reader.u8() === 0) return false;
  if (have < limit) return true;
  throw new VmstateError('COUNT_INVALID', 'A list of device state is too long', {
    expected: `at most ${limit} elements`,
    found: 'more',
    offset,
    path: context.path,
    likely: 'The stream is corrupt, or an earlier field has another size on the other side',
  });
}

/** The place of an element; its path is put together only for an error. */
function element(context: LoadContext, index: number): { readonly path: readonly string[] } {
  return {
    get path() {
      const { path } = context;
      return [...path.slice(0, -1), `${path.at(-1) ?? ''}[${index}]`];
    },
  };
}
