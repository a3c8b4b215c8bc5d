import type { ByteReader, ByteWriter } from '@wherry/bytes';
import { ofLength } from './buffer-kinds.ts';
import { type Field, isArray, type State } from './field.ts';
import type { ArrayOf, FixedKind, InlineField, Kind } from './kind.ts';
import type { VmdescField } from './vmdesc.ts';

/** Arrays of so few values are read and written without a loop. */
const UNROLLED = 8;

/** A run of fields of fixed size that is read and written in one go, its bytes at hand. */
export interface InlineRun {
  readonly fixedBytes: number;
  /** First version that holds all of them. */
  readonly since: number;
  readonly vmdesc: readonly VmdescField[];
  load(reader: ByteReader, state: State): void;
  /** Writes the fields. A throw means that one of them cannot be written, not which. */
  save(writer: ByteWriter, state: State): void;
}

/** Bytes of a value or array that can be read and written in line. */
function inlineBytes(kind: Kind<unknown> | ArrayOf<unknown, unknown>): number | undefined {
  if (!isArray(kind)) return isInline(kind) ? kind.fixedBytes : undefined;
  const { element, count, pointers, unpack } = kind;
  if (typeof count !== 'number' || pointers !== undefined || unpack !== undefined) return undefined;
  return isInline(element) ? element.fixedBytes * count : undefined;
}

function isInline(kind: Kind<unknown>): kind is InlineKind {
  return kind.fixedBytes !== undefined && kind.inline !== undefined;
}

type InlineKind = FixedKind<unknown> & Required<Pick<FixedKind<unknown>, 'inline'>>;

/** Whether a field can be part of an {@link InlineRun}. Subsections may follow a struct that is no element. */
export function canInline({ kind, present }: Field): boolean {
  if (present !== undefined || inlineBytes(kind) === undefined) return false;
  return isArray(kind) || !('struct' in (kind as InlineKind).inline);
}

/**
 * Compiles a run of fields for which {@link canInline} holds to a function of its own: through functions
 * that all descriptions share, V8 would look up every property of every state anew.
 *
 * @returns undefined where a content security policy forbids to compile; the caller then goes field by field
 */
export function compileInline(
  fields: readonly Field[],
  names: readonly string[],
): InlineRun | undefined {
  const reads = new Source();
  for (const f of fields) readField(reads, f, 's');
  const writes = new Source();
  for (const f of fields) writeField(writes, f, 's');
  try {
    return {
      fixedBytes: fields.reduce((sum, { kind }) => sum + inlineBytes(kind)!, 0),
      since: Math.max(...fields.map(({ since }) => since)),
      vmdesc: fields.flatMap((f, i) => describeInline(f, names[i]!)),
      load: new Function('r', 's', reads.text) as InlineRun['load'],
      save: new Function('ofLength', `return (w, s) => {${writes.text}}`)(ofLength),
    };
  } catch (error) {
    if (error instanceof EvalError) return undefined;
    throw error;
  }
}

class Source {
  text = '';
  #names = 0;

  add(line: string): void {
    this.text += `${line}\n`;
  }

  name(): string {
    return `v${this.#names++}`;
  }
}

function member(state: string, name: string): string {
  return `${state}[${JSON.stringify(name)}]`;
}

function readField(source: Source, { name, kind }: InlineField, state: string): void {
  const target = member(state, name);
  if (!isArray(kind)) {
    const value = readValue(source, kind as InlineKind, target);
    source.add(kind.holdsNothing ? `${value};` : `${target} = ${value};`);
    return;
  }
  const element = kind.element as InlineKind;
  const count = kind.count as number;
  if ('read' in element.inline && count <= UNROLLED && !element.holdsNothing) {
    source.add(`${target} = [${Array(count).fill(element.inline.read).join(', ')}];`);
    return;
  }
  const [values, current, i] = [source.name(), source.name(), source.name()];
  source.add(`const ${values} = [], ${current} = ${target};`);
  source.add(`for (let ${i} = 0; ${i} < ${count}; ${i}++) {`);
  const value = readValue(source, element, `${current}?.[${i}]`);
  source.add(element.holdsNothing ? `${value}; }` : `${values}.push(${value}); }`);
  if (!element.holdsNothing) source.add(`${target} = ${values};`);
}

function readValue(source: Source, kind: InlineKind, current: string): string {
  if ('read' in kind.inline) return kind.inline.read;
  const state = source.name();
  source.add(`const ${state} = {...${current}};`);
  for (const f of kind.inline.struct.fields) readField(source, f, state);
  return state;
}

function writeField(source: Source, { name, kind }: InlineField, state: string): void {
  const value = source.name();
  source.add(`const ${value} = ${member(state, name)};`);
  if (!isArray(kind)) {
    writeValue(source, kind as InlineKind, value);
    return;
  }
  const element = kind.element as InlineKind;
  const count = kind.count as number;
  if (!element.holdsNothing) {
    source.add(`if (!(${value}.length >= ${count})) throw new RangeError();`);
  }
  if ('read' in element.inline && count <= UNROLLED) {
    for (let i = 0; i < count; i++) source.add(`${element.inline.write(`${value}[${i}]`)};`);
    return;
  }
  const [i, each] = [source.name(), source.name()];
  source.add(`for (let ${i} = 0; ${i} < ${count}; ${i}++) {`);
  source.add(`const ${each} = ${element.holdsNothing ? 'undefined' : `${value}[${i}]`};`);
  writeValue(source, element, each);
  source.add('}');
}

function writeValue(source: Source, kind: InlineKind, value: string): void {
  if ('read' in kind.inline) {
    source.add(`${kind.inline.write(value)};`);
    return;
  }
  for (const f of kind.inline.struct.fields) writeField(source, f, value);
}

/** What the vmdesc says of such a field, whatever its value. */
function describeInline({ kind }: Field, name: string): VmdescField[] {
  const element = (isArray(kind) ? kind.element : kind) as InlineKind;
  const count = isArray(kind) ? (kind.count as number) : 1;
  if (count === 0) return [];
  return [
    {
      name,
      ...(count > 1 ? { array_len: count } : {}),
      type: element.type,
      ...('struct' in element.inline ? { struct: element.inline.struct.vmdesc } : {}),
      size: element.fixedBytes,
    },
  ];
}
