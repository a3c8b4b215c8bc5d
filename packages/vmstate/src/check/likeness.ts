import type { AlignBudget, Likeness, Segment } from './align.ts';
import type { Known } from './known.ts';
import { fixedBytes, isUnused, plainName, type Table, type TableField } from './table.ts';

/** The tables that a list of fields belongs to. */
export interface Owners {
  readonly source: Table;
  readonly dest: Table;
  readonly sourceSubsections: readonly Table[];
  readonly destSubsections: readonly Table[];
}

export function likenessOf(known: Known, description: string): Likeness {
  return (a, b) => {
    const sameCondition = a.conditional === b.conditional ? 1 : 0;
    if (isUnused(a) || isUnused(b)) {
      const both = isUnused(a) && isUnused(b) && fixedBytes(a) === fixedBytes(b);
      return both ? 8 + sameCondition : 0;
    }
    const isNested = a.table !== undefined;
    const sameShape = a.elementBytes === b.elementBytes && isNested === (b.table !== undefined);
    const alike = (sameShape ? 2 : 0) + sameCondition;
    if (a.name === b.name) return 8 + alike;
    if (plainName(a.name) === plainName(b.name)) return 7 + alike;
    if (isRename(known, description, a.name, b.name)) return 6 + alike;
    // A part of the state that moved within its owner keeps its own name, or its table.
    const moved = isNested
      ? a.table.name === b.table?.name
      : sameShape &&
        a.elementBytes !== undefined &&
        lastName(a.name) === lastName(b.name) &&
        a.count === b.count;
    return moved ? 2 + alike : 0;
  };
}

function isRename(known: Known, description: string, a: string, b: string): boolean {
  return known.fields.some(
    (f) => f.description === description && f.names.includes(a) && f.names.includes(b),
  );
}

function lastName(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1);
}

/** Replaces nested states that one side has, and whose fields the other side has in their place. */
export function openStructs(
  segments: readonly Segment[],
  known: Known,
  owners: Owners,
  budget: AlignBudget,
): { source: TableField[]; dest: TableField[]; owners: Owners } | undefined {
  const source: TableField[] = [];
  const dest: TableField[] = [];
  const subsections = { source: [...owners.sourceSubsections], dest: [...owners.destSubsections] };
  let opened = false;
  const open = (
    fields: readonly TableField[],
    others: readonly TableField[],
    into: TableField[],
    tables: Table[],
  ): void => {
    for (const field of fields) {
      const { table } = field;
      const inPlace = table !== undefined && field.count === undefined ? table : undefined;
      if (inPlace === undefined || !isMostlyIn(inPlace, others, known, budget)) {
        into.push(field);
        continue;
      }
      opened = true;
      into.push(...inPlace.fields.filter((f) => f.conditional || f.since <= inPlace.version));
      tables.push(...inPlace.subsections);
    }
  };
  for (const segment of segments) {
    if (segment.kind === 'pair') {
      source.push(segment.source);
      dest.push(segment.dest);
    } else {
      open(segment.source, segment.dest, source, subsections.source);
      open(segment.dest, segment.source, dest, subsections.dest);
    }
  }
  if (!opened) return undefined;
  return {
    source,
    dest,
    owners: {
      ...owners,
      sourceSubsections: subsections.source,
      destSubsections: subsections.dest,
    },
  };
}

/** Whether at least half of a table's fields are among some others. */
function isMostlyIn(
  table: Table,
  others: readonly TableField[],
  known: Known,
  budget: AlignBudget,
): boolean {
  budget.cells -= table.fields.length * others.length;
  if (budget.cells < 0) return false;
  const like = likenessOf(known, table.name);
  const same = table.fields.filter((f) => others.some((other) => like(f, other) > 0)).length;
  return same > 0 && same * 2 >= table.fields.length;
}

/** A value of another length whose rest the fields beside it make up was split, or put together. */
export function joinSplits(segments: readonly Segment[]): Segment[] {
  const joined: Segment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    if (segment.kind === 'gap' && last?.kind === 'pair' && last.source.table === undefined) {
      const source = [last.source, ...segment.source];
      const dest = [last.dest, ...segment.dest];
      const bytes = sum(source);
      const differ = fixedBytes(last.source) !== fixedBytes(last.dest);
      if (differ && bytes !== undefined && bytes === sum(dest)) {
        joined[joined.length - 1] = { kind: 'gap', source, dest };
        continue;
      }
    }
    joined.push(segment);
  }
  return joined;
}

function sum(fields: readonly TableField[]): number | undefined {
  const sizes = fields.map(fixedBytes);
  return sizes.every((size) => size !== undefined)
    ? sizes.reduce((total, size) => total + size, 0)
    : undefined;
}
