import type { Dump, DumpType } from '../dump.ts';
import { alignFields } from './align.ts';
import { compareTables } from './compare-tables.ts';
import { compareVersions } from './compare-versions.ts';
import type { Comparison } from './comparison.ts';
import { byVerdict, type Direction, type Finding, type Found } from './finding.ts';
import { builtInKnown, compareReleases, type Known } from './known.ts';
import { likenessOf } from './likeness.ts';
import { isUnused, type Table, type TableField, tableOfDump, tellsCounts } from './table.ts';
import type { UnusedRule } from './unused.ts';

/** What the checks of dumps and of streams take. */
export interface CheckOptions {
  /** Which way the guest goes; `source-to-dest` unless told. */
  readonly direction?: Direction;
  /** What is known beyond the two sides; the package's own data unless told. */
  readonly known?: Known;
  /** What to look at, by the device type's name (dumps) or the idstr (streams), and by the section's name; all unless told. */
  readonly only?: (name: string, section: string) => boolean;
  /** The day of the check, `YYYY-MM-DD`, for ages; today unless told. */
  readonly today?: string;
  /** States that bytes that are unused have been so for this many years. */
  readonly unusedAgeYears?: number;
  /** Dumps of other releases, to see who sends something in bytes that are unused elsewhere. */
  readonly history?: ReadonlyMap<string, Dump>;
}

/** Cells of all alignments of one check: a real pair of dumps needs some 100,000. */
const MAX_CELLS = 20_000_000;

/** Sets up a comparison; each finding gets the direction. */
export function startComparison(
  options: CheckOptions,
  facts: Pick<Comparison, 'machine' | 'sourceIsStream' | 'destIsStream'>,
): { comparison: Comparison; findings: Finding[] } {
  const { direction = 'source-to-dest', known = builtInKnown(), history } = options;
  const findings: Finding[] = [];
  const today = options.today ?? new Date().toISOString().slice(0, 10);
  const unused: UnusedRule = {
    today,
    ageYears: options.unusedAgeYears,
    sendersOf: history && ((path, fields) => sendersOf(history, path, fields, known)),
  };
  const report = (found: Found): number => findings.push({ ...found, direction });
  return {
    comparison: { ...facts, known, budget: { cells: MAX_CELLS }, report, section: '', unused },
    findings,
  };
}

/**
 * Checks whether what a machine of the source's release sends loads at the destination's.
 *
 * @returns every difference, worst first; a type that only the destination has is none
 * @see docs/check.md for the rules
 */
export function checkDumps(source: Dump, dest: Dump, options: CheckOptions = {}): Finding[] {
  const sameMachine = source.machine === dest.machine;
  const { comparison, findings } = startComparison(options, {
    machine: sameMachine ? source.machine : undefined,
    sourceIsStream: false,
    destIsStream: false,
  });
  if (!sameMachine) comparison.report(machineTypeFinding(source.machine, dest.machine));
  const { only = () => true } = options;
  const to: Side = { dump: dest, tellsCounts: tellsCounts(dest) };
  const sourceTells = tellsCounts(source);
  for (const type of source.types.values()) {
    if (only(type.name, type.description?.name ?? type.name))
      checkType(type, sourceTells, to, comparison);
  }
  return findings.sort(byVerdict);
}

/** Makes the finding of two machine types that differ. */
export function machineTypeFinding(source: string, dest: string): Found {
  return {
    verdict: 'breaks',
    rule: 'MACHINE_TYPE',
    path: [],
    source,
    dest,
    why: 'The machine types differ: the destination refuses the stream at its beginning.',
    whatToDo: 'Start the destination with the source’s machine type, by its full name.',
    message: `Machine type received is '${source}' and local is '${dest}'`,
  };
}

interface Side {
  readonly dump: Dump;
  readonly tellsCounts: boolean;
}

function checkType(
  source: DumpType,
  sourceTells: boolean,
  side: Side,
  comparison: Comparison,
): void {
  const { known, report } = comparison;
  const path = [source.name];
  const renamed = known.types.find(({ names }) => names.includes(source.name));
  const names = [source.name, ...(renamed?.names ?? [])];
  const dest = names.map((name) => side.dump.types.get(name)).find((type) => type !== undefined);
  if (dest === undefined) {
    reportMissing(source, comparison);
    return;
  }
  if (dest.name !== source.name) {
    report({
      verdict: 'fine',
      rule: 'DEVICE_RENAMED',
      path,
      source: source.name,
      dest: dest.name,
      why: `The device type has another name: ${renamed?.why ?? ''}.`,
      whatToDo: 'Nothing; name it by its new name on the destination’s command line.',
    });
  }
  const from = source.description && tableOfDump(source.description, sourceTells);
  const to = dest.description && tableOfDump(dest.description, side.tellsCounts);
  if (from === undefined || to === undefined || isBare(from) !== isBare(to)) {
    if (isBare(from) !== isBare(to)) reportUndescribed(from, to, path, comparison);
    return;
  }
  if (from.name !== to.name) {
    report({
      verdict: 'breaks',
      rule: 'SECTION_RENAMED',
      path,
      source: from.name,
      dest: to.name,
      why: 'The section of this device has another name: the destination does not know the one that comes.',
      whatToDo: 'Leave the device out, or use the same release on both sides.',
      message: `Unknown savevm section or instance '${from.name}' 0`,
    });
    return;
  }
  const inner = [...path, to.name];
  const within = { ...comparison, section: from.name };
  const head = (type: DumpType, table: Table): Table => ({
    ...table,
    version: type.versionId,
    minimumVersion: type.minimumVersionId,
  });
  compareVersions(head(source, from), head(dest, to), path, within);
  // A real dump says the version twice.
  if (!sameVersions(source, from) || !sameVersions(dest, to)) {
    compareVersions(from, to, inner, within);
  }
  compareTables(from, to, from.version, inner, within);
}

function sameVersions(type: DumpType, table: Table): boolean {
  return type.versionId === table.version && type.minimumVersionId === table.minimumVersion;
}

/** Whether a device's state has no fields: QEMU describes those so that it refuses to migrate. */
function isBare(table: Table | undefined): boolean {
  return table === undefined || table.fields.length + table.subsections.length === 0;
}

function reportUndescribed(
  source: Table | undefined,
  dest: Table | undefined,
  path: readonly string[],
  { report }: Comparison,
): void {
  const bare = isBare(source);
  const say = (table: Table | undefined): string =>
    table === undefined ? 'no description' : `${table.fields.length} fields`;
  report({
    verdict: 'breaks',
    rule: 'DESCRIPTION_MISSING',
    path,
    source: say(source),
    dest: say(dest),
    why: bare
      ? 'The source describes no state of this device: as a rule QEMU refuses to migrate it.'
      : 'The destination describes no state of this device: it cannot load what comes.',
    whatToDo: 'Unplug the device before the migration.',
    ...(bare ? {} : { message: `Unknown savevm section or instance '${source?.name ?? ''}' 0` }),
  });
}

function reportMissing(source: DumpType, { known, report }: Comparison): void {
  const stated = known.absentTypes.find(({ types }) => types.includes(source.name));
  const section = source.description?.name ?? source.name;
  report({
    verdict: stated === undefined ? 'may-break' : 'fine',
    rule: 'DEVICE_MISSING',
    path: [source.name],
    source: `section ${section}`,
    why:
      stated === undefined
        ? 'The destination has no such device type: a guest that has one cannot go there.'
        : `The destination has no such device type, and loads the section all the same: ${stated.why}.`,
    whatToDo:
      stated === undefined ? 'Unplug the device, or do not give it to the guest.' : 'Nothing.',
    ...(stated === undefined
      ? { message: `Unknown savevm section or instance '${section}' 0` }
      : {}),
  });
}

/** Names the releases that send something in the bytes of the destination's fields, and what they call it. */
function sendersOf(
  history: ReadonlyMap<string, Dump>,
  path: readonly string[],
  fields: readonly string[],
  known: Known,
): string[] {
  const dumps = [...history].sort(([a], [b]) => compareReleases(a, b));
  const tables = dumps.map(([release, dump]) => [release, tableAt(dump, path)] as const);
  const isLaid = ({ name }: TableField): boolean => fields.includes(name);
  const reference = tables.find(([, table]) => table?.fields.some(isLaid))?.[1];
  if (reference === undefined) return [];
  return tables.flatMap(([release, table]) => {
    if (table === undefined) return [];
    const like = likenessOf(known, reference.name);
    const segments = alignFields(table.fields, reference.fields, like, { cells: 1_000_000 }) ?? [];
    const there = segments.flatMap((segment) => {
      const isPair = segment.kind === 'pair';
      const dest = isPair ? [segment.dest] : segment.dest;
      if (!dest.some(isLaid)) return [];
      return isPair ? [segment.source] : segment.source;
    });
    const sent = there.filter((f) => !isUnused(f)).map((f) => f.name);
    return sent.length === 0 ? [] : [`${release} (${sent.join(', ')})`];
  });
}

/** Finds the innermost table of a path of type, description, field, description … field. */
function tableAt(dump: Dump, path: readonly string[]): Table | undefined {
  const [type = '', , ...rest] = path.slice(0, -1);
  const description = dump.types.get(type)?.description;
  let table = description && tableOfDump(description, true);
  for (const name of rest) {
    if (table === undefined || table.name === name) continue;
    table =
      table.subsections.find((subsection) => subsection.name === name) ??
      table.fields.find((f) => f.name === name)?.table;
  }
  return table;
}
