import { type ByteReader, ByteWriter, counted, need, type Parser } from '@wherry/bytes';
import {
  type Field,
  FieldContext,
  isArray,
  isPresent,
  loadField,
  loadFixedField,
  putFixedField,
  type State,
  saveField,
} from './field.ts';
import type { FixedKind, Kind, LoadContext, VariableKind } from './kind.ts';
import type { VmdescField, VmdescState } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

const SUBSECTION = 0x05;

/** The state that a list of fields describes. */
type FieldsState<F extends readonly Field[]> = {
  [K in F[number] as K['name']]: K extends Field<string, infer T> ? T : never;
};

/** The state type that a description describes, its subsections' fields included. */
export type StateOf<D> = D extends Description<infer S> ? S : never;

/** What {@link describe} takes. */
export interface DescriptionSpec<F extends readonly Field[], Sub extends readonly Description[]> {
  /** Name of the description (its `VMStateDescription.name`); a subsection's begins with its parent's and a slash. */
  readonly name: string;
  readonly version: number;
  /** Oldest version that can be loaded; default `version`. */
  readonly minimumVersion?: number;
  readonly fields: F;
  readonly subsections?: Sub;
  /** For a subsection: whether the state needs it on the wire. */
  readonly needed?: (state: never) => boolean;
  /** Whether a machine that holds the device cannot be migrated; default false. */
  readonly unmigratable?: boolean;
  /** Whether the state is sent while the migration is set up, the guest running; default false. */
  readonly earlySetup?: boolean;
  /** Place in the order of sections; default `default`. */
  readonly priority?: MigrationPriority;
  /** Changes the state's copy before it is written; a throw ends the save. */
  readonly preSave?: (state: FieldsState<F>) => void;
  /** Runs after fields and subsections, also where writing them failed, unless `preSave` refused. */
  readonly postSave?: (state: FieldsState<F>) => void;
  /** Sets on the state's copy what absent fields and subsections leave. */
  readonly preLoad?: (state: FieldsState<F>) => void;
  /** Checks or completes the loaded state; a throw refuses it. */
  readonly postLoad?: (state: FieldsState<F>, version: number) => void;
}

/**
 * The order in which devices are sent, first to last; within one priority, that of registration.
 *
 * @see MigrationPriority in QEMU's include/migration/vmstate.h
 */
export const MIGRATION_PRIORITIES = [
  'gicv3',
  'gicv3-its',
  'apic',
  'virtio-mem',
  'pci-bus',
  'iommu',
  'default',
  'low',
] as const;

/** One of {@link MIGRATION_PRIORITIES}. */
export type MigrationPriority = (typeof MIGRATION_PRIORITIES)[number];

type SubsectionState<Sub extends readonly Description[]> = Sub extends readonly [
  infer Head,
  ...infer Tail extends readonly Description[],
]
  ? StateOf<Head> & SubsectionState<Tail>
  : unknown;

/**
 * Declares device state: one description that saves, loads and describes itself.
 *
 * @see struct VMStateDescription in QEMU's include/migration/vmstate.h
 */
export function describe<
  const F extends readonly Field[],
  const Sub extends readonly Description[] = readonly [],
>(spec: DescriptionSpec<F, Sub>): Description<FieldsState<F> & SubsectionState<Sub>> {
  return new Description(
    spec as unknown as DescriptionSpec<readonly Field[], readonly Description[]>,
  );
}

/** A compiled description of the state `S`. */
export class Description<S = unknown> {
  readonly name: string;
  readonly version: number;
  readonly minimumVersion: number;
  readonly fields: readonly Field[];
  readonly subsections: readonly Description[];
  readonly unmigratable: boolean;
  readonly earlySetup: boolean;
  readonly priority: MigrationPriority;
  /** Bytes of the whole state when no part of it is conditional or of variable size. */
  readonly fixedBytes: number | undefined;
  readonly #vmdescNames: readonly string[];
  readonly #spec: DescriptionSpec<readonly Field[], readonly Description[]>;

  constructor(spec: DescriptionSpec<readonly Field[], readonly Description[]>) {
    this.#spec = spec;
    this.name = spec.name;
    this.version = spec.version;
    this.minimumVersion = spec.minimumVersion ?? spec.version;
    this.fields = spec.fields;
    this.subsections = spec.subsections ?? [];
    this.unmigratable = spec.unmigratable ?? false;
    this.earlySetup = spec.earlySetup ?? false;
    this.priority = spec.priority ?? 'default';
    this.fixedBytes = fixedBytesOf(spec);
    this.#vmdescNames = vmdescNames(spec.fields);
  }

  /** Whether this subsection is to be sent for `state`. */
  isNeeded(state: S): boolean {
    return this.#spec.needed?.(state as never) ?? true;
  }

  /**
   * Writes the state: its fields in order, then the subsections that are needed.
   *
   * @returns the state's entry in the vmdesc
   * @throws VmstateError `HOOK_FAILED`, and the codes of the kinds
   * @see vmstate_save_state_v in QEMU's migration/vmstate.c
   */
  save(writer: ByteWriter, state: S, version: number = this.version): VmdescState {
    const source = { ...(state as State) };
    const path = [this.name];
    this.#runHook('pre_save', path, () => this.#spec.preSave?.(source as never));
    let described: VmdescState;
    try {
      described = this.#saveParts(writer, source, version);
    } catch (error) {
      // The first failure is the one that is told.
      try {
        this.#spec.postSave?.(source as never);
      } catch {}
      throw error;
    }
    this.#runHook('post_save', path, () => this.#spec.postSave?.(source as never));
    return described;
  }

  #saveParts(writer: ByteWriter, source: State, version: number): VmdescState {
    const fields: VmdescField[] = [];
    for (const [i, f] of this.fields.entries()) {
      if (!isPresent(f, source, version)) continue;
      saveField(writer, f, this.#vmdescNames[i]!, source, fields);
    }
    const subsections: VmdescState[] = [];
    for (const subsection of this.subsections) {
      if (!subsection.isNeeded(source)) continue;
      writer.u8(SUBSECTION).counted(subsection.name).u32(subsection.version);
      subsections.push(subsection.save(writer, source));
    }
    return {
      vmsd_name: this.name,
      version: this.version,
      fields,
      ...(subsections.length > 0 ? { subsections } : {}),
    };
  }

  /** Writes a state of fixed size as `save` does, without an entry for the vmdesc. */
  putFixed(writer: ByteWriter, state: S): void {
    let source = state as State;
    if (this.#spec.preSave !== undefined) {
      source = { ...source };
      this.#runHook('pre_save', [this.name], () => this.#spec.preSave?.(source as never));
    }
    for (const f of this.fields) putFixedField(writer, f, source);
  }

  /** Encodes the state into bytes of its own. */
  encode(state: S): Uint8Array<ArrayBuffer> {
    const writer = new ByteWriter();
    this.save(writer, state);
    return writer.finish();
  }

  /**
   * Reads a state that version `version` of this description wrote. `base` is not changed: it gives
   * the values that the stream does not carry and those that must be equal.
   *
   * @throws VmstateError `VERSION_TOO_NEW`, `VERSION_TOO_OLD`, `SUBSECTION_UNKNOWN`, `HOOK_FAILED`, and the codes of the kinds
   * @see vmstate_load_state in QEMU's migration/vmstate.c
   */
  *load(
    reader: ByteReader,
    base: S,
    version: number = this.version,
    path: readonly string[] = [this.name],
  ): Parser<S> {
    this.#checkVersion(version, reader.offset, path);
    const state: State = { ...(base as State) };
    this.#runHook('pre_load', path, () => this.#spec.preLoad?.(state as never));
    const context = new FieldContext({ path }, state);
    for (const f of this.fields) {
      if (isPresent(f, state, version)) yield* loadField(reader, f, context);
    }
    yield* this.#loadSubsections(reader, state, path);
    this.#runHook('post_load', path, () => this.#spec.postLoad?.(state as never, version));
    return state as S;
  }

  /** Reads a state of fixed size whose bytes are at hand; `parent` is the field that holds it. */
  loadFixed(reader: ByteReader, base: S | undefined, parent: LoadContext): S {
    const { preLoad, postLoad } = this.#spec;
    const state: State = { ...(base as State | undefined) };
    if (preLoad !== undefined)
      this.#runHook('pre_load', parent.path, () => preLoad(state as never));
    const context = new FieldContext(parent, state);
    for (const f of this.fields) loadFixedField(reader, f, context);
    if (postLoad !== undefined) {
      this.#runHook('post_load', parent.path, () => postLoad(state as never, this.version));
    }
    return state as S;
  }

  #checkVersion(version: number, offset: number, path: readonly string[]): void {
    if (version > this.version) {
      throw new VmstateError(
        'VERSION_TOO_NEW',
        `The state of '${this.name}' is of a newer version`,
        {
          expected: `at most ${this.version}`,
          found: `${version}`,
          offset,
          path,
          likely:
            'The sender is a newer release, or uses a newer machine type: use the older machine type on both sides',
        },
      );
    }
    if (version < this.minimumVersion) {
      throw new VmstateError(
        'VERSION_TOO_OLD',
        `The state of '${this.name}' is of an older version`,
        {
          expected: `at least ${this.minimumVersion}`,
          found: `${version}`,
          offset,
          path,
          likely: 'The sender is an older release whose state this side can no longer load',
        },
      );
    }
  }

  *#loadSubsections(reader: ByteReader, state: State, path: readonly string[]): Parser<void> {
    // What follows may be a footer, another field of the parent, or nothing: only a subsection's
    // header that carries this description's name as prefix belongs here.
    for (;;) {
      const name = yield* peekSubsectionName(reader);
      if (name === undefined || !name.startsWith(this.name) || name === this.name) return;
      const offset = reader.offset;
      const subsection = this.subsections.find((s) => s.name === name);
      if (subsection === undefined) {
        throw new VmstateError(
          'SUBSECTION_UNKNOWN',
          `A subsection of '${this.name}' is not known here`,
          {
            expected: this.subsections.map((s) => s.name).join(', ') || 'none',
            found: name,
            offset,
            path,
            likely:
              'The sender is a newer release or has a property turned on that this side lacks: use the same machine type and device options',
          },
        );
      }
      reader.skip(1);
      yield* counted(reader);
      yield* need(reader, 4);
      const version = reader.u32();
      Object.assign(state, yield* subsection.load(reader, state, version, [...path, name]));
    }
  }

  #runHook(hook: string, path: readonly string[], run: () => void): void {
    try {
      run();
    } catch (cause) {
      if (cause instanceof VmstateError) throw cause;
      throw new VmstateError('HOOK_FAILED', `${hook} of '${this.name}' refused the state`, {
        found: cause instanceof Error ? cause.message : String(cause),
        path,
        cause,
      });
    }
  }
}

/** Makes a kind of a nested description, inline. @see VMSTATE_STRUCT in QEMU's include/migration/vmstate.h */
export function struct<S>(description: Description<S>): Kind<S> {
  const save: Kind<S>['save'] = (writer, value) => ({ struct: description.save(writer, value) });
  if (description.fixedBytes !== undefined) {
    return {
      type: 'struct',
      fixedBytes: description.fixedBytes,
      save,
      put: (writer, value) => description.putFixed(writer, value),
      load: (reader, current, context) => description.loadFixed(reader, current, context),
    } satisfies FixedKind<S>;
  }
  return {
    type: 'struct',
    fixedBytes: undefined,
    save,
    load: (reader, current, context) =>
      description.load(reader, (current ?? {}) as S, description.version, context.path),
  } satisfies VariableKind<S>;
}

function fixedBytesOf(
  spec: DescriptionSpec<readonly Field[], readonly Description[]>,
): number | undefined {
  if (spec.subsections !== undefined && spec.subsections.length > 0) return undefined;
  if (spec.postSave !== undefined) return undefined;
  let bytes = 0;
  for (const { kind, present, since } of spec.fields) {
    if (present !== undefined || since > spec.version) return undefined;
    const element = isArray(kind) ? kind.element.fixedBytes : kind.fixedBytes;
    const count = isArray(kind) ? kind.count : 1;
    if (element === undefined || typeof count !== 'number') return undefined;
    bytes += element * count;
  }
  return bytes;
}

/** A name used more than once gets its ordinal, whether the others are sent or not. */
function vmdescNames(fields: readonly Field[]): string[] {
  const total = new Map<string, number>();
  for (const f of fields) total.set(f.name, (total.get(f.name) ?? 0) + 1);
  const seen = new Map<string, number>();
  return fields.map(({ name }) => {
    if (total.get(name) === 1) return name;
    const ordinal = seen.get(name) ?? 0;
    seen.set(name, ordinal + 1);
    return `${name}[${ordinal}]`;
  });
}

/** Looks at the name of the subsection that begins here, if one does; consumes nothing. */
function* peekSubsectionName(reader: ByteReader): Parser<string | undefined> {
  if (!(yield* atHand(reader, 1)) || reader.peekU8() !== SUBSECTION) return undefined;
  if (!(yield* atHand(reader, 2))) return undefined;
  const length = reader.peekU8(1);
  if (!(yield* atHand(reader, 2 + length + 4))) return undefined;
  let name = '';
  for (let i = 0; i < length; i++) name += String.fromCharCode(reader.peekU8(2 + i));
  return name;
}

function* atHand(reader: ByteReader, count: number): Parser<boolean> {
  while (reader.available < count) {
    if (reader.ended) return false;
    yield count;
  }
  return true;
}
