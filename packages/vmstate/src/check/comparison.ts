import type { AlignBudget } from './align.ts';
import type { Found } from './finding.ts';
import type { Known } from './known.ts';
import type { UnusedRule } from './unused.ts';

/** What a comparison of tables works with. */
export interface Comparison {
  readonly known: Known;
  readonly budget: AlignBudget;
  readonly report: (found: Found) => void;
  /** Name of the section that is compared, as QEMU's messages have it. */
  readonly section: string;
  /** The sender's machine type, where it is known and both sides have the same. */
  readonly machine?: string | undefined;
  /** Whether the source's tables are those of a stream: an array without elements is not in them. */
  readonly sourceIsStream: boolean;
  /** Whether the destination's tables are those of a stream: they hold what that stream needed, not all that is known. */
  readonly destIsStream: boolean;
  readonly unused: UnusedRule;
}
