import { MAX_XBZRLE_CACHE_BYTES, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { MigrationError } from './migration-error.ts';

/** The parameters that this implementation honours, with QEMU's names and units. */
export interface Parameters {
  /** Bytes a second in precopy; 0 is unlimited. */
  readonly 'max-bandwidth': number;
  /** Bytes a second in postcopy; 0 is unlimited. Pages that the guest waits for are not held back. */
  readonly 'max-postcopy-bandwidth': number;
  /** Milliseconds that the guest may stand still at switchover. */
  readonly 'downtime-limit': number;
  /** Bytes of pages that XBZRLE keeps, a power of two; taken when a migration begins. */
  readonly 'xbzrle-cache-size': number;
}

/** QEMU's defaults. */
export const DEFAULT_PARAMETERS: Parameters = {
  'max-bandwidth': 128 * 1024 * 1024,
  'max-postcopy-bandwidth': 0,
  'downtime-limit': 300,
  'xbzrle-cache-size': 64 * 1024 * 1024,
};

const MAX_DOWNTIME_MS = 2_000_000;

/** What a parameter's value has to be. */
interface Rule {
  isMet(value: number): boolean;
  /** As QEMU says it, behind "Parameter ". */
  readonly text: string;
}

const between = (least: number, most: number, text: string): Rule => ({
  isMet: (value) => Number.isSafeInteger(value) && value >= least && value <= most,
  text,
});

const bandwidth = (name: string): Rule =>
  between(
    0,
    Number.MAX_SAFE_INTEGER,
    `'${name}' expects an integer in the range of 0 to 2^53 - 1 bytes/second`,
  );

const RULES: Readonly<Record<keyof Parameters, readonly Rule[]>> = {
  'max-bandwidth': [bandwidth('max-bandwidth')],
  'max-postcopy-bandwidth': [bandwidth('max-postcopy-bandwidth')],
  'downtime-limit': [
    between(
      0,
      MAX_DOWNTIME_MS,
      "'downtime_limit' expects an integer in the range of 0 to (2000 * 1000) ms",
    ),
  ],
  'xbzrle-cache-size': [
    {
      isMet: (value) => value >= TARGET_PAGE_BYTES && Number.isInteger(Math.log2(value)),
      text: "'xbzrle_cache_size' expects a power of two no less than the target page size",
    },
    between(0, MAX_XBZRLE_CACHE_BYTES, "'xbzrle_cache_size' is at most 1 GiB on this host"),
  ],
};

/**
 * Changes parameters.
 *
 * @returns the new parameters; `current` is not changed
 * @throws MigrationError `PARAMETER_INVALID`, with QEMU's text where it has one
 * @see migrate_params_check in QEMU's migration/options.c
 */
export function setParameters(
  current: Parameters,
  changes: Readonly<Record<string, unknown>>,
): Parameters {
  const next: Record<string, number> = { ...current };
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(RULES, name)) {
      throw new MigrationError(
        'PARAMETER_INVALID',
        `Parameter '${name}' is not supported by this host`,
        { expected: Object.keys(RULES).join(', ') },
      );
    }
    const number = Number(value);
    for (const { isMet, text } of RULES[name as keyof Parameters]) {
      if (!isMet(number)) throw new MigrationError('PARAMETER_INVALID', `Parameter ${text}`);
    }
    next[name] = number;
  }
  return next as unknown as Parameters;
}
