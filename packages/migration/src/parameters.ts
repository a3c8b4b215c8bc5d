import { MigrationError } from './migration-error.ts';

/** The parameters that this implementation honours, with QEMU's names and units. */
export interface Parameters {
  /** Bytes a second in precopy; 0 is unlimited. */
  readonly 'max-bandwidth': number;
  /** Bytes a second in postcopy; 0 is unlimited. Pages that the guest waits for are not held back. */
  readonly 'max-postcopy-bandwidth': number;
  /** Milliseconds that the guest may stand still at switchover. */
  readonly 'downtime-limit': number;
}

/** QEMU's defaults. */
export const DEFAULT_PARAMETERS: Parameters = {
  'max-bandwidth': 128 * 1024 * 1024,
  'max-postcopy-bandwidth': 0,
  'downtime-limit': 300,
};

const MAX_DOWNTIME_MS = 2_000_000;

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
    if (!(name in DEFAULT_PARAMETERS)) {
      throw new MigrationError(
        'PARAMETER_INVALID',
        `Parameter '${name}' is not supported by this host`,
        { expected: Object.keys(DEFAULT_PARAMETERS).join(', ') },
      );
    }
    const number = Number(value);
    if (name === 'downtime-limit' && !(number >= 0 && number <= MAX_DOWNTIME_MS)) {
      throw new MigrationError(
        'PARAMETER_INVALID',
        "Parameter 'downtime_limit' expects an integer in the range of 0 to (2000 * 1000) ms",
      );
    }
    if (!(Number.isSafeInteger(number) && number >= 0)) {
      throw new MigrationError(
        'PARAMETER_INVALID',
        `Parameter '${name}' expects an integer in the range of 0 to 2^53 - 1 bytes/second`,
      );
    }
    next[name] = number;
  }
  return next as unknown as Parameters;
}
