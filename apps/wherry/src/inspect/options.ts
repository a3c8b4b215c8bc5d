import { CliError } from '../cli-error.ts';

/** The options of `wherry inspect` as commander gives them. */
export interface InspectFlags {
  readonly json?: boolean;
  readonly device?: string;
  readonly as?: string;
  readonly desc?: boolean;
  readonly file?: string;
  readonly dump?: string;
  readonly extract?: boolean;
  readonly ram?: string;
  readonly force?: boolean;
  readonly at?: string;
  readonly schema?: string;
}

/** What to print of each file. */
export interface InspectOptions {
  readonly files: readonly string[];
  readonly format: 'text' | 'json' | 'analyze-state' | 'analyze-desc';
  /** Which devices are shown; all when absent. */
  readonly isShown?: ((idstr: string) => boolean) | undefined;
  /** Offset of the byte that is asked for. */
  readonly at?: number | undefined;
  /** Where RAM goes. */
  readonly ramDirectory?: string | undefined;
  /** Whether files that are there are replaced. */
  readonly replace: boolean;
  /** Where the analyser's files go, with its -x. */
  readonly extractsTo?: string | undefined;
  /** File that describes the devices which the stream does not. */
  readonly schemaPath?: string | undefined;
}

/** Checks the options against each other. @throws CliError 2 */
export function inspectOptions(args: readonly string[], flags: InspectFlags): InspectOptions {
  const files = flags.file === undefined ? args : [flags.file, ...args];
  if (files.length === 0) throw wrong('Name a file with a stream, or - for standard input');
  if (files.filter((file) => file === '-').length > 1) {
    throw wrong('Standard input can be read once only');
  }
  if (flags.schema === '-') throw wrong('--schema takes a file, not standard input');
  if (flags.ram !== undefined && files.length > 1) throw wrong('--ram takes the RAM of one file');
  if (flags.at !== undefined && flags.json !== true && files.length > 1) {
    throw wrong('--at asks for a byte of one file');
  }
  const extractsTo = flags.extract === true ? '.' : undefined;
  return {
    files,
    format: formatOf(flags),
    ...shownBy(flags.device),
    at: flags.at === undefined ? undefined : parseOffset(flags.at),
    ramDirectory: flags.ram ?? extractsTo,
    replace: flags.force === true,
    extractsTo,
    schemaPath: flags.schema,
  };
}

function formatOf(flags: InspectFlags): InspectOptions['format'] {
  const { as, dump, desc, json } = flags;
  if (as !== undefined && as !== 'analyze-migration') {
    throw wrong(`--as knows analyze-migration, not ${as}`);
  }
  if (dump !== undefined && dump !== 'state' && dump !== 'desc') {
    throw wrong(`-d takes state or desc, not ${dump}`);
  }
  const isAnalysis =
    as !== undefined || dump !== undefined || flags.file !== undefined || flags.extract === true;
  if (!isAnalysis) {
    if (desc === true) throw wrong('--desc belongs to --as analyze-migration');
    return json === true ? 'json' : 'text';
  }
  if (json === true) throw wrong('--json and --as analyze-migration are two formats: take one');
  if (flags.device !== undefined) throw wrong('--device does not go with --as analyze-migration');
  return desc === true || dump === 'desc' ? 'analyze-desc' : 'analyze-state';
}

/** Reads a glob: `*` any text, `?` one character; without either, a part of the name. */
function shownBy(glob: string | undefined): Pick<InspectOptions, 'isShown'> {
  if (glob === undefined) return {};
  if (!/[*?]/.test(glob)) return { isShown: (idstr) => idstr.includes(glob) };
  const source = glob
    .replace(/[.+^${}()|[\]\\/]/g, '\\$&')
    .replace(/\*+/g, '.*')
    .replaceAll('?', '.');
  const expression = new RegExp(`^${source}$`, 's');
  return { isShown: (idstr) => expression.test(idstr) };
}

function parseOffset(text: string): number {
  const offset = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(offset)) return offset;
  throw wrong(`--at takes an offset in bytes, as 0x1a2b or 6699, not ${text}`);
}

function wrong(message: string): CliError {
  return new CliError(`${message} (wherry inspect --help tells more)`, 2);
}
