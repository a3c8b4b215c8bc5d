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
export function canInline({ name, kind, present }: Field): boolean {
  // As a member of an object literal that name would be its prototype.
  if (name === '__proto__' || present !== undefined || inlineBytes(kind) === undefined)
    return false;
  return isArray(kind) || !('struct' in (kind as InlineKind).inline);
}

/**
 * Compiles a run of fields for which {@link canInline} holds, when it is first used, to functions of its
 * own: through functions that all descriptions share, V8 would look up every property of every state anew.
 *
 * @returns undefined where a content security policy forbids to compile; the caller then goes field by field
 */
export function compileInline(
  fields: readonly Field[],
  names: readonly string[],
): InlineRun | undefined {
  if (!mayCompile()) return undefined;
  let compiled: Pick<InlineRun, 'load' | 'save'> | undefined;
  const functions = (): Pick<InlineRun, 'load' | 'save'> => {
    compiled ??= compile(fields);
    return compiled;
  };
  return {
    fixedBytes: fields.reduce((sum, { kind }) => sum + inlineBytes(kind)!, 0),
    since: Math.max(...fields.map(({ since }) => since)),
    vmdesc: fields.flatMap((f, i) => describeInline(f, names[i]!)),
    load: (reader, state) => functions().load(reader, state),
    save: (writer, state) => functions().save(writer, state),
  };
}

let isAllowed: boolean | undefined;

/** Whether text may be made a function here. */
function mayCompile(): boolean {
  if (isAllowed === undefined) {
    try {
      new Function('');
      isAllowed = true;
    } catch {
      isAllowed = false;
    }
  }
  return isAllowed;
}

function compile(fields: readonly Field[]): Pick<InlineRun, 'load' | 'save'> {
  const reads = new Source();
  const bytes = readFields(reads, fields, 's', new At('p', 0));
  const writes = new Source();
  writeFields(writes, fields, 's', new At('p', 0));
  const load = `const v = r.dataView, b = r.storage, p = r.start;
${reads.text}r.skip(${bytes});`;
  const save = `return (w, s) => { const p = w.claim(${bytes}), v = w.dataView, b = w.storage;
${writes.text}}`;
  return {
    load: new Function('r', 's', load) as InlineRun['load'],
    save: new Function('ofLength', save)(ofLength),
  };
}

/** An index into the bytes: a variable and a distance from it. */
class At {
  readonly variable: string;
  readonly offset: number;

  constructor(variable: string, offset: number) {
    this.variable = variable;
    this.offset = offset;
  }

  plus(bytes: number): At {
    return new At(this.variable, this.offset + bytes);
  }

  toString(): string {
    return this.offset === 0 ? this.variable : `${this.variable} + ${this.offset}`;
  }
}

class Source {
  text = '';
  #names = 0;

  add(line: string): void {
    this.text += `${line}\n`;
  }

  name(): string {
    return `n${this.#names++}`;
  }
}

function member(state: string, name: string): string {
  return `${state}[${JSON.stringify(name)}]`;
}

/** Adds the code that reads fields into a state. @returns how many bytes they take */
function readFields(source: Source, fields: readonly InlineField[], state: string, at: At): number {
  let bytes = 0;
  for (const { name, kind } of fields) {
    const value = readField(source, kind, at.plus(bytes));
    if (value !== undefined) source.add(`${member(state, name)} = ${value};`);
    bytes += inlineBytes(kind)!;
  }
  return bytes;
}

/** Gives the code of a field's value, and adds what goes before it; nothing where the field holds nothing. */
function readField(source: Source, kind: InlineField['kind'], at: At): string | undefined {
  const element = (isArray(kind) ? kind.element : kind) as InlineKind;
  if (element.holdsNothing) return undefined;
  if (!isArray(kind)) return readValue(source, element, at);
  const { inline, fixedBytes } = element;
  const count = kind.count as number;
  if ('read' in inline && count <= UNROLLED) {
    const values = Array.from({ length: count }, (_, i) =>
      inline.read(`${at.plus(i * fixedBytes)}`),
    );
    return `[${values.join(', ')}]`;
  }
  const [values, i, q] = [source.name(), source.name(), source.name()];
  source.add(`const ${values} = [];`);
  source.add(`for (let ${i} = 0, ${q} = ${at}; ${i} < ${count}; ${i}++, ${q} += ${fixedBytes}) {`);
  const value = readValue(source, element, new At(q, 0));
  source.add(`${values}.push(${value}); }`);
  return values;
}

function readValue(source: Source, { inline }: InlineKind, at: At): string {
  if ('read' in inline) return inline.read(`${at}`);
  let bytes = 0;
  const members: string[] = [];
  for (const { name, kind } of inline.struct.fields) {
    const value = readField(source, kind, at.plus(bytes));
    if (value !== undefined) members.push(`${JSON.stringify(name)}: ${value}`);
    bytes += inlineBytes(kind)!;
  }
  return `{${members.join(', ')}}`;
}

function writeFields(source: Source, fields: readonly InlineField[], state: string, at: At): void {
  let bytes = 0;
  for (const { name, kind } of fields) {
    writeField(source, kind, member(state, name), at.plus(bytes));
    bytes += inlineBytes(kind)!;
  }
}

function writeField(source: Source, kind: InlineField['kind'], held: string, at: At): void {
  if (!isArray(kind)) {
    writeValue(source, kind as InlineKind, held, at);
    return;
  }
  const { inline, fixedBytes, holdsNothing } = kind.element as InlineKind;
  const count = kind.count as number;
  const values = source.name();
  source.add(`const ${values} = ${held};`);
  if (!holdsNothing) source.add(`if (!(${values}.length >= ${count})) throw new RangeError();`);
  if ('read' in inline && count <= UNROLLED) {
    for (let i = 0; i < count; i++) {
      source.add(`${inline.write(`${at.plus(i * fixedBytes)}`, `${values}[${i}]`)};`);
    }
    return;
  }
  const [i, q] = [source.name(), source.name()];
  source.add(`for (let ${i} = 0, ${q} = ${at}; ${i} < ${count}; ${i}++, ${q} += ${fixedBytes}) {`);
  const value = holdsNothing ? 'undefined' : `${values}[${i}]`;
  writeValue(source, kind.element as InlineKind, value, new At(q, 0));
  source.add('}');
}

function writeValue(source: Source, { inline }: InlineKind, value: string, at: At): void {
  if ('read' in inline) {
    source.add(`${inline.write(`${at}`, value)};`);
    return;
  }
  const state = source.name();
  source.add(`const ${state} = ${value};`);
  writeFields(source, inline.struct.fields, state, at);
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
