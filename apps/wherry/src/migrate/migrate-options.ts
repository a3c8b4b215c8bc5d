import type { MigrationParameters } from '@wherry/qmp';
import { parseUri, TransportError } from '@wherry/transport';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseNumber } from '../host/guest-options.ts';
import { parseSize } from '../sizes.ts';

/** Options of a migration, as commander gives them. */
export interface MigrateOptions {
  readonly postcopy?: true;
  readonly autoPostcopy?: true;
  readonly returnPath: boolean;
  readonly maxBandwidth?: number;
  readonly maxPostcopyBandwidth?: number;
  readonly downtimeLimit?: number;
  readonly autoConverge?: true;
  readonly xbzrle?: true;
  readonly xbzrleCacheSize?: number;
  readonly multifdChannels?: number;
  readonly multifdCompression?: 'none' | 'zlib' | 'zstd';
  /** Names of further capabilities. */
  readonly capability?: readonly string[];
  readonly parameter?: MigrationParameters;
  readonly tlsCreds?: string;
  readonly tlsHostname?: string;
  readonly compare: boolean;
  readonly json?: true;
}

/** Checks that two hosts can meet at a URI. @throws InvalidArgumentError */
export function parseChannel(uri: string): string {
  try {
    const { kind } = parseUri(uri);
    if (kind === 'tcp' || kind === 'unix') return uri;
  } catch (error) {
    if (error instanceof TransportError) throw new InvalidArgumentError(error.message);
    throw error;
  }
  throw new InvalidArgumentError('Two hosts meet at tcp:HOST:PORT or unix:PATH only.');
}

/** Adds the options that `wherry migrate` and `wherry demo` share. */
export function addMigrateOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--postcopy', 'switch to postcopy once the first pages have been sent').conflicts(
        'autoPostcopy',
      ),
    )
    .option('--auto-postcopy', 'switch to postcopy when a round no longer shrinks what remains')
    .addOption(
      new Option(
        '--no-return-path',
        'precopy without a return path: the source cannot learn whether it arrived',
      ).conflicts(['postcopy', 'autoPostcopy']),
    )
    .addOption(
      new Option('--max-bandwidth <size>', 'bytes a second in precopy, 0 for no limit').argParser(
        parseSize,
      ),
    )
    .addOption(
      new Option(
        '--max-postcopy-bandwidth <size>',
        'bytes a second of background pages in postcopy, 0 for no limit',
      ).argParser(parseSize),
    )
    .addOption(
      new Option(
        '--downtime-limit <ms>',
        'how long the guest may stand still at switchover',
      ).argParser((text) => parseNumber(text, 0, 2_000_000)),
    )
    .option(
      '--auto-converge',
      'slow the guest down while it dirties memory faster than it can be sent',
    )
    .option(
      '--xbzrle',
      'from the second round on send only what changed in a page, as far as the cache holds it',
    )
    .addOption(
      new Option(
        '--xbzrle-cache-size <size>',
        'pages that XBZRLE keeps at the source, a power of two',
      ).argParser(parseSize),
    )
    .addOption(
      new Option(
        '--multifd-channels <count>',
        'send pages over so many further connections, each with a thread on both sides',
      )
        .argParser((text) => parseNumber(text, 1, 255))
        .conflicts(['postcopy', 'autoPostcopy', 'xbzrle']),
    )
    .addOption(
      new Option(
        '--multifd-compression <method>',
        'how these connections compress pages (default: none); two of them unless told',
      )
        .choices(['none', 'zlib', 'zstd'])
        .implies({ multifdChannels: 2 }),
    )
    .option(
      '--capability <name>',
      'switch a capability on at both sides, such as postcopy-preempt; repeatable',
      (name: string, before: readonly string[] = []): readonly string[] => [...before, name],
    )
    .option(
      '--parameter <name=value>',
      'set a parameter at both sides, such as multifd-zlib-level=9; repeatable',
      addParameter,
    )
    .option(
      '--no-compare',
      'skip the comparison of RAM and devices at hand-over and the check of every page',
    )
    .option('--json', 'print one JSON object instead of lines and a table');
}

/**
 * Adds one `--parameter`: digits are a number, true and false what they say, what begins with a bracket
 * is JSON, the rest is text.
 *
 * @throws InvalidArgumentError
 */
function addParameter(text: string, before: MigrationParameters = {}): MigrationParameters {
  const [, name, value] = /^([a-z][a-z0-9-]*)=(.*)$/.exec(text) ?? [];
  if (name === undefined || value === undefined) {
    throw new InvalidArgumentError("It is NAME=VALUE, with the name that QMP's parameter has.");
  }
  if (/^\d{1,15}$/.test(value)) return { ...before, [name]: Number(value) };
  if (/^[[{]/.test(value)) {
    try {
      return { ...before, [name]: JSON.parse(value) };
    } catch (error) {
      throw new InvalidArgumentError(`Its value is no JSON: ${(error as Error).message}.`);
    }
  }
  const isSwitch = value === 'true' || value === 'false';
  return { ...before, [name]: isSwitch ? value === 'true' : value };
}
