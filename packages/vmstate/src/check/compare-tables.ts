import { alignFields } from './align.ts';
import { compareGap } from './compare-gap.ts';
import { compareNestedVersions, compareVersions } from './compare-versions.ts';
import type { Comparison } from './comparison.ts';
import type { Found } from './finding.ts';
import { isSent } from './known.ts';
import { joinSplits, likenessOf, type Owners, openStructs } from './likeness.ts';
import { DEVICE_OPTIONS, sayField } from './say-field.ts';
import {
  fixedBytes,
  isContainer,
  isUnused,
  plainName,
  type Table,
  type TableField,
} from './table.ts';

/**
 * Compares what the source sends for a table with what the destination reads.
 *
 * @param version the version with which the destination picks its fields
 */
export function compareTables(
  source: Table,
  dest: Table,
  version: number,
  path: readonly string[],
  comparison: Comparison,
): void {
  const sender = { machine: comparison.machine, version: source.version };
  // What the sender surely sends stands under no condition, what it surely does not is not there.
  const sent = (table: Table, fields: readonly TableField[], newest: number): TableField[] =>
    fields.flatMap((field) => {
      if (!field.conditional) return field.since <= newest ? [field] : [];
      const answer = isSent(comparison.known, table.name, field.name, sender);
      if (answer === undefined) return [field];
      return answer ? [{ ...field, conditional: false }] : [];
    });
  compareFields(
    sent(source, source.fields, source.version),
    sent(dest, dest.fields, version),
    { source, dest, sourceSubsections: source.subsections, destSubsections: dest.subsections },
    path,
    comparison,
  );
}

/** What breaks in a part that is not always sent may break. */
function ifSent(comparison: Comparison): Comparison {
  if (comparison.sourceIsStream) return comparison;
  return {
    ...comparison,
    report: (found) =>
      comparison.report(
        found.verdict === 'breaks'
          ? { ...found, verdict: 'may-break', why: `${found.why} It is not always sent.` }
          : found,
      ),
  };
}

function compareFields(
  source: readonly TableField[],
  dest: readonly TableField[],
  owners: Owners,
  path: readonly string[],
  comparison: Comparison,
): void {
  const { budget, known, report } = comparison;
  const segments = alignFields(source, dest, likenessOf(known, owners.dest.name), budget);
  if (segments === undefined) {
    report({
      verdict: 'cannot-tell',
      rule: 'TOO_DIFFERENT',
      path,
      source: `${source.length} fields`,
      dest: `${dest.length} fields`,
      why: 'The two lists of fields are too long and too different to be aligned.',
      whatToDo: 'Compare streams of the two sides instead.',
    });
    return;
  }
  const opened = openStructs(segments, known, owners, budget);
  if (opened !== undefined) {
    compareFields(opened.source, opened.dest, opened.owners, path, comparison);
    return;
  }
  for (const segment of joinSplits(segments)) {
    if (segment.kind === 'pair') comparePair(segment.source, segment.dest, path, comparison);
    else compareGap(segment.source, segment.dest, owners.dest.name, path, comparison);
  }
  compareSubsections(owners, path, comparison);
}

function comparePair(
  source: TableField,
  dest: TableField,
  parent: readonly string[],
  comparison: Comparison,
): void {
  const { report, known, sourceIsStream, destIsStream } = comparison;
  const path = [...parent, dest.name];
  const found = (
    finding: Pick<Found, 'verdict' | 'rule' | 'why' | 'whatToDo'> & Partial<Found>,
  ): void => report({ path, source: sayField(source), dest: sayField(dest), ...finding });
  if (plainName(source.name) !== plainName(dest.name) && !(isUnused(source) && isUnused(dest))) {
    const entry = known.fields.find(
      ({ names }) => names.includes(source.name) && names.includes(dest.name),
    );
    found({
      verdict: 'fine',
      rule: 'FIELD_RENAMED',
      why: `The field has another name and the same bytes${entry === undefined ? '' : `: ${entry.why}`}.`,
      whatToDo: 'Nothing.',
    });
  }
  if (source.conditional !== dest.conditional && !sourceIsStream && !destIsStream) {
    found({
      verdict: 'may-break',
      rule: 'FIELD_CONDITION',
      why: source.conditional
        ? 'The source sends the field under a condition, the destination always expects it.'
        : 'The source always sends the field, the destination expects it under a condition.',
      whatToDo: 'Compare a stream of the source: it tells whether the field is sent.',
    });
  }
  if (source.table !== undefined && dest.table !== undefined) {
    const inner = [...path, dest.table.name];
    const within = source.conditional && dest.conditional ? ifSent(comparison) : comparison;
    compareNestedVersions(source.table, dest.table, inner, within);
    compareTables(source.table, dest.table, dest.table.version, inner, within);
  } else if (isContainer(source) || isContainer(dest)) {
    return;
  } else if (source.table !== dest.table) {
    const same = fixedBytes(source) !== undefined && fixedBytes(source) === fixedBytes(dest);
    found({
      verdict: same ? 'may-break' : 'breaks',
      rule: 'FIELD_KIND',
      why: same
        ? 'A nested state stands against a plain value of the same length.'
        : 'A nested state stands against a plain value: the lengths on the wire differ.',
      whatToDo: DEVICE_OPTIONS,
    });
    return;
  }
  compareShape(source, dest, comparison, found);
}

function compareShape(
  source: TableField,
  dest: TableField,
  { sourceIsStream, destIsStream }: Comparison,
  found: (finding: Pick<Found, 'verdict' | 'rule' | 'why' | 'whatToDo'>) => void,
): void {
  if (isContainer(source) || isContainer(dest)) return;
  // Neither of two streams tells whether a length is fixed or another field's.
  const mayVary = sourceIsStream && destIsStream;
  const ofAnotherLength = mayVary
    ? 'Both sides send another length here: that breaks where the length is fixed, and is fine where another field holds it.'
    : undefined;
  if (differ(source.elementBytes, dest.elementBytes)) {
    const total = fixedBytes(source) === fixedBytes(dest);
    const unsure = mayVary && source.type === 'buffer' && dest.type === 'buffer';
    found({
      verdict: total ? 'may-break' : unsure ? 'cannot-tell' : 'breaks',
      rule: 'FIELD_SIZE',
      why: total
        ? 'The elements differ in size; all together they have the same length, but values of several bytes are read in another order.'
        : ((unsure ? ofAnotherLength : undefined) ??
          'The field has another length: whatever follows it is read from the wrong place.'),
      whatToDo: DEVICE_OPTIONS,
    });
  } else if (differ(source.count, dest.count)) {
    found({
      verdict: mayVary ? 'cannot-tell' : 'breaks',
      rule: 'ARRAY_LENGTH',
      why:
        ofAnotherLength ??
        'The array has another number of elements: whatever follows it is read from the wrong place.',
      whatToDo:
        'Give the device the same options on both sides (queues, ports, CPUs); if they are equal, use the same release.',
    });
  } else if (source.type !== undefined && dest.type !== undefined && source.type !== dest.type) {
    const integers = source.type.replace(/^u/, '') === dest.type.replace(/^u/, '');
    found({
      verdict: integers ? 'fine' : 'may-break',
      rule: 'FIELD_TYPE',
      why: integers
        ? 'The same bytes are read with another sign.'
        : 'The two sides encode or check the value in different ways.',
      whatToDo: integers ? 'Nothing.' : 'Try the migration on a test guest.',
    });
  }
}

function differ(a: number | undefined, b: number | undefined): boolean {
  return a !== undefined && b !== undefined && a !== b;
}

function compareSubsections(
  { source, dest, sourceSubsections, destSubsections }: Owners,
  path: readonly string[],
  comparison: Comparison,
): void {
  const { known, machine, report, sourceIsStream, destIsStream } = comparison;
  for (const subsection of sourceSubsections) {
    const inner = [...path, subsection.name];
    // QEMU takes the first of a name; a table may hold several for conditions that exclude each other.
    const candidates = destSubsections.filter(({ name }) => name === subsection.name);
    const counterpart =
      candidates.find((candidate) => sameNames(candidate, subsection)) ?? candidates[0];
    if (counterpart !== undefined) {
      const within = ifSent(comparison);
      compareVersions(subsection, counterpart, inner, within, 'subsection');
      compareTables(subsection, counterpart, subsection.version, inner, within);
      continue;
    }
    const sender = { machine, version: source.version };
    // Between a dump and a stream that holds for every subsection: the check says so once.
    if (!sourceIsStream && destIsStream) continue;
    if (!sourceIsStream && isSent(known, source.name, subsection.name, sender) === false) continue;
    report({
      verdict: destIsStream ? 'cannot-tell' : sourceIsStream ? 'breaks' : 'may-break',
      rule: 'SUBSECTION_UNKNOWN',
      path: inner,
      source: `version ${subsection.version}`,
      why: destIsStream
        ? 'The stream of the destination has no such subsection; that side may know it all the same.'
        : sourceIsStream
          ? 'The stream holds a subsection that the destination does not know.'
          : 'The destination does not know this subsection; the source sends it when its state is not the default.',
      whatToDo: destIsStream
        ? 'Take a -dump-vmstate of the destination.'
        : 'Turn off the feature that it belongs to, by the machine type or a device option; or take a newer destination.',
      ...(destIsStream
        ? {}
        : { message: `VM subsection '${subsection.name}' in '${dest.name}' does not exist` }),
    });
  }
}

function sameNames(a: Table, b: Table): boolean {
  return (
    a.fields.length === b.fields.length && a.fields.every((f, i) => f.name === b.fields[i]!.name)
  );
}
