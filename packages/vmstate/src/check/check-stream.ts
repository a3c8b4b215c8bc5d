import type { Dump } from '../dump.ts';
import type { Vmdesc, VmdescDevice, VmdescState } from '../vmdesc.ts';
import { type CheckOptions, machineTypeFinding, startComparison } from './check-dumps.ts';
import { compareTables } from './compare-tables.ts';
import { compareVersions } from './compare-versions.ts';
import type { Comparison } from './comparison.ts';
import { byVerdict, type Finding, type Found, verdicts, worstVerdict } from './finding.ts';
import { type Table, tableOfDump, tableOfVmdesc, tellsCounts } from './table.ts';

/** What a stream tells of the side that sent it. */
export interface StreamFacts {
  /** Machine type of the configuration section, where the stream has one. */
  readonly machine?: string;
  /** Capabilities that the configuration section lists. */
  readonly capabilities?: readonly string[];
  readonly ramBlocks?: readonly { readonly name: string; readonly usedBytes: number }[];
  /** Each START and FULL section, in the stream's order. */
  readonly sections: readonly StreamSection[];
  readonly vmdesc?: Vmdesc;
}

/** A section as its header names it. */
export interface StreamSection {
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
}

/** One side of a check: what a QEMU says of its devices, or a stream that it sent. */
export type CheckSide =
  | { readonly dump: Dump; readonly stream?: undefined }
  | { readonly stream: StreamFacts; readonly dump?: undefined };

/** A section with its table, where the side describes it. */
interface Section extends StreamSection {
  /** Name of the description: the idstr without the device's path. */
  readonly name: string;
  readonly table?: Table;
}

/**
 * Checks whether a stream loads at a destination, given as its dump or as a stream that it sent.
 *
 * @returns every difference, worst first
 * @see docs/check.md for the rules
 */
export function checkStream(
  source: StreamFacts,
  dest: CheckSide,
  options: CheckOptions = {},
): Finding[] {
  const destMachine = dest.dump === undefined ? dest.stream.machine : dest.dump.machine;
  const { comparison, findings } = startComparison(options, {
    machine: source.machine === destMachine ? source.machine : undefined,
    sourceIsStream: true,
    destIsStream: dest.dump === undefined,
  });
  const { report } = comparison;
  if (source.machine !== undefined && destMachine !== undefined && source.machine !== destMachine) {
    report(machineTypeFinding(source.machine, destMachine));
  }
  if (source.vmdesc === undefined) report(noVmdesc());
  const sections = sectionsOf(source, options);
  if (dest.dump === undefined) compareStreams(source, dest.stream, sections, comparison, options);
  else for (const section of sections) compareWithDump(section, tablesOf(dest.dump), comparison);
  return findings.sort(byVerdict);
}

/**
 * Checks what a release sends, by its dump, against a stream of the destination: the sections that
 * this stream has are compared.
 */
export function checkDumpAgainstStream(
  source: Dump,
  dest: StreamFacts,
  options: CheckOptions = {},
): Finding[] {
  const { comparison, findings } = startComparison(options, {
    machine: source.machine === dest.machine ? source.machine : undefined,
    sourceIsStream: false,
    destIsStream: true,
  });
  if (dest.machine !== undefined && source.machine !== dest.machine) {
    comparison.report(machineTypeFinding(source.machine, dest.machine));
  }
  comparison.report(dest.vmdesc === undefined ? noVmdesc() : subsectionsUnsaid());
  const tables = tablesOf(source);
  const seen = new Set<string>();
  for (const section of sectionsOf(dest, options)) {
    if (section.table === undefined || seen.has(section.name)) continue;
    seen.add(section.name);
    const candidates = tables.get(section.name) ?? [];
    if (candidates.length > 0) {
      reportBest(candidates, { ...comparison, section: section.idstr }, (table, within) => {
        compareVersions(table, section.table!, [section.idstr], within);
        compareTables(table, section.table!, table.version, [section.idstr], within);
      });
    } else if (!isKnownUndescribed(section, comparison)) {
      comparison.report(undescribed(section));
    }
  }
  return findings.sort(byVerdict);
}

function noVmdesc(): Found {
  return {
    verdict: 'cannot-tell',
    rule: 'SECTION_UNDESCRIBED',
    path: [],
    why: 'The stream has no vmdesc, so only the names and versions of its sections are compared.',
    whatToDo: 'Record a precopy stream of the same machine, with suppress-vmdesc off.',
  };
}

function subsectionsUnsaid(): Found {
  return {
    verdict: 'cannot-tell',
    rule: 'SUBSECTION_UNKNOWN',
    path: [],
    why: 'The stream of the destination holds the subsections that it needed: which others that side knows, it does not tell.',
    whatToDo: 'Take a -dump-vmstate of the destination.',
  };
}

function sectionsOf(facts: StreamFacts, { only = () => true }: CheckOptions): Section[] {
  const described = new Map<string, VmdescDevice[]>();
  for (const device of facts.vmdesc?.devices ?? []) {
    const key = keyOf(device.name, device.instance_id);
    described.set(key, [...(described.get(key) ?? []), device]);
  }
  return facts.sections
    .filter(({ idstr }) => only(idstr, lastName(idstr)))
    .map((section) => {
      const device = described.get(keyOf(section.idstr, section.instanceId))?.shift();
      const state = isState(device) ? device : undefined;
      return {
        ...section,
        name: state?.vmsd_name ?? lastName(section.idstr),
        ...(state === undefined
          ? {}
          : { table: { ...tableOfVmdesc(state), version: section.version } }),
      };
    });
}

/** Takes the device's path off a section's name. */
function lastName(idstr: string): string {
  return idstr.slice(idstr.lastIndexOf('/') + 1);
}

function keyOf(idstr: string, instanceId: number): string {
  return `${instanceId} ${idstr}`;
}

function isState(device: VmdescDevice | undefined): device is VmdescDevice & VmdescState {
  return device?.vmsd_name !== undefined && device.fields !== undefined;
}

/** Collects a dump's tables by the name that their sections carry. */
function tablesOf(dump: Dump): Map<string, Table[]> {
  const known = tablesOfDump.get(dump);
  if (known !== undefined) return known;
  const tells = tellsCounts(dump);
  const tables = new Map<string, Table[]>();
  for (const { description, versionId, minimumVersionId } of dump.types.values()) {
    if (description === undefined) continue;
    const table = {
      ...tableOfDump(description, tells),
      version: versionId,
      minimumVersion: minimumVersionId,
    };
    tables.set(table.name, [...(tables.get(table.name) ?? []), table]);
  }
  tablesOfDump.set(dump, tables);
  return tables;
}

const tablesOfDump = new WeakMap<Dump, Map<string, Table[]>>();

function compareWithDump(
  section: Section,
  tables: ReadonlyMap<string, readonly Table[]>,
  comparison: Comparison,
): void {
  const { idstr, name, table } = section;
  const candidates = tables.get(name) ?? [];
  if (candidates.length === 0) {
    if (isKnownUndescribed(section, comparison)) return;
    // A section with a device's path is that of a device, and those a dump has.
    const apart = comparison.known.undescribed.some((entry) => entry.section === name);
    if (idstr === name || apart) comparison.report(undescribed(section));
    else comparison.report(unknownSection(section));
    return;
  }
  reportBest(candidates, { ...comparison, section: idstr }, (candidate, within) => {
    const source = table ?? { name, version: section.version, fields: [], subsections: [] };
    compareVersions(source, candidate, [idstr], within);
    if (table !== undefined) {
      compareTables(table, candidate, section.version, [idstr], within);
    }
  });
}

/** Several device types may share a section's name: the one that fits best is the one meant. */
function reportBest(
  candidates: readonly Table[],
  comparison: Comparison,
  compare: (candidate: Table, within: Comparison) => void,
): void {
  const rank = (list: readonly Found[]): number =>
    verdicts.indexOf(worstVerdict(list)) * 1e6 - list.length;
  let best: Found[] | undefined;
  for (const candidate of candidates) {
    const found: Found[] = [];
    compare(candidate, { ...comparison, report: (finding) => found.push(finding) });
    if (best === undefined || rank(found) > rank(best)) best = found;
  }
  for (const finding of best ?? []) comparison.report(finding);
}

function isKnownUndescribed({ name, version, table }: Section, { known }: Comparison): boolean {
  const entry = known.undescribed.find(({ section }) => section === name);
  return (
    entry !== undefined &&
    entry.since === undefined &&
    version <= entry.version &&
    (table?.subsections ?? []).every((s) => entry.subsections?.includes(s.name) === true)
  );
}

function undescribed({ idstr, version }: Section): Found {
  return {
    verdict: 'cannot-tell',
    rule: 'SECTION_UNDESCRIBED',
    path: [idstr],
    source: `version ${version}`,
    why: 'The section is not that of a device type, or is of a newer version or with subsections that are not known: a dump does not describe it.',
    whatToDo: 'Compare with a stream of the destination, of the same machine.',
  };
}

function unknownSection({ idstr, instanceId, version }: Section): Found {
  return {
    verdict: 'breaks',
    rule: 'SECTION_UNKNOWN',
    path: [idstr],
    source: `instance ${instanceId}, version ${version}`,
    why: 'The destination has no such section: it lacks the device, or has it under another name.',
    whatToDo: 'Give the destination the same devices at the same addresses; else unplug it first.',
    message: `Unknown savevm section or instance '${idstr}' ${instanceId}. Make sure that your current VM setup matches your saved VM setup, including any hotplugged devices`,
  };
}

function compareStreams(
  source: StreamFacts,
  dest: StreamFacts,
  sections: readonly Section[],
  comparison: Comparison,
  options: CheckOptions,
): void {
  const { report } = comparison;
  compareCapabilities(source, dest, comparison);
  compareRamBlocks(source, dest, comparison);
  const others = new Map<string, Section[]>();
  for (const section of sectionsOf(dest, options)) {
    const key = keyOf(section.idstr, section.instanceId);
    others.set(key, [...(others.get(key) ?? []), section]);
  }
  for (const section of sections) {
    const other = others.get(keyOf(section.idstr, section.instanceId))?.shift();
    if (other === undefined) {
      // The stream of the destination shows what it sends, and it may know more than that.
      const known = isKnownUndescribed(section, comparison);
      if (!known) report(unknownSection(section));
      continue;
    }
    if (isKnownUndescribed(section, comparison) && isKnownUndescribed(other, comparison)) continue;
    const path = [section.idstr];
    const from = section.table ?? emptyTable(section);
    const to = other.table ?? emptyTable(other);
    const within = { ...comparison, section: section.idstr };
    compareVersions(from, to, path, within);
    if (section.table !== undefined && other.table !== undefined) {
      compareTables(from, to, section.version, path, within);
    }
  }
  for (const section of [...others.values()].flat()) {
    if (!isKnownUndescribed(section, comparison)) report(notSent(section));
  }
}

function emptyTable({ name, version }: Section): Table {
  return { name, version, fields: [], subsections: [] };
}

function notSent({ idstr, instanceId, version }: Section): Found {
  return {
    verdict: 'may-break',
    rule: 'SECTION_NOT_SENT',
    path: [idstr],
    dest: `instance ${instanceId}, version ${version}`,
    why: 'The destination has a section that does not come: it loads without complaint, and the device stays as after a reset.',
    whatToDo: 'Give both sides the same devices; with the same devices, only the releases differ.',
  };
}

function compareCapabilities(source: StreamFacts, dest: StreamFacts, { report }: Comparison): void {
  const [from, to] = [source.capabilities ?? [], dest.capabilities ?? []];
  for (const capability of new Set([...from, ...to])) {
    const [sent, local] = [from.includes(capability), to.includes(capability)];
    if (sent === local) continue;
    const say = (on: boolean): string => (on ? 'on' : 'off');
    report({
      verdict: 'breaks',
      rule: 'CAPABILITY',
      path: ['configuration', capability],
      source: say(sent),
      dest: say(local),
      why: 'The configuration section carries this capability: both sides must have it alike.',
      whatToDo: 'Set it by migrate-set-capabilities on both sides.',
      message: `Capability ${capability} is ${say(local)}, but received capability is ${say(sent)}`,
    });
  }
}

function compareRamBlocks(source: StreamFacts, dest: StreamFacts, { report }: Comparison): void {
  if (source.ramBlocks === undefined || dest.ramBlocks === undefined) return;
  const blocks = new Map(dest.ramBlocks.map(({ name, usedBytes }) => [name, usedBytes]));
  for (const { name, usedBytes } of source.ramBlocks) {
    const other = blocks.get(name);
    // Firmware tables and option ROMs are resized to what comes.
    if (other === usedBytes || (other !== undefined && /rom|acpi/.test(name))) continue;
    report({
      verdict: 'breaks',
      rule: 'RAM_BLOCK',
      path: ['ram', name],
      source: `${usedBytes} bytes`,
      ...(other === undefined ? {} : { dest: `${other} bytes` }),
      why:
        other === undefined
          ? 'The destination has no RAM block of this name.'
          : 'The RAM block has another size.',
      whatToDo: 'Give both sides the same memory (-m, memory backends) and the same devices.',
      message:
        other === undefined
          ? `Unknown ramblock "${name}", cannot accept migration`
          : `Size mismatch: ${name}: 0x${usedBytes.toString(16)} != 0x${other.toString(16)}: Invalid argument`,
    });
  }
}
