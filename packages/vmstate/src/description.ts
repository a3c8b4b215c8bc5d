import { ByteReader, ByteWriter, counted, need, type Parser, runParser } from '@wherry/bytes';
import type { CompiledField, VmdescSink } from './compile-field.ts';
import { compileFields, type FieldRun } from './compile-fields.ts';
import type { DescriptionSpec, MigrationPriority } from './description-spec.ts';
import { type Field, type FieldsState, isConditional, isPresent, type State } from './field.ts';
import { DEFAULT_STYLE, type VmdescStyle } from './format-vmdesc.ts';
import type { InlineStruct } from './kind.ts';
import { FieldContext } from './load-context.ts';
import type { VmdescState } from './vmdesc.ts';
import { VmstateError } from './vmstate-error.ts';

const SUBSECTION = 0x05;

/** The state type that a description describes, its subsections' fields included. */
export type StateOf<D> = D extends Description<infer S> ? S : never;

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

/** How a state is saved. */
export interface SaveOptions {
  /** Version of the description to save as; default its own. */
  readonly version?: number;
  /** Release that the entry in the vmdesc is made for; default 10.0. */
  readonly style?: VmdescStyle;
}

/** How a state that is all there is decoded. */
export interface DecodeOptions {
  /** Version of the description that wrote it; default its own. */
  readonly version?: number;
  /** Absolute offset of the first byte, for messages. */
  readonly offset?: number;
}

/** A place in a stream, for messages. */
interface Place {
  readonly path: readonly string[];
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
  /** Whether parts of the state come and go, so that a vmdesc describes each element of an array of it. */
  readonly conditional: boolean;
  /** Bytes of the whole state when no part of it is conditional or of variable size. */
  readonly fixedBytes: number | undefined;
  /** The description as a part of a larger one, where it does nothing but read and write its bytes. */
  readonly inline: InlineStruct | undefined;
  readonly #spec: DescriptionSpec<readonly Field[], readonly Description[]>;
  readonly #runs: readonly FieldRun[];

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
    this.conditional = spec.subsections !== undefined || spec.fields.some(isConditional);
    this.#runs = compileFields(spec.fields);
    this.fixedBytes = this.#sumOfBytes();
    this.inline = this.#asInline();
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
  save(writer: ByteWriter, state: S, options: SaveOptions = {}): VmdescState {
    const { version = this.version, style = DEFAULT_STYLE } = options;
    try {
      return this.saveState(writer, state, version, style) as VmdescState;
    } catch (error) {
      throw below(this.name, error);
    }
  }

  /** Encodes the state into bytes of its own. @throws VmstateError as {@link Description.save} */
  encode(state: S, version: number = this.version): Uint8Array<ArrayBuffer> {
    const writer = new ByteWriter();
    try {
      this.saveState(writer, state, version, undefined);
    } catch (error) {
      throw below(this.name, error);
    }
    return writer.finish();
  }

  /** Writes the state for the description that holds it; described only where a style is given. */
  saveState(
    writer: ByteWriter,
    state: S,
    version: number,
    style: VmdescStyle | undefined,
  ): VmdescState | undefined {
    const { preSave, postSave } = this.#spec;
    let source = state as State;
    if (preSave !== undefined) {
      source = { ...source };
      this.runHook('pre_save', NOWHERE, () => preSave(source as never));
    }
    if (postSave === undefined) return this.#saveParts(writer, source, version, style);
    let described: VmdescState | undefined;
    try {
      described = this.#saveParts(writer, source, version, style);
    } catch (error) {
      // The first failure is the one that is told.
      try {
        postSave(source as never);
      } catch {}
      throw error;
    }
    this.runHook('post_save', NOWHERE, () => postSave(source as never));
    return described;
  }

  #saveParts(
    writer: ByteWriter,
    source: State,
    version: number,
    style: VmdescStyle | undefined,
  ): VmdescState | undefined {
    const sink: VmdescSink | undefined = style && { style, fields: [] };
    for (const run of this.#runs) {
      const { inline } = run;
      if (inline === undefined || version < inline.since) {
        for (const f of run.fields) this.#saveField(writer, f, source, version, sink);
        continue;
      }
      try {
        inline.save(writer, source);
      } catch (error) {
        // One by one, the field that cannot be written names itself.
        const scratch = new ByteWriter();
        for (const f of run.fields) this.#saveField(scratch, f, source, version, undefined);
        throw error;
      }
      sink?.fields.push(...inline.vmdesc);
    }
    const subsections: VmdescState[] = [];
    for (const subsection of this.subsections) {
      if (!subsection.isNeeded(source)) continue;
      writer.u8(SUBSECTION).counted(subsection.name).u32(subsection.version);
      try {
        const described = subsection.saveState(writer, source, subsection.version, style);
        if (described !== undefined) subsections.push(described);
      } catch (error) {
        throw below(subsection.name, error);
      }
    }
    return (
      sink && {
        vmsd_name: this.name,
        version,
        fields: sink.fields,
        ...(subsections.length > 0 ? { subsections } : {}),
      }
    );
  }

  #saveField(
    writer: ByteWriter,
    compiled: CompiledField,
    source: State,
    version: number,
    sink: VmdescSink | undefined,
  ): void {
    const { field } = compiled;
    try {
      if (isPresent(field, source, version)) compiled.save(writer, source, sink);
      else if (field.mustExist) throw this.#refused(field, undefined, []);
    } catch (error) {
      throw below(field.name, error);
    }
  }

  /**
   * Reads a state that version `version` of this description wrote. `base` is not changed: it gives
   * the values that the stream does not carry and those that must be equal.
   *
   * @throws VmstateError `VERSION_TOO_NEW`, `VERSION_TOO_OLD`, `SUBSECTION_UNKNOWN`, `UNEXPECTED_END`, `HOOK_FAILED`, and the codes of the kinds
   * @see vmstate_load_state in QEMU's migration/vmstate.c
   */
  *load(
    reader: ByteReader,
    base: S,
    version: number = this.version,
    path: readonly string[] = [this.name],
  ): Parser<S> {
    const state = { ...base };
    yield* this.loadInto(reader, state, version, { path });
    return state;
  }

  /**
   * Decodes a state that is all of `bytes`.
   *
   * @throws VmstateError as {@link Description.load}, and `TRAILING_BYTES`
   */
  decode(bytes: Uint8Array, base: S, options: DecodeOptions = {}): S {
    const { version = this.version, offset = 0 } = options;
    const reader = ByteReader.over(bytes, offset);
    const state = runParser(this.load(reader, base, version), reader);
    if (reader.available === 0) return state;
    throw new VmstateError('TRAILING_BYTES', `Bytes are left behind the state of '${this.name}'`, {
      expected: `${reader.offset - offset} bytes`,
      found: `${bytes.length} bytes`,
      offset: reader.offset,
      path: [this.name],
      likely:
        'The sender has fields or subsections that this side lacks, or the state is cut in the head of a subsection',
    });
  }

  /** Reads into a state that is given up when the load fails; for the description that holds this one. */
  *loadInto(reader: ByteReader, target: S, version: number, parent: Place): Parser<void> {
    const state = target as State;
    const { preLoad, postLoad } = this.#spec;
    const context = new FieldContext(parent, state);
    this.#checkVersion(version, reader.offset, parent);
    if (preLoad !== undefined) {
      this.runHook('pre_load', parent, () => preLoad(state as never));
    }
    try {
      for (const { inline, fields } of this.#runs) {
        if (
          inline !== undefined &&
          version >= inline.since &&
          reader.available >= inline.fixedBytes
        ) {
          inline.load(reader, state);
          continue;
        }
        for (const compiled of fields) {
          const { field } = compiled;
          context.name = field.name;
          if (isPresent(field, state, version)) yield* compiled.load(reader, context);
          else if (field.mustExist) throw this.#refused(field, reader.offset, context.path);
        }
      }
      context.name = undefined;
      yield* this.loadSubsections(reader, target, parent);
    } catch (error) {
      throw context.locate(error);
    }
    if (postLoad !== undefined) {
      this.runHook('post_load', parent, () => postLoad(state as never, version));
    }
  }

  /** Reads a state of fixed size whose bytes are at hand; `parent` is the field that holds it. */
  loadAtHand(reader: ByteReader, base: S | undefined, parent: Place): S {
    const { preLoad, postLoad } = this.#spec;
    const state: State = { ...base };
    if (preLoad !== undefined) {
      this.runHook('pre_load', parent, () => preLoad(state as never));
    }
    const context = new FieldContext(parent, state);
    for (const { inline, fields } of this.#runs) {
      if (inline !== undefined) {
        inline.load(reader, state);
        continue;
      }
      for (const compiled of fields) {
        context.name = compiled.field.name;
        compiled.loadAtHand(reader, context);
      }
    }
    if (postLoad !== undefined) {
      this.runHook('post_load', parent, () => postLoad(state as never, this.version));
    }
    return state as S;
  }

  /**
   * Reads the subsections that follow, in any order; one that comes twice counts as it came last.
   *
   * What follows may also be a footer, another field of the parent, or nothing: only a header that
   * carries this description's name as prefix belongs here.
   *
   * @see vmstate_subsection_load in QEMU's migration/vmstate.c
   */
  *loadSubsections(reader: ByteReader, state: S, parent: Place): Parser<void> {
    while (yield* this.#hasSubsection(reader)) {
      const { offset } = reader;
      reader.skip(1);
      const name = yield* counted(reader);
      const subsection = this.subsections.find((s) => s.name === name);
      if (subsection === undefined) {
        throw new VmstateError(
          'SUBSECTION_UNKNOWN',
          `A subsection of '${this.name}' is not known here`,
          {
            expected: this.subsections.map((s) => s.name).join(', ') || 'none',
            found: name,
            offset,
            path: parent.path,
            likely:
              'The sender is a newer release or has a property turned on that this side lacks: use the same machine type and device options',
          },
        );
      }
      const version = reader.u32();
      yield* subsection.loadInto(reader, state, version, {
        get path() {
          return [...parent.path, name];
        },
      });
    }
  }

  /** Looks whether a subsection of this description begins here, and waits for its whole header if so. */
  *#hasSubsection(reader: ByteReader): Parser<boolean> {
    if (!(yield* atHand(reader, 1)) || reader.peekU8() !== SUBSECTION) return false;
    if (!(yield* atHand(reader, 2))) return false;
    const length = reader.peekU8(1);
    const prefix = this.name;
    if (length <= prefix.length || !(yield* atHand(reader, 2 + prefix.length))) return false;
    for (let i = 0; i < prefix.length; i++) {
      if (reader.peekU8(2 + i) !== prefix.charCodeAt(i)) return false;
    }
    yield* need(reader, 2 + length + 4);
    return true;
  }

  /** Runs a hook, and turns its failure into an error that names it. @throws VmstateError `HOOK_FAILED` */
  runHook(hook: string, at: Place, run: () => void): void {
    try {
      run();
    } catch (cause) {
      if (cause instanceof VmstateError) throw cause;
      throw new VmstateError('HOOK_FAILED', `${hook} of '${this.name}' refused the state`, {
        found: cause instanceof Error ? cause.message : String(cause),
        path: at.path,
        cause,
      });
    }
  }

  #refused(field: Field, offset: number | undefined, path: readonly string[]): VmstateError {
    return new VmstateError('VALIDATION_FAILED', `The state fails the check of '${this.name}'`, {
      expected: field.name,
      ...(offset === undefined ? {} : { offset }),
      path,
      likely: 'The device is configured differently here: give both sides the same options',
    });
  }

  #checkVersion(version: number, offset: number, { path }: Place): void {
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

  #sumOfBytes(): number | undefined {
    if (this.conditional) return undefined;
    let bytes = 0;
    for (const { fields } of this.#runs) {
      for (const { field, fixedBytes } of fields) {
        if (fixedBytes === undefined || field.since > this.version) return undefined;
        bytes += fixedBytes;
      }
    }
    return bytes;
  }

  #asInline(): InlineStruct | undefined {
    const { preSave, postSave, preLoad, postLoad } = this.#spec;
    const hasHook = (preSave ?? postSave ?? preLoad ?? postLoad) !== undefined;
    const [run, ...others] = this.#runs;
    if (hasHook || this.fixedBytes === undefined || others.length > 0) return undefined;
    if (run?.inline === undefined) return undefined;
    const vmdesc = { vmsd_name: this.name, version: this.version, fields: run.inline.vmdesc };
    return { fields: this.fields, vmdesc };
  }
}

const NOWHERE: Place = { path: [] };

/** Puts what went wrong while saving below a name. */
function below(name: string, error: unknown): VmstateError {
  if (error instanceof VmstateError) {
    const { code, what, expected, found, likely, cause } = error;
    return new VmstateError(code, what, {
      path: [name, ...error.path],
      ...(expected === undefined ? {} : { expected }),
      ...(found === undefined ? {} : { found }),
      ...(likely === undefined ? {} : { likely }),
      cause: cause ?? error,
    });
  }
  return new VmstateError('VALUE_INVALID', 'A value of device state cannot be written', {
    found: error instanceof Error ? error.message : String(error),
    path: [name],
    likely: 'The state lacks the field, or holds a value of another type there',
    cause: error,
  });
}

function* atHand(reader: ByteReader, count: number): Parser<boolean> {
  while (reader.available < count) {
    if (reader.ended) return false;
    yield count;
  }
  return true;
}
