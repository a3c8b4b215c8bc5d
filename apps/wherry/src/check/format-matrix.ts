import type { CheckedPair, CheckMatrix, Finding } from '@wherry/vmstate';
import { escapeControls } from '../inspect/output.ts';
import { formatTable } from '../inspect/table.ts';
import { wrap } from '../inspect/wrap.ts';
import { countsOf } from './format-findings.ts';

const WORDS: Readonly<Record<CheckedPair['verdict'], string>> = {
  breaks: 'breaks',
  'may-break': 'may break',
  'cannot-tell': 'cannot tell',
  fine: 'fine',
  absent: 'no machine',
};

/** Version of the JSON's form; it grows by members only while this stays. */
const JSON_VERSION = 1;

/** Writes matrices for people: a table each, and which devices break between which releases. */
export function* formatMatrix(
  matrices: readonly CheckMatrix[],
  columns: number,
): Generator<string> {
  for (const [i, { machine, releases, pairs }] of matrices.entries()) {
    if (i > 0) yield '\n';
    yield `${escapeControls(`Machine type ${machine}`)}\n`;
    const cell = (source: string, dest: string): string => {
      const pair = pairs.find((p) => p.source === source && p.dest === dest);
      if (pair === undefined) return '·';
      const devices = devicesOf(pair.findings, pair.verdict).length;
      return WORDS[pair.verdict] + (devices === 0 ? '' : ` (${devices})`);
    };
    const table = formatTable(
      ['from \\ to', ...releases],
      releases.map((source) => [source, ...releases.map((dest) => cell(source, dest))]),
    );
    if (table.split('\n')[0]!.length <= columns) yield `${table}\n`;
    else {
      for (const { source, dest } of pairs) yield `  ${source} → ${dest}  ${cell(source, dest)}\n`;
    }
    yield 'In brackets: how many device types (a guest without them is not concerned).\n';
    for (const { source, dest, findings, verdict } of pairs) {
      if (verdict !== 'breaks') continue;
      const list = devicesOf(findings, 'breaks').map((name) => {
        const rules = findings.filter((f) => f.verdict === 'breaks' && f.path[0] === name);
        return `${name} (${[...new Set(rules.map(({ rule }) => rule))].join(', ')})`;
      });
      const text = `${source} → ${dest} breaks: ${list.join(', ')}`;
      for (const [at, part] of wrap(text, Math.min(columns, 110) - 4).entries()) {
        yield `${at === 0 ? '  ' : '    '}${escapeControls(part)}\n`;
      }
    }
  }
}

/** Names the device types of a verdict's findings. */
function devicesOf(findings: readonly Finding[], verdict: CheckedPair['verdict']): string[] {
  const names = findings.filter((f) => f.verdict === verdict && verdict !== 'fine');
  return [...new Set(names.map(({ path }) => path[0] ?? ''))].filter(Boolean);
}

/** Writes matrices as one JSON object; docs/check.md describes it. */
export function* formatMatrixJson(matrices: readonly CheckMatrix[]): Generator<string> {
  yield `{"version":${JSON_VERSION},"matrices":[`;
  let separator = '\n';
  for (const { machine, releases, pairs } of matrices) {
    yield `${separator}${JSON.stringify({ machine, releases }).slice(0, -1)},"pairs":[`;
    let between = '\n';
    for (const { source, dest, verdict, findings } of pairs) {
      yield between +
        JSON.stringify({ source, dest, verdict, counts: countsOf(findings), findings });
      between = ',\n';
    }
    yield '\n]}';
    separator = ',\n';
  }
  yield '\n]}\n';
}
