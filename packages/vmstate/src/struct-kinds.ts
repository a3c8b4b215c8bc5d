import type { Description } from './description.ts';
import type { FixedKind, Kind, VariableKind } from './kind.ts';
import { inlineDetail } from './list-kinds.ts';
import { VmstateError } from './vmstate-error.ts';

/** Makes a kind of a nested description, inline. @see VMSTATE_STRUCT in QEMU's include/migration/vmstate.h */
export function struct<S>(description: Description<S>): Kind<S> {
  const { fixedBytes, inline, conditional } = description;
  const shared = {
    type: 'struct',
    conditional,
    save(writer, value, _owner, style) {
      const state = description.saveState(writer, value, description.version, style);
      return state && { struct: state };
    },
  } satisfies Partial<Kind<S>>;
  if (fixedBytes === undefined) {
    return {
      ...shared,
      fixedBytes,
      *load(reader, current, context) {
        const state = { ...current } as S;
        yield* description.loadInto(reader, state, description.version, context);
        return state;
      },
    } satisfies VariableKind<S>;
  }
  return {
    ...shared,
    fixedBytes,
    load: (reader, current, context) => description.loadAtHand(reader, current, context),
    loadRest: (reader, state, context) => description.loadSubsections(reader, state, context),
    ...(inline && { inline: { struct: inline } }),
  } satisfies FixedKind<S>;
}

/**
 * Makes a kind of a nested description of a version that is named here, and not on the wire.
 *
 * @see VMSTATE_VSTRUCT in QEMU's include/migration/vmstate.h
 */
export function vstruct<S>(description: Description<S>, version: number): VariableKind<S> {
  return {
    type: 'vstruct',
    fixedBytes: undefined,
    save(writer, value, _owner, style) {
      return inlineDetail([description.saveState(writer, value, version, style)]);
    },
    *load(reader, current, context) {
      const state = { ...current } as S;
      yield* description.loadInto(reader, state, version, context);
      return state;
    },
  };
}

/**
 * Makes a kind of what a pointer points to: the same bytes. A null pointer is refused, both when saving
 * and in the base of a load; a field that may be null has a test.
 *
 * @see VMSTATE_STRUCT_POINTER in QEMU's include/migration/vmstate.h
 */
export function pointer<T>(kind: Kind<T>): Kind<T | null> {
  const save: Kind<T | null>['save'] = (writer, value, owner, style) => {
    if (value === null) throw isNull();
    return kind.save(writer, value, owner, style);
  };
  if (kind.fixedBytes === undefined) {
    return {
      ...kind,
      save,
      *load(reader, current, context) {
        if (current === null) throw isNull(reader.offset, context.path);
        return yield* kind.load(reader, current, context);
      },
    };
  }
  const { inline: _, ...rest } = kind;
  return {
    ...rest,
    save,
    load(reader, current, context) {
      if (current === null) throw isNull(reader.offset, context.path);
      return kind.load(reader, current, context);
    },
  };
}

function isNull(offset?: number, path: readonly string[] = []): VmstateError {
  return new VmstateError('VALUE_INVALID', 'A pointer that must lead somewhere is null', {
    ...(offset === undefined ? {} : { offset }),
    path,
    likely: 'The device has no such part on this side: give both sides the same options',
  });
}
