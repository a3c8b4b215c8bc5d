import Table from 'cli-table3';
import type { Measurement, Quantity } from './measurement.ts';

/** Draws the measurements as a table, one row each. */
export function drawTable(measurements: readonly Measurement[]): string {
  const table = new Table({
    head: ['case', 'figure', 'limit', 'ratio', 'mark', '', 'note'],
    colAligns: ['left', 'right', 'right', 'right', 'right', 'left', 'left'],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, figure, limit, ratio, mark, verdict, note } of measurements) {
    table.push([
      name,
      figure === undefined ? '-' : format(figure),
      limit === undefined ? '-' : format(limit),
      ratio === undefined ? '-' : ratio.toFixed(2),
      mark === undefined ? '' : `≥ ${Number(mark.toFixed(2))}`,
      verdict === 'none' ? '' : verdict,
      [limit === undefined ? undefined : `beside ${limit.what}`, note].filter(Boolean).join('; '),
    ]);
  }
  return table.toString();
}

function format({ value, unit }: Quantity): string {
  return `${value.toFixed(unit.endsWith('/s') && value < 100 ? 2 : 0)} ${unit}`;
}
