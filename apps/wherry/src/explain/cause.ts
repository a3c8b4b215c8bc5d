/** One way in which a migration fails: what happened, why it usually does, what to do about it. */
export interface Cause {
  /** Stable, documented identifier. */
  readonly code: string;
  /** What happened; `{name}` stands for what a message says there. */
  readonly what: string;
  readonly why: string;
  readonly action: string;
  /**
   * QEMU's messages for it: `{name}` takes any text, `{name#}` a number, `[…]` may be missing. Where
   * the releases word it differently, each wording is a line of its own.
   */
  readonly messages?: readonly string[];
  /** Codes of this program's own errors that mean it. */
  readonly errors?: readonly string[];
}
