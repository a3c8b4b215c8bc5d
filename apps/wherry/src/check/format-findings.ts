import { type CheckSide, type Finding, type Verdict, worstVerdict } from '@wherry/vmstate';
import { escapeControls } from '../inspect/output.ts';
import { wrap } from '../inspect/wrap.ts';
import type { LoadedSide } from './load-side.ts';

/** A check that was run. */
export interface CheckReport {
  readonly source: LoadedSide;
  readonly dest: LoadedSide;
  readonly findings: readonly Finding[];
}

const TITLES: Readonly<Record<Verdict, string>> = {
  breaks: 'Breaks',
  'may-break': 'May break',
  'cannot-tell': 'Cannot tell',
  fine: 'Fine',
};
const SUMMARIES: Readonly<Record<Verdict, string>> = {
  breaks: 'Not compatible',
  'may-break': 'It depends on the guest',
  'cannot-tell': 'Cannot tell',
  fine: 'Compatible',
};
const VERDICTS = ['breaks', 'may-break', 'cannot-tell', 'fine'] as const;

/** Version of the JSON's form; it grows by members only while this stays. */
const JSON_VERSION = 1;

/** Writes a check for people: worst first, and what to do. */
export function* formatFindings(
  { source, dest, findings }: CheckReport,
  all: boolean,
  columns: number,
): Generator<string> {
  yield line(`Source  ${source.name}: ${saySide(source.side)}`);
  yield line(`Dest    ${dest.name}: ${saySide(dest.side)}`);
  for (const verdict of VERDICTS) {
    const chosen = findings.filter((finding) => finding.verdict === verdict);
    if (chosen.length === 0 || (verdict === 'fine' && !all)) continue;
    yield `\n${TITLES[verdict]}\n`;
    for (const group of groupFindings(chosen)) yield* formatGroup(group, columns);
  }
  yield `\n${summary(findings, all)}\n`;
}

function saySide({ dump, stream }: CheckSide): string {
  if (dump !== undefined) return `dump, ${dump.machine}, ${dump.types.size} device types`;
  return `stream, ${stream.machine ?? 'machine type not told'}, ${stream.sections.length} sections`;
}

/** Findings that differ in the device alone. */
type Group = readonly [Finding, ...Finding[]];

/** A description that many devices embed gives the same finding for each: they are shown once. */
function groupFindings(findings: readonly Finding[]): Group[] {
  const groups = new Map<string, [Finding, ...Finding[]]>();
  for (const finding of findings) {
    const { rule, direction, source, dest, why, path } = finding;
    const isDevice = rule === 'DEVICE_MISSING' || rule === 'SECTION_UNDESCRIBED';
    const place = isDevice ? [] : [source, dest, ...path.slice(1).slice(-2)];
    const key = JSON.stringify([rule, direction, why, ...place]);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [finding]);
    else group.push(finding);
  }
  return [...groups.values()];
}

function* formatGroup(group: Group, columns: number): Generator<string> {
  const [first] = group;
  const { rule, path, source, dest, why, whatToDo, message, direction } = first;
  const devices = [...new Set(group.map((finding) => finding.path[0] ?? ''))].filter(Boolean);
  const isMany = devices.length > 1;
  const isDevice = rule === 'DEVICE_MISSING' || rule === 'SECTION_UNDESCRIBED';
  const place = isDevice ? '' : isMany ? path.slice(1).slice(-2).join(' > ') : path.join(' > ');
  const back = direction === 'dest-to-source' ? ' (on the way back)' : '';
  yield* paragraph(`${rule}${back}${place === '' ? '' : `  ${place}`}`, 2, columns);
  if (isMany || isDevice) {
    if (devices.length > 0) yield* paragraph(`in ${devices.join(', ')}`, 4, columns);
  }
  if (!isDevice || !isMany) {
    if (source !== undefined) yield* paragraph(`source: ${source}`, 4, columns);
    if (dest !== undefined) yield* paragraph(`dest: ${dest}`, 4, columns);
  }
  yield* paragraph(why, 4, columns);
  if (whatToDo !== 'Nothing.') yield* paragraph(`→ ${whatToDo}`, 4, columns);
  if (message !== undefined && !isMany) yield* paragraph(`QEMU says: ${message}`, 4, columns);
}

function* paragraph(text: string, indent: number, columns: number): Generator<string> {
  for (const [i, part] of wrap(text, Math.min(columns, 110) - indent - 2).entries()) {
    yield line(`${' '.repeat(i === 0 ? indent : indent + 2)}${part}`);
  }
}

function line(text: string): string {
  return `${escapeControls(text.replaceAll('\n', '\\x0a'))}\n`;
}

function summary(findings: readonly Finding[], all: boolean): string {
  const parts = VERDICTS.flatMap((verdict) => {
    const count = findings.filter((finding) => finding.verdict === verdict).length;
    if (count === 0) return [];
    const hidden = verdict === 'fine' && !all ? ' (--all shows them)' : '';
    return [`${count} ${TITLES[verdict].toLowerCase()}${hidden}`];
  });
  const list = parts.length === 0 ? 'no difference' : parts.join(', ');
  return `${SUMMARIES[worstVerdict(findings)]}: ${list}.`;
}

/** Writes a check as one JSON object; docs/check.md describes it. */
export function* formatFindingsJson({ source, dest, findings }: CheckReport): Generator<string> {
  const head = {
    version: JSON_VERSION,
    source: sideJson(source),
    dest: sideJson(dest),
    verdict: worstVerdict(findings),
    counts: countsOf(findings),
  };
  yield `${JSON.stringify(head).slice(0, -1)},"findings":[`;
  let separator = '\n';
  for (const finding of findings) {
    yield separator + JSON.stringify(finding);
    separator = ',\n';
  }
  yield '\n]}\n';
}

function sideJson({ name, side: { dump, stream } }: LoadedSide): object {
  return dump !== undefined
    ? { name, kind: 'dump', machine: dump.machine, types: dump.types.size }
    : { name, kind: 'stream', machine: stream.machine, sections: stream.sections.length };
}

/** Counts findings by verdict. */
export function countsOf(findings: readonly Finding[]): Record<Verdict, number> {
  const counts = { breaks: 0, 'may-break': 0, 'cannot-tell': 0, fine: 0 };
  for (const { verdict } of findings) counts[verdict]++;
  return counts;
}
