import type { Dump, DumpDescription } from '../dump.ts';
import { innerStates, type VmdescField, type VmdescState } from '../vmdesc.ts';

/** A table of fields as the checker compares it, from a dump or from a stream's vmdesc. */
export interface Table {
  readonly name: string;
  readonly version: number;
  /** Absent where a stream describes it: it tells only what was sent. */
  readonly minimumVersion?: number;
  readonly fields: readonly TableField[];
  readonly subsections: readonly Table[];
}

/** A field of a table. */
export interface TableField {
  readonly name: string;
  /** First version of the table that has it; 0 in a stream: it was sent. */
  readonly since: number;
  /** Whether a test decides if it is there. */
  readonly conditional: boolean;
  /** Bytes of one element of a plain value on the wire; absent where the input does not tell. */
  readonly elementBytes?: number;
  /** Elements; absent where the input does not tell. */
  readonly count?: number;
  /** Whether it may be an array all the same: dumps of QEMU before 10.0 do not tell. */
  readonly mayBeArray?: boolean;
  /** The type's name in a vmdesc; a dump has none. */
  readonly type?: string;
  readonly table?: Table;
}

/** Whether a field only fills bytes. */
export function isUnused(field: TableField): boolean {
  return field.table === undefined && (field.name === 'unused' || field.type === 'unused_buffer');
}

/**
 * Makes a table of a dump's description.
 *
 * @param tellsCounts whether the dump tells how long arrays are
 */
export function tableOfDump(description: DumpDescription, tellsCounts: boolean): Table {
  return {
    name: description.name,
    version: description.versionId,
    minimumVersion: description.minimumVersionId,
    fields: description.fields.map((field) => ({
      name: field.field,
      since: field.versionId,
      conditional: field.fieldExists,
      // A size of 0 is set at run time; that of a nested state is not what it has on the wire.
      ...(field.size > 0 && field.description === undefined ? { elementBytes: field.size } : {}),
      ...(field.num === undefined ? {} : { count: field.num }),
      ...(tellsCounts ? {} : { mayBeArray: true }),
      ...(field.description === undefined
        ? {}
        : { table: tableOfDump(field.description, tellsCounts) }),
    })),
    subsections: description.subsections.map((subsection) => tableOfDump(subsection, tellsCounts)),
  };
}

/** Whether a dump tells how long arrays are: QEMU does since 10.0. */
export function tellsCounts(dump: Dump): boolean {
  const tells = ({ fields, subsections }: DumpDescription): boolean =>
    fields.some(
      (f) => f.num !== undefined || (f.description !== undefined && tells(f.description)),
    ) || subsections.some(tells);
  return [...dump.types.values()].some((t) => t.description !== undefined && tells(t.description));
}

/** Makes a table of a stream's vmdesc; the elements of an array that are listed one by one become one field. */
export function tableOfVmdesc(state: VmdescState): Table {
  const fields: TableField[] = [];
  let last: VmdescField | undefined;
  for (const field of state.fields ?? []) {
    const before = fields.at(-1);
    if (before !== undefined && last !== undefined && isNextElement(last, field)) {
      const table = before.table ?? tableIn(field);
      const count = (before.count ?? 1) + (field.array_len ?? 1);
      fields[fields.length - 1] = { ...before, count, ...(table && { table }) };
    } else {
      const table = tableIn(field);
      const count = field.array_len ?? (field.index === undefined ? undefined : 1);
      fields.push({
        name: field.name,
        since: 0,
        conditional: false,
        type: field.type,
        ...(isPlain(field) ? { elementBytes: field.size } : {}),
        ...(count === undefined ? {} : { count }),
        ...(table && { table }),
      });
    }
    last = field;
  }
  return {
    name: state.vmsd_name,
    version: state.version,
    fields,
    subsections: (state.subsections ?? []).map(tableOfVmdesc),
  };
}

/** Whether an entry is one more element of the array before it: they have an index, or in 11.x nothing but the name. */
function isNextElement(last: VmdescField, field: VmdescField): boolean {
  if (last.name !== field.name) return false;
  const isMarker = ({ type }: VmdescField): boolean => type === 'nullptr' || type === 'ptr-marker';
  if (isMarker(last) || isMarker(field)) return true;
  if (field.struct !== undefined) return field.struct.vmsd_name === last.struct?.vmsd_name;
  return last.index !== undefined && last.type === field.type;
}

/** The nested table of an entry; of a list, that of its first element. */
function tableIn(field: VmdescField): Table | undefined {
  const state = field.struct ?? innerStates(field)[0];
  // QEMU before 10.0 describes null pointers as structs without anything.
  return typeof state?.vmsd_name === 'string' ? tableOfVmdesc(state) : undefined;
}

/** A name without the number that QEMU since 11 gives to names that a table has more than once. */
export function plainName(name: string): string {
  return name.replace(/\[\d+\]$/, '');
}

/** The types whose size in a dump is the one on the wire. */
const PLAIN =
  /^(u?int(8|16|32|64)( (equal|le))?|bool|float64|CPU_Double_U|buffer|unused_buffer|timer)$/;

function isPlain({ type, struct, size }: VmdescField): boolean {
  return struct === undefined && size > 0 && PLAIN.test(type);
}

/** Whether the field's length is up to what it holds: a list, a tree, pointers that may be null. */
export function isContainer({ type, table }: TableField): boolean {
  if (type === 'struct') return table === undefined;
  return type !== undefined && /^(qtailq|qlist|gtree|nullptr|ptr-marker)$/.test(type);
}

/** Bytes of a field on the wire; undefined where that is not fixed or not known. */
export function fixedBytes(field: TableField): number | undefined {
  const element = field.table === undefined ? field.elementBytes : bytesOfTable(field.table);
  return element === undefined ? undefined : element * (field.count ?? 1);
}

function bytesOfTable(table: Table): number | undefined {
  if (table.subsections.length > 0) return undefined;
  let bytes = 0;
  for (const field of table.fields) {
    if (field.conditional || field.since > table.version) return undefined;
    const own = fixedBytes(field);
    if (own === undefined) return undefined;
    bytes += own;
  }
  return bytes;
}
