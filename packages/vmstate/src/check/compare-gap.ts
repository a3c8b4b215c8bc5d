import { partGap } from './align.ts';
import type { Comparison } from './comparison.ts';
import { DEVICE_OPTIONS, names, sayFields } from './say-field.ts';
import { isUnused, type TableField } from './table.ts';
import { unusedFinding } from './unused.ts';

export function compareGap(
  source: readonly TableField[],
  dest: readonly TableField[],
  description: string,
  parent: readonly string[],
  comparison: Comparison,
): void {
  for (const part of partGap(source, dest)) {
    if (part.balanced) reportReplaced(part.source, part.dest, description, parent, comparison);
    else reportLeftOver(part.source, part.dest, description, parent, comparison);
  }
}

/** The two sides fill the same bytes with different fields. */
function reportReplaced(
  source: readonly TableField[],
  dest: readonly TableField[],
  description: string,
  parent: readonly string[],
  comparison: Comparison,
): void {
  const at = {
    path: [...parent, names(dest)],
    source: sayFields(source),
    dest: sayFields(dest),
  };
  if (dest.every(isUnused)) {
    comparison.report({
      ...at,
      path: [...parent, names(source)],
      verdict: 'fine',
      rule: 'UNUSED_DROPPED',
      why: 'The destination passes over these bytes: it no longer needs the value.',
      whatToDo: 'Nothing; on the way back they arrive as zeros.',
    });
  } else if (source.some(isUnused)) {
    const laid = dest.filter((field) => !isUnused(field));
    comparison.report(unusedFinding(laid, at, description, comparison.unused, comparison.known));
  } else {
    comparison.report({
      ...at,
      verdict: 'may-break',
      rule: 'FIELD_REPLACED',
      why: 'The two sides fill the same bytes with different fields: it loads, and is right only if they mean the same.',
      whatToDo:
        'If it is a rename or a split, state it in a file for --facts; otherwise use the same release on both sides.',
    });
  }
}

/** What one side has and the other has not, or of another length. */
function reportLeftOver(
  source: readonly TableField[],
  dest: readonly TableField[],
  description: string,
  parent: readonly string[],
  comparison: Comparison,
): void {
  const { known, sourceIsStream, destIsStream } = comparison;
  const isArray = ({ name }: TableField): boolean =>
    known.variableArrays.some((a) => a.description === description && a.names.includes(name));
  const inStream = (destIsStream && dest.length === 0) || (sourceIsStream && source.length === 0);
  if (inStream && [...source, ...dest].every(isArray)) return;
  const both = source.length > 0 && dest.length > 0;
  const fields = source.length > 0 ? source : dest;
  const depends = [...source, ...dest].every((field) => field.conditional);
  const unsaid = inStream && fields.every((field) => field.conditional || mayBeEmpty(field));
  const verdict = depends ? (inStream ? 'fine' : 'may-break') : unsaid ? 'cannot-tell' : 'breaks';
  const ending = 'whatever follows is read from the wrong place';
  const why = both
    ? 'The two sides have different fields of different lengths here'
    : source.length > 0
      ? `The destination does not read ${fields.length === 1 ? 'this field' : 'these fields'}`
      : `The source does not send ${fields.length === 1 ? 'this field' : 'these fields'}`;
  comparison.report({
    verdict,
    rule: both ? 'FIELD_REPLACED' : source.length > 0 ? 'FIELD_MISSING' : 'FIELD_EXTRA',
    path: [...parent, names(fields)],
    ...(source.length > 0 ? { source: sayFields(source) } : {}),
    ...(dest.length > 0 ? { dest: sayFields(dest) } : {}),
    why: depends
      ? inStream
        ? `${why}; a test decides whether to, on both sides alike if they have the same options.`
        : `${why}; a test decides whether ${fields.length === 1 ? 'it is' : 'they are'} on the wire at all.`
      : unsaid
        ? `${why}; it may be an array without elements.`
        : `${why}: ${ending}.`,
    whatToDo: depends ? 'Compare a stream of the source: it tells what is sent.' : DEVICE_OPTIONS,
    ...(verdict === 'breaks'
      ? { message: `Missing section footer for ${comparison.section}` }
      : {}),
  });
}

function mayBeEmpty(field: TableField): boolean {
  return (
    field.count === undefined && (field.table !== undefined || field.elementBytes === undefined)
  );
}
