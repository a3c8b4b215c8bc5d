import { readFileSync } from 'node:fs';
import {
  addKnown,
  builtInKnown,
  type CheckOptions,
  type CheckSide,
  checkDumpAgainstStream,
  checkDumps,
  checkRules,
  checkStream,
  type Direction,
  type Finding,
  type Known,
  type Verdict,
  worstVerdict,
} from '@wherry/vmstate';
import { Command, InvalidArgumentError } from 'commander';
import { CliError } from '../cli-error.ts';
import { writeAll } from '../inspect/output.ts';
import { formatFindings, formatFindingsJson } from './format-findings.ts';
import { formatMatrix, formatMatrixJson } from './format-matrix.ts';
import { isMatch } from './glob.ts';
import { type LoadedSide, loadSide } from './load-side.ts';
import { loadDumps, matricesOf } from './matrix.ts';

interface CheckCommandOptions {
  readonly json?: boolean;
  readonly both?: boolean;
  readonly all?: boolean;
  readonly device?: readonly string[];
  readonly guest?: string;
  readonly rule?: readonly string[];
  readonly machine?: string;
  readonly facts?: string;
  readonly unusedAge?: number;
  readonly history?: string;
  readonly matrix?: string;
}

/** Makes the command `wherry check`. */
export function checkCommand(): Command {
  const collect = (value: string, before: readonly string[] = []): readonly string[] => [
    ...before,
    value,
  ];
  return new Command('check')
    .description('say before a migration whether the other side will load it')
    .argument(
      '[source]',
      'what the sending side has: a -dump-vmstate, or a stream of it; - reads it',
    )
    .argument('[dest]', 'what the receiving side has: likewise')
    .option('--both', 'check the way back too')
    .option('--device <glob>', 'look at these device types or sections only; repeatable', collect)
    .option('--guest <stream>', 'look at the devices that the guest of this stream has')
    .option('--rule <rule>', 'look at findings of these rules only; repeatable', collectRule)
    .option('--machine <type>', 'take the dumps as those of this machine type')
    .option('--unused-age <years>', 'state for how long unused bytes have been so', parseYears)
    .option('--history <dir>', 'dumps of other releases, to see who sends what in unused bytes')
    .option('--facts <file>', 'a file of further statements (docs/check.md)')
    .option('--matrix <dir>', 'check all pairs of the dumps DIR/RELEASE.json')
    .option('--all', 'show what is fine, too')
    .option('--json', 'print one JSON object (described in docs/check.md)')
    .addHelpText(
      'after',
      `
Make a dump with: qemu-system-x86_64 -M MACHINE -dump-vmstate FILE

Examples:
  wherry check 7.2.json 10.0.json
  wherry check stream.qevm 10.0.json --device '*virtio*'
  wherry check --matrix dumps --machine pc-q35-7.2

Exit codes: 0 compatible, 1 not, 2 wrong usage, 3 it cannot be told, or depends on the guest.`,
    )
    .action((source: string | undefined, dest: string | undefined, options: CheckCommandOptions) =>
      check(source, dest, options),
    );
}

/** Runs a check. @throws CliError 1 not compatible, 2 wrong usage, 3 cannot tell; the report was printed */
async function check(
  source: string | undefined,
  dest: string | undefined,
  options: CheckCommandOptions,
): Promise<void> {
  if (options.matrix !== undefined) {
    if (source !== undefined) throw new CliError('--matrix takes no further files', 2);
    if (options.both === true) throw new CliError('--matrix checks both ways: leave out --both', 2);
    if (options.history !== undefined) {
      throw new CliError('--matrix looks into its own dumps: leave out --history', 2);
    }
    await checkMatrices(options.matrix, options);
    return;
  }
  if (source === undefined || dest === undefined) {
    throw new CliError('Two sides are needed, SOURCE and DEST; or --matrix DIR', 2);
  }
  if (source === '-' && dest === '-') {
    throw new CliError('Only one side can be read from standard input', 2);
  }
  const plan = await planOf(options);
  const history = options.history === undefined ? undefined : historyOf(options.history);
  const sides = [await loadSide(source), await loadSide(dest)].map((side) =>
    withMachine(side, options.machine),
  );
  const [from, to] = sides as [LoadedSide, LoadedSide];
  refuseNoMatch(options, plan, namesOf(from.side));
  const run = (a: LoadedSide, b: LoadedSide, direction: Direction): readonly Finding[] =>
    checkSides(a.side, b.side, {
      ...plan,
      direction,
      ...(history === undefined ? {} : { history }),
    });
  const findings = [
    ...run(from, to, 'source-to-dest'),
    ...(options.both === true ? run(to, from, 'dest-to-source') : []),
  ].filter(byRule(options));
  const report = { source: from, dest: to, findings };
  const all = options.all === true;
  await writeAll(
    process.stdout,
    options.json === true
      ? formatFindingsJson(report)
      : formatFindings(report, all, process.stdout.columns ?? 80),
  );
  endWith(worstVerdict(findings));
}

async function checkMatrices(directory: string, options: CheckCommandOptions): Promise<void> {
  const plan = await planOf(options);
  const dumps = loadDumps(directory);
  refuseNoMatch(
    options,
    plan,
    dumps.flatMap(({ dump }) => namesOf({ dump })),
  );
  const matrices = matricesOf(directory, dumps, options.machine, plan).map((matrix) => ({
    ...matrix,
    pairs: matrix.pairs.map((pair) => {
      const findings = pair.findings.filter(byRule(options));
      return pair.verdict === 'absent'
        ? pair
        : { ...pair, findings, verdict: worstVerdict(findings) };
    }),
  }));
  await writeAll(
    process.stdout,
    options.json === true
      ? formatMatrixJson(matrices)
      : formatMatrix(matrices, process.stdout.columns ?? 80),
  );
  endWith(worstVerdict(matrices.flatMap(({ pairs }) => pairs.flatMap((p) => p.findings))));
}

function checkSides(source: CheckSide, dest: CheckSide, options: CheckOptions): Finding[] {
  if (source.dump === undefined) return checkStream(source.stream, dest, options);
  if (dest.dump === undefined) return checkDumpAgainstStream(source.dump, dest.stream, options);
  return checkDumps(source.dump, dest.dump, options);
}

/** What the options say of how to check. */
async function planOf(options: CheckCommandOptions): Promise<CheckOptions> {
  const { device: globs, guest, unusedAge } = options;
  const held = guest === undefined ? undefined : await sectionsOfGuest(guest);
  const only = (name: string, section: string): boolean =>
    (globs === undefined || globs.some((glob) => isMatch(glob, name))) &&
    (held === undefined || held.has(section));
  return {
    known: knownOf(options),
    only,
    ...(unusedAge === undefined ? {} : { unusedAgeYears: unusedAge }),
  };
}

async function sectionsOfGuest(path: string): Promise<ReadonlySet<string>> {
  const { side, name } = await loadSide(path);
  if (side.stream === undefined) throw new CliError(`${name}: --guest takes a stream`, 2);
  return new Set(namesOf(side).map(([, section]) => section));
}

function byRule({ rule }: CheckCommandOptions): (finding: Finding) => boolean {
  return (finding) => rule === undefined || rule.includes(finding.rule);
}

function collectRule(value: string, before: readonly string[] = []): readonly string[] {
  const rule = value.toUpperCase();
  if (!checkRules.some((known) => known === rule)) {
    throw new InvalidArgumentError(`There are ${checkRules.join(', ')}.`);
  }
  return [...before, rule];
}

type Named = readonly [name: string, section: string];

function namesOf({ dump, stream }: CheckSide): Named[] {
  if (dump !== undefined) {
    return [...dump.types.values()].map((type) => [type.name, type.description?.name ?? type.name]);
  }
  return stream.sections.map(({ idstr }) => [idstr, idstr.slice(idstr.lastIndexOf('/') + 1)]);
}

/** A choice without any device is a slip: nothing would be compared, and nothing found. */
function refuseNoMatch(
  { device, guest }: CheckCommandOptions,
  { only = () => true }: CheckOptions,
  names: readonly Named[],
): void {
  if ((device === undefined && guest === undefined) || names.some((name) => only(...name))) return;
  const choice = device === undefined ? 'that this guest has' : `that matches ${device.join(', ')}`;
  throw new CliError(`The source has no device ${choice}`, 2);
}

function withMachine({ name, side }: LoadedSide, machine: string | undefined): LoadedSide {
  if (machine === undefined || side.dump === undefined) return { name, side };
  return { name, side: { dump: { ...side.dump, machine } } };
}

function historyOf(directory: string): NonNullable<CheckOptions['history']> {
  return new Map(loadDumps(directory).map(({ release, dump }) => [release, dump]));
}

function knownOf({ facts }: CheckCommandOptions): Known {
  if (facts === undefined) return builtInKnown();
  try {
    return addKnown(builtInKnown(), readFileSync(facts, 'utf8'));
  } catch (error) {
    throw new CliError(`Cannot use ${facts}: ${(error as Error).message}`, 2);
  }
}

function parseYears(text: string): number {
  const years = Number(text);
  if (!Number.isInteger(years) || years < 0)
    throw new InvalidArgumentError('It takes whole years.');
  return years;
}

const EXIT_CODES: Readonly<Record<Verdict, number>> = {
  breaks: 1,
  'may-break': 3,
  'cannot-tell': 3,
  fine: 0,
};

/** Ends with the verdict's exit code; what there is to say was printed. */
function endWith(verdict: Verdict): void {
  const exitCode = EXIT_CODES[verdict];
  if (exitCode !== 0) throw new CliError('', exitCode);
}
