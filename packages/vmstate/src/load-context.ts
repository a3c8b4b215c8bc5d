import { BytesError } from '@wherry/bytes';
import type { State } from './field.ts';
import type { LoadContext } from './kind.ts';
import { VmstateError } from './vmstate-error.ts';

/** Where a load is: the path is put together only when somebody asks, that is for an error. */
export class FieldContext implements LoadContext {
  readonly owner: State;
  /** The field, once one was begun. */
  name: string | undefined;
  /** The element of it. */
  index: number | undefined;
  readonly #parent: { readonly path: readonly string[] };

  constructor(parent: { readonly path: readonly string[] }, owner: State) {
    this.#parent = parent;
    this.owner = owner;
  }

  get path(): readonly string[] {
    const { path } = this.#parent;
    if (this.name === undefined) return path;
    return [...path, this.index === undefined ? this.name : `${this.name}[${this.index}]`];
  }

  /** Gives an error of the bytes below this place the path to it. */
  locate(error: unknown): unknown {
    if (!(error instanceof BytesError)) return error;
    const { what, offset, expected, found, likely } = error;
    return new VmstateError(
      error.code === 'UNEXPECTED_END' ? 'UNEXPECTED_END' : 'VALUE_INVALID',
      what,
      {
        path: this.path,
        ...(offset === undefined ? {} : { offset }),
        ...(expected === undefined ? {} : { expected }),
        ...(found === undefined ? {} : { found }),
        likely:
          likely ?? 'The stream is corrupt, or an earlier field has another size on the other side',
        cause: error,
      },
    );
  }
}
