import { type CompiledField, compileField } from './compile-field.ts';
import { canInline, compileInline, type InlineRun } from './compile-inline.ts';
import type { Field } from './field.ts';

/** Fields that follow each other: one, or several with a function for all of them. */
export interface FieldRun {
  readonly fields: readonly CompiledField[];
  readonly inline: InlineRun | undefined;
}

/** Compiles the fields of a description. */
export function compileFields(fields: readonly Field[]): FieldRun[] {
  const names = vmdescNames(fields);
  const compiled = fields.map((f, i) => compileField(f, names[i]!, names[i] === f.name));
  const runs: FieldRun[] = [];
  for (let start = 0; start < fields.length; ) {
    let end = start;
    while (end < fields.length && canInline(fields[end]!)) end++;
    if (end > start) {
      const inline = compileInline(fields.slice(start, end), names.slice(start, end));
      runs.push({ fields: compiled.slice(start, end), inline });
      start = end;
    } else {
      runs.push({ fields: [compiled[start]!], inline: undefined });
      start++;
    }
  }
  return runs;
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
