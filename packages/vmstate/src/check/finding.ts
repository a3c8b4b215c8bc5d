/** What a finding says of a migration, worst first. */
export type Verdict = 'breaks' | 'may-break' | 'cannot-tell' | 'fine';

/** All verdicts, worst first. */
export const verdicts: readonly Verdict[] = ['breaks', 'may-break', 'cannot-tell', 'fine'];

/** Every rule; docs/check.md explains each. */
export const checkRules = [
  'MACHINE_TYPE',
  'CAPABILITY',
  'RAM_BLOCK',
  'DEVICE_MISSING',
  'DEVICE_RENAMED',
  'SECTION_RENAMED',
  'SECTION_UNKNOWN',
  'SECTION_NOT_SENT',
  'SECTION_UNDESCRIBED',
  'DESCRIPTION_MISSING',
  'VERSION_TOO_NEW',
  'VERSION_TOO_OLD',
  'VERSION_UNKNOWN',
  'NESTED_VERSION',
  'FIELD_MISSING',
  'FIELD_EXTRA',
  'FIELD_REPLACED',
  'FIELD_RENAMED',
  'FIELD_CONDITION',
  'FIELD_KIND',
  'FIELD_TYPE',
  'FIELD_SIZE',
  'ARRAY_LENGTH',
  'UNUSED_REUSED',
  'UNUSED_DROPPED',
  'SUBSECTION_UNKNOWN',
  'TOO_DIFFERENT',
] as const;

/** The rule behind a finding. */
export type CheckRule = (typeof checkRules)[number];

/** Whether a finding is about the migration that was asked for, or about the way back. */
export type Direction = 'source-to-dest' | 'dest-to-source';

/** One difference between the two sides, and what it does to a migration. */
export interface Finding {
  readonly verdict: Verdict;
  readonly rule: CheckRule;
  readonly direction: Direction;
  /** Device type or section, description, field or subsection; outermost first. */
  readonly path: readonly string[];
  /** What the sending side has there. */
  readonly source?: string;
  /** What the receiving side has there. */
  readonly dest?: string;
  /** One sentence: what happens, and why. */
  readonly why: string;
  /** One sentence: what to do about it. */
  readonly whatToDo: string;
  /** QEMU's own message at the destination, where one comes. */
  readonly message?: string;
}

/** A finding as a rule reports it; the direction is the checker's. */
export type Found = Omit<Finding, 'direction'>;

/** Sorts findings: worst first, otherwise in the order of the devices. */
export function byVerdict(a: Finding, b: Finding): number {
  return verdicts.indexOf(a.verdict) - verdicts.indexOf(b.verdict);
}

/** Returns the worst verdict of some findings; `fine` of none. */
export function worstVerdict(findings: readonly { readonly verdict: Verdict }[]): Verdict {
  return verdicts.find((verdict) => findings.some((f) => f.verdict === verdict)) ?? 'fine';
}
