import type { Description } from './description.ts';
import type { VariableKind } from './kind.ts';
import { inlineDetail } from './list-kinds.ts';

/** A kind that stands for the part `P` of the state that its field is in. */
export interface TmpKind<P> extends VariableKind<undefined> {
  /** Never there: what the compiler infers a state by. */
  readonly stands?: { readonly for: P };
}

/** What {@link tmp} takes. */
export interface TmpOptions<T, P> {
  readonly description: Description<T>;
  /** Makes the temporary state that is sent, from the state that the field is in. */
  readonly make: (parent: P) => T;
  /** Sets on that state what a loaded temporary one says; a throw refuses it. */
  readonly apply: (loaded: T, parent: P) => void;
}

/**
 * Makes a kind whose bytes are those of a temporary state, made from the state that the field is in and
 * applied to it: for a wire layout that is no longer the state's own. Its field holds nothing.
 *
 * @see VMSTATE_WITH_TMP in QEMU's include/migration/vmstate.h, vmstate_info_tmp
 */
export function tmp<T, P>(options: TmpOptions<T, P>): TmpKind<P> {
  const { description, make, apply } = options;
  return {
    type: 'tmp',
    fixedBytes: undefined,
    holdsNothing: true,
    save(writer, _value, owner, style) {
      const state = description.saveState(writer, make(owner as P), description.version, style);
      return inlineDetail([state]);
    },
    *load(reader, _current, context) {
      const loaded = {} as T;
      yield* description.loadInto(reader, loaded, description.version, context);
      description.runHook('apply', context, () => apply(loaded, context.owner as P));
      return undefined;
    },
  };
}
