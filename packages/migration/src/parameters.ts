import { MAX_XBZRLE_CACHE_BYTES, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { type BitmapMapping, checkBitmapMapping } from './bitmap-mapping.ts';
import { MigrationError } from './migration-error.ts';
import { MULTIFD_COMPRESSIONS, type MultifdCompression } from './multifd-port.ts';

const ZERO_PAGE_DETECTIONS = ['none', 'legacy', 'multifd'] as const;
/** The most channels here: each has a thread. */
const MAX_MULTIFD_CHANNELS = 16;

/** The parameters that this implementation honours, with QEMU's names and units. */
export interface Parameters {
  /** Bytes a second in precopy; 0 is unlimited. */
  readonly 'max-bandwidth': number;
  /** Bytes a second in postcopy; 0 is unlimited. Pages that the guest waits for are not held back. */
  readonly 'max-postcopy-bandwidth': number;
  /** Milliseconds that the guest may stand still at switchover. */
  readonly 'downtime-limit': number;
  /** Connections that carry pages with `multifd`; both sides need the same, as for the next. */
  readonly 'multifd-channels': number;
  readonly 'multifd-compression': MultifdCompression;
  /** 0 … 9: from none to the most. */
  readonly 'multifd-zlib-level': number;
  /** 0 … 20: from the default to the most. */
  readonly 'multifd-zstd-level': number;
  /** Who looks for pages that hold zeroes: nobody, the main stream, or the channels where there are some. */
  readonly 'zero-page-detection': (typeof ZERO_PAGE_DETECTIONS)[number];
  /** Bytes of pages that XBZRLE keeps, a power of two; taken when a migration begins. */
  readonly 'xbzrle-cache-size': number;
  /** Percent of the bytes sent: auto-converge acts when the guest dirties more, twice. */
  readonly 'throttle-trigger-threshold': number;
  /** Percent of its time that a vCPU sleeps at first. */
  readonly 'cpu-throttle-initial': number;
  /** Percent by which it sleeps more at a time. */
  readonly 'cpu-throttle-increment': number;
  /** Sleep no more than would bring the dirty rate down to the threshold. */
  readonly 'cpu-throttle-tailslow': boolean;
  /** Percent of its time that a vCPU sleeps at most. */
  readonly 'max-cpu-throttle': number;
  /** With `mapped-ram` and `multifd`: pages go past the system's cache of files. */
  readonly 'direct-io': boolean;
  /** Id of the TLS credentials; empty for none. */
  readonly 'tls-creds': string;
  /** The name that the destination's certificate must have; empty for the host of the URI. */
  readonly 'tls-hostname': string;
  /** Which dirty bitmaps migrate, and by which names; without it all do, by their own. */
  readonly 'block-bitmap-mapping'?: BitmapMapping;
}

/** QEMU's defaults. */
export const DEFAULT_PARAMETERS: Parameters = {
  'max-bandwidth': 128 * 1024 * 1024,
  'max-postcopy-bandwidth': 0,
  'downtime-limit': 300,
  'multifd-channels': 2,
  'multifd-compression': 'none',
  'multifd-zlib-level': 1,
  'multifd-zstd-level': 1,
  'zero-page-detection': 'multifd',
  'xbzrle-cache-size': 64 * 1024 * 1024,
  'throttle-trigger-threshold': 50,
  'cpu-throttle-initial': 20,
  'cpu-throttle-increment': 10,
  'cpu-throttle-tailslow': false,
  'max-cpu-throttle': 99,
  'direct-io': false,
  'tls-creds': '',
  'tls-hostname': '',
};

const MAX_DOWNTIME_MS = 2_000_000;

/** What a parameter's value has to be. */
interface Rule {
  isMet(value: unknown, all: Parameters): boolean;
  /** As QEMU says it, behind "Parameter ". */
  readonly text: string;
}

const isBetween = (value: unknown, least: number, most: number): boolean =>
  Number.isSafeInteger(value) && Number(value) >= least && Number(value) <= most;

const between = (
  name: string,
  least: number,
  most: number,
  range = `${least} to ${most}`,
): Rule => ({
  isMet: (value) => isBetween(value, least, most),
  text: `'${name}' expects an integer in the range of ${range}`,
});

const bandwidth = (name: string): Rule =>
  between(name, 0, Number.MAX_SAFE_INTEGER, '0 to 2^53 - 1 bytes/second');

const level = (name: string, most: number): Rule => ({
  isMet: (value) => isBetween(value, 0, most),
  text: `'${name}' expects a value between 0 and ${most}`,
});

const oneOf = (name: string, values: readonly string[]): Rule => ({
  isMet: (value) => values.includes(value as string),
  text: `'${name}' is one of ${values.join(', ')} on this host`,
});

const text = (name: string): Rule => ({
  isMet: (value) => typeof value === 'string',
  text: `'${name}' expects a string`,
});

/** In the order in which QEMU looks at them. */
const RULES: Readonly<Record<keyof Parameters, readonly Rule[]>> = {
  'throttle-trigger-threshold': [between('throttle_trigger_threshold', 1, 100)],
  'cpu-throttle-initial': [between('cpu_throttle_initial', 1, 99)],
  'cpu-throttle-increment': [between('cpu_throttle_increment', 1, 99)],
  'cpu-throttle-tailslow': [
    {
      isMet: (value) => typeof value === 'boolean',
      text: "'cpu_throttle_tailslow' expects a boolean",
    },
  ],
  'max-bandwidth': [bandwidth('max-bandwidth')],
  'downtime-limit': [between('downtime_limit', 0, MAX_DOWNTIME_MS, '0 to (2000 * 1000) ms')],
  'multifd-channels': [
    {
      isMet: (value) => isBetween(value, 1, 255),
      text: "'multifd_channels' expects a value between 1 and 255",
    },
    {
      isMet: (value) => isBetween(value, 1, MAX_MULTIFD_CHANNELS),
      text: `'multifd_channels' is at most ${MAX_MULTIFD_CHANNELS} on this host`,
    },
  ],
  'multifd-compression': [oneOf('multifd-compression', MULTIFD_COMPRESSIONS)],
  'multifd-zlib-level': [level('multifd_zlib_level', 9)],
  'multifd-zstd-level': [level('multifd_zstd_level', 20)],
  'zero-page-detection': [oneOf('zero-page-detection', ZERO_PAGE_DETECTIONS)],
  'xbzrle-cache-size': [
    {
      isMet: (value) =>
        isBetween(value, TARGET_PAGE_BYTES, Number.MAX_SAFE_INTEGER) &&
        Number.isInteger(Math.log2(Number(value))),
      text: "'xbzrle_cache_size' expects a power of two no less than the target page size",
    },
    {
      isMet: (value) => Number(value) <= MAX_XBZRLE_CACHE_BYTES,
      text: "'xbzrle_cache_size' is at most 1 GiB on this host",
    },
  ],
  'max-postcopy-bandwidth': [bandwidth('max-postcopy-bandwidth')],
  'max-cpu-throttle': [
    {
      isMet: (value, all) => isBetween(value, all['cpu-throttle-initial'], 99),
      text: "'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99",
    },
  ],
  'direct-io': [
    {
      isMet: (value) => typeof value === 'boolean',
      text: "'direct_io' expects a boolean",
    },
  ],
  'tls-creds': [text('tls-creds')],
  'tls-hostname': [text('tls-hostname')],
  'block-bitmap-mapping': [], // see checkBitmapMapping
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
  const next: Record<string, unknown> = { ...current };
  for (const [name, value] of Object.entries(changes)) {
    if (!Object.hasOwn(RULES, name)) {
      throw new MigrationError(
        'PARAMETER_INVALID',
        `Parameter '${name}' is not supported by this host`,
        { expected: Object.keys(RULES).join(', ') },
      );
    }
    // Null sets a text back, as the empty one does.
    next[name] = typeof value === 'bigint' ? Number(value) : (value ?? '');
  }
  const all = next as unknown as Parameters;
  for (const [name, rules] of Object.entries(RULES)) {
    for (const { isMet, text } of rules) {
      if (!isMet(next[name], all))
        throw new MigrationError('PARAMETER_INVALID', `Parameter ${text}`);
    }
  }
  checkBitmapMapping(all['block-bitmap-mapping'] ?? []);
  return all;
}
