import { writeFileSync } from 'node:fs';
import type { Reporter, TestCase, TestModule } from 'vitest/node';
import { absenceOf, type CellMark, cellsOf } from './cell.ts';
import { modes } from './modes.ts';
import { type CellResult, formatTable } from './table.ts';

/**
 * Prints the matrix at the end of a run, with the cells that cannot be in the rows that ran, and
 * writes it as JSON to the file that `WHERRY_MATRIX_JSON` names.
 */
export default class MatrixReporter implements Reporter {
  onTestRunEnd(testModules: readonly TestModule[]): void {
    const results = testModules.flatMap((testModule) =>
      [...testModule.children.allTests()].flatMap((test) => {
        const { cell } = test.meta();
        const result = test.result();
        // Left out by a name pattern: it says nothing.
        if (cell === undefined || result.state === 'pending') return [];
        if (result.state === 'skipped' && result.note === undefined) return [];
        return [resultOf(cell, test)];
      }),
    );
    if (results.length === 0) return;
    const rows = new Set(results.map(({ group, mode }) => `${group}: ${mode}`));
    // A row without any cell belongs to its group.
    const groups = new Set(results.map(({ group }) => group));
    for (const mode of modes) {
      const isEmpty = cellsOf([mode]).every((cell) => absenceOf(cell) !== undefined);
      if (isEmpty && groups.has(mode.group)) rows.add(`${mode.group}: ${mode.name}`);
    }
    const whole = cellsOf(modes).flatMap((cell): CellResult[] => {
      const { release, side } = cell;
      const { group, name } = cell.mode;
      if (!rows.has(`${group}: ${name}`)) return [];
      const found = results.find(
        (result) =>
          result.group === group &&
          result.mode === name &&
          result.release === release &&
          result.side === side,
      );
      if (found !== undefined) return [found];
      const reason = absenceOf(cell);
      return reason === undefined
        ? []
        : [{ group, mode: name, release, side, status: 'absent', reason }];
    });
    console.log(`\n${formatTable(whole)}\n`);
    const file = process.env['WHERRY_MATRIX_JSON'];
    if (file !== undefined) writeFileSync(file, `${JSON.stringify(whole, undefined, 1)}\n`);
  }
}

function resultOf({ failing, ...cell }: CellMark, test: TestCase): CellResult {
  const result = test.result();
  const durationMs = Math.round(test.diagnostic()?.duration ?? 0);
  switch (result.state) {
    case 'passed':
      return failing === undefined
        ? { ...cell, status: 'passed', durationMs }
        : { ...cell, status: 'failing', reason: failing, durationMs };
    case 'skipped':
      return { ...cell, status: 'skipped', reason: result.note ?? 'skipped' };
    default: {
      const message = result.errors?.[0]?.message ?? 'no reason given';
      const reason = message.split('\n', 1)[0]!.slice(0, 200);
      return { ...cell, status: 'failed', reason, durationMs };
    }
  }
}
