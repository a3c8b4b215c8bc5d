import { wrap } from '../inspect/wrap.ts';
import type { Cause } from './cause.ts';
import { fillNames } from './match.ts';

const LABEL_COLUMNS = 6;

/** Writes a cause for people, with the names of a message put in, in lines of at most `columns`. */
export function formatCause(
  cause: Cause,
  names: Readonly<Record<string, string>> | undefined,
  columns: number,
): string[] {
  const lines = [cause.code];
  for (const [label, text] of [
    ['what', cause.what],
    ['why', cause.why],
    ['do', cause.action],
  ] as const) {
    const [first = '', ...rest] = wrap(fillNames(text, names), columns - 2 - LABEL_COLUMNS);
    lines.push(`  ${label.padEnd(LABEL_COLUMNS)}${first}`);
    for (const line of rest) lines.push(`  ${''.padEnd(LABEL_COLUMNS)}${line}`);
  }
  return lines;
}
