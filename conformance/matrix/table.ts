import { type Release, releases } from '../peers/peers.ts';
import { type Side, sides } from './cell.ts';

/** How a cell came out: `failing` is known not to work, `failed` ought to work. */
export type CellStatus = 'passed' | 'failed' | 'failing' | 'skipped' | 'absent';

/** A cell of the printed table, and of `--json`. */
export interface CellResult {
  readonly group: string;
  readonly mode: string;
  readonly release: Release;
  readonly side: Side;
  readonly status: CellStatus;
  /** Why it is not `passed`. */
  readonly reason?: string;
  readonly durationMs?: number;
}

const words: Readonly<Record<CellStatus, string>> = {
  passed: 'ok',
  failed: 'FAILED',
  failing: 'fails',
  skipped: 'skip',
  absent: '-',
};
const nameWidth = 34;
const cellWidth = 6;

/**
 * Prints results as a table: a row a mode, two columns a release (QEMU as source, as destination), a
 * number at each cell that did not pass, and behind the table what the numbers stand for.
 */
export function formatTable(results: readonly CellResult[]): string {
  const reasons: string[] = [];
  const cellText = (result: CellResult | undefined): string => {
    if (result === undefined) return '';
    const { status, reason } = result;
    if (status === 'passed' || reason === undefined) return words[status];
    if (!reasons.includes(reason)) reasons.push(reason);
    return `${words[status]} ${reasons.indexOf(reason) + 1}`;
  };
  const texts = new Map<CellResult, string>();
  for (const result of results) texts.set(result, cellText(result));
  const width = Math.max(cellWidth, ...[...texts.values()].map((text) => text.length)) + 1;
  const lines = [
    `${''.padEnd(nameWidth)}${releases.map((release) => `QEMU ${release}`.padEnd(2 * width)).join('')}`,
    `${'QEMU as'.padEnd(nameWidth)}${releases.map(() => 'source'.padEnd(width) + 'dest.'.padEnd(width)).join('')}`,
  ];
  for (const [group, ofGroup] of Map.groupBy(results, (result) => result.group)) {
    lines.push(group);
    for (const [mode, ofMode] of Map.groupBy(ofGroup, (result) => result.mode)) {
      const cells = releases.flatMap((release) =>
        sides.map((side) =>
          ofMode.find((result) => result.release === release && result.side === side),
        ),
      );
      const columns = cells.map((cell) => (cell === undefined ? '' : texts.get(cell)!));
      lines.push(
        `  ${mode}`.padEnd(nameWidth) + columns.map((text) => text.padEnd(width)).join(''),
      );
    }
  }
  const counts = Map.groupBy(results, ({ status }) => status);
  lines.push(
    [...counts].map(([status, { length }]) => `${length} ${status}`).join(', '),
    ...reasons.map((reason, i) => `${`${i + 1}`.padStart(3)}  ${reason}`),
  );
  return lines.map((line) => line.trimEnd()).join('\n');
}
