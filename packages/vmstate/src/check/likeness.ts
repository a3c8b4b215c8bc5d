import type { Likeness, Segment } from './align.ts';
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
    const bytesA = fixedBytes(a);
    const bytesB = fixedBytes(b);
    if (isUnused(a) || isUnused(b)) return isUnused(a) && isUnused(b) && bytesA === bytesB ? 8 : 0;
    const alike =
      (a.elementBytes === b.elementBytes && (a.table === undefined) === (b.table === undefined)
        ? 2
        : 0) + (a.conditional === b.conditional ? 1 : 0);
    if (a.name === b.name) return 8 + alike;
    if (plainName(a.name) === plainName(b.name)) return 7 + alike;
    if (isRename(known, description, a.name, b.name)) return 6 + alike;
    // A part of the state that moved within its owner keeps its own name, or its table.
    const moved =
      a.table === undefined
        ? lastName(a.name) === lastName(b.name) && bytesA !== undefined && bytesA === bytesB
        : a.table.name === b.table?.name;
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
      const like = likenessOf(known, table?.name ?? '');
      const same = table?.fields.filter((f) => others.some((o) => like(f, o) > 0)).length ?? 0;
      if (table === undefined || field.count !== undefined || same * 2 < table.fields.length) {
        into.push(field);
      } else if (same > 0) {
        opened = true;
        into.push(...table.fields.filter((f) => f.conditional || f.since <= table.version));
        tables.push(...table.subsections);
      } else {
        into.push(field);
      }
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
