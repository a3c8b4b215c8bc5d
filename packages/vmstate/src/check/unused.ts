import type { Found } from './finding.ts';
import type { Known } from './known.ts';
import type { TableField } from './table.ts';

/** The deprecation term of machine types: so long a release may still send what it put in a field. */
const LEAST_AGE_YEARS = 6;

/** What is stated of fields that lie over bytes that were unused. */
export interface UnusedRule {
  /** The day of the check, `YYYY-MM-DD`. */
  readonly today: string;
  /** Stated for all such fields: for so many years nobody has sent anything in these bytes. */
  readonly ageYears?: number | undefined;
  /** Names the releases whose dumps show a value in the bytes of the destination's fields. */
  readonly sendersOf?:
    | ((path: readonly string[], fields: readonly string[]) => readonly string[])
    | undefined;
}

/**
 * Judges fields that the destination lays over bytes that are unused at the source.
 *
 * The source sends zeros there, and an older release may send what the bytes once were. So it passes
 * only when that is at least six years ago, or when the load of each field survives a zero.
 */
export function unusedFinding(
  laid: readonly TableField[],
  at: Pick<Found, 'path' | 'source' | 'dest'>,
  description: string,
  rule: UnusedRule,
  known: Known,
): Found {
  const statements = laid.map(({ name }) =>
    known.unused.find((entry) => entry.description === description && entry.field === name),
  );
  const names = laid.map(({ name }) => name);
  const senders = new Set(rule.sendersOf?.(at.path, names));
  const lastSentBy = statements.map((statement) => statement?.lastSentBy);
  for (const release of lastSentBy) if (release !== undefined) senders.add(`${release} and older`);
  const who =
    senders.size > 0
      ? `releases ${[...senders].join(', ')}, and the machine types up to theirs, may still send something there`
      : 'which releases and machine types may still send something there is not stated';
  const found = { ...at, rule: 'UNUSED_REUSED' as const };
  const reasons = statements.map((statement) => statement?.survivesZero);
  if (reasons.every((reason) => reason !== undefined)) {
    return {
      ...found,
      verdict: 'fine',
      why: `The field lies over bytes that are unused at the source, and its load survives the zeros: ${reasons.join('; ')}. Stated; ${who}.`,
      whatToDo: 'Nothing.',
    };
  }
  const ages = lastSentBy.map((release) =>
    release === undefined ? rule.ageYears : yearsSince(known.releases[release], rule.today),
  );
  const age = ages.every((years) => years !== undefined) ? Math.min(...ages) : undefined;
  if (age !== undefined && age >= LEAST_AGE_YEARS) {
    return {
      ...found,
      verdict: 'fine',
      why: `The field lies over bytes that nobody has sent anything in for ${age} years, as stated: longer than machine types are kept.`,
      whatToDo: 'Nothing.',
    };
  }
  return {
    ...found,
    verdict: 'may-break',
    why: `The field lies over bytes that are unused at the source: they arrive as zeros; ${who}${age === undefined ? '' : `, ${age} years after the last did`}.`,
    whatToDo: `State that the bytes have been unused for ${LEAST_AGE_YEARS} years (--unused-age), or in a file for --facts why the load survives a zero.`,
  };
}

/** Whole years from a month, `YYYY-MM`, to a day. */
function yearsSince(month: string | undefined, today: string): number | undefined {
  if (month === undefined) return undefined;
  const [year = 0, monthOfYear = 0] = month.split('-').map(Number);
  const [thisYear = 0, thisMonth = 0] = today.split('-').map(Number);
  return Math.floor((thisYear * 12 + thisMonth - year * 12 - monthOfYear) / 12);
}
