import Table from 'cli-table3';
import { formatBytes, formatCount, formatMs } from '../sizes.ts';
import type { ComparedItem } from './compare.ts';
import type { Outcome } from './orchestrate.ts';

/** A table narrower than this has no room for its second column. */
const LEAST_TABLE_COLUMNS = 60;

/** Tells a finished migration as one table for people. */
export function formatOutcome(outcome: Outcome, columns: number | undefined): string {
  const { source, destinationGuest, witness, comparison } = outcome;
  const rows: [string, string][] = [['status', outcome.status]];
  const { ram } = source;
  rows.push(['total time', formatMs(Number(source['total-time'] ?? outcome.elapsedMs))]);
  if (source.downtime !== undefined) rows.push(['downtime', formatMs(Number(source.downtime))]);
  if (ram !== undefined) {
    rows.push(
      ['pages with data', formatCount(Number(ram.normal))],
      ['zero pages', formatCount(Number(ram.duplicate))],
      [
        'bytes on the wire',
        `${formatBytes(Number(ram.transferred))} (precopy ${formatBytes(Number(ram['precopy-bytes']))}, downtime ${formatBytes(Number(ram['downtime-bytes']))}, postcopy ${formatBytes(Number(ram['postcopy-bytes']))})`,
      ],
      ['rounds', `${ram['dirty-sync-count']}`],
    );
  }
  if (outcome.mostThrottle > 0) rows.push(['vCPUs slept', `up to ${outcome.mostThrottle} %`]);
  const { 'xbzrle-cache': xbzrle } = source;
  if (xbzrle !== undefined) {
    rows.push([
      'XBZRLE',
      `${formatCount(Number(xbzrle.pages))} pages found in the cache, sent in ${formatBytes(Number(xbzrle.bytes))}; ${formatCount(Number(xbzrle['cache-miss']))} missed, ${formatCount(Number(xbzrle.overflow))} overflowed`,
    ]);
  }
  if (destinationGuest !== undefined) {
    const { count, 'p50-ms': p50, 'p99-ms': p99 } = destinationGuest.faults;
    rows.push([
      'faults',
      Number(count) === 0
        ? '0'
        : `${formatCount(Number(count))}, p50 ${formatMs(p50)}, p99 ${formatMs(p99)}`,
    ]);
  }
  if (witness !== undefined) {
    const verdict =
      witness.violations === 0 ? 'no lost or stale page' : `${witness.violations} VIOLATIONS`;
    rows.push([
      'witness',
      `${verdict}; ${formatCount(witness.checks)} checks, ${formatCount(witness.writes)} writes`,
    ]);
    for (const violation of witness['first-violations']) rows.push(['', violation]);
  }
  if (comparison !== undefined) {
    for (const block of comparison.blocks) rows.push([`RAM ${block.name}`, verdictOf(block)]);
    for (const device of comparison.devices) rows.push([device.name, verdictOf(device)]);
  }
  if ((columns ?? 100) < LEAST_TABLE_COLUMNS) {
    return rows.map(([label, value]) => (label === '' ? value : `${label}: ${value}`)).join('\n');
  }
  const first = Math.max(...rows.map(([label]) => label.length)) + 2;
  const second = Math.max(20, Math.min(100, columns ?? 100) - first - 3);
  const widest = Math.max(...rows.map(([, value]) => value.length)) + 2;
  const table = new Table({
    colWidths: [first, Math.min(second, widest)],
    wordWrap: true,
    style: { head: [], border: [], compact: true },
  });
  table.push(...rows);
  return table.toString();
}

function verdictOf({ equal, extent }: ComparedItem): string {
  return `${equal ? 'equal' : 'DIFFERS'} (${extent})`;
}

/** Tells a finished migration as one object; its members are documented in docs/migrate.md. */
export function outcomeAsJson(outcome: Outcome): string {
  const { status, source, destination, elapsedMs, witness, destinationGuest, comparison, problem } =
    outcome;
  const report = {
    status,
    'elapsed-ms': Math.round(elapsedMs),
    source,
    destination,
    ...(outcome.mostThrottle === 0 ? {} : { 'cpu-throttle-percentage': outcome.mostThrottle }),
    ...(witness === undefined ? {} : { witness }),
    ...(destinationGuest === undefined ? {} : { faults: destinationGuest.faults }),
    ...(comparison === undefined ? {} : { comparison }),
    ...(problem === undefined ? {} : { problem }),
  };
  return JSON.stringify(
    report,
    (_, value) => (typeof value === 'bigint' ? Number(value) : value),
    2,
  );
}

/** 0 completed and whole, 130 cancelled, 1 anything else. */
export function exitCodeOf(outcome: Outcome): number {
  if (outcome.status === 'cancelled') return 130;
  const whole = (outcome.witness?.violations ?? 0) === 0 && outcome.comparison?.equal !== false;
  return outcome.status === 'completed' && whole ? 0 : 1;
}
