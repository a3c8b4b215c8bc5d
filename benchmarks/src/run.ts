import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { commandCases } from './command-cases.ts';
import { measure } from './engine-case.ts';
import { engineCases } from './engine-cases.ts';
import { faultCases } from './fault-cases.ts';
import { guestSizeCases } from './guest-size-cases.ts';
import type { Measurement } from './measurement.ts';
import { migrationCases } from './migration-cases.ts';
import { restoreCases } from './restore-cases.ts';
import { drawTable } from './table.ts';
import { vmstateCases } from './vmstate-cases.ts';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const SIZES = {
  scanBytes: GiB,
  blockBytes: 256 * MiB,
  freshBytes: 64 * MiB,
  twinBytes: 16 * MiB,
  bitmapGuestBytes: 64 * GiB,
};

const USAGE = `Usage: npm run bench -- [--only PATTERN] [--quick] [--json]

  --only PATTERN  measure the cases whose name matches the regular expression
  --quick         take fewer samples, and one run of each migration
  --json          print one JSON object instead of a table

Exit code 1 when a mark is missed, 2 for wrong usage.`;

/** Prints a usage error and ends. */
function refuse(problem: string): never {
  console.error(`${problem}\n\n${USAGE}`);
  process.exit(2);
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        only: { type: 'string', default: '' },
        quick: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    return { ...values, only: new RegExp(values.only, 'i') };
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
}

const options = readOptions();
if (options.help) {
  console.log(USAGE);
  process.exit(0);
}
const { only, quick } = options;
const engine = [...engineCases(SIZES), ...vmstateCases()].filter(({ name }) => only.test(name));
const migrations = [
  ...migrationCases(),
  ...guestSizeCases(),
  ...faultCases(),
  ...restoreCases(),
].filter(({ name }) => only.test(name));
const commands = commandCases().filter(({ name }) => only.test(name));
if (engine.length + commands.length + migrations.length === 0) refuse(`No case matches ${only}.`);

const measurements: Measurement[] = [];
const progress = (name: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${name}`);
};
for (const each of engine) {
  progress(each.name);
  const counts = { rounds: quick ? 3 : 15, iterations: 2, timeMs: quick ? 20 : 30 };
  measurements.push(await measure(each, counts));
}
for (const each of commands) {
  progress(each.name);
  measurements.push(each.measure(quick));
}
for (const each of migrations) {
  progress(each.name);
  try {
    measurements.push(...(await each.measure(quick ? 1 : 3)));
  } catch (error) {
    // What was measured before is not lost for it.
    const note = `failed: ${error instanceof Error ? error.message : error}`;
    const nothing = { figure: undefined, limit: undefined, ratio: undefined, mark: undefined };
    measurements.push({ name: each.name, ...nothing, verdict: 'missed', note });
  }
}
progress('');

const machine = { cpu: cpus()[0]?.model ?? 'unknown', cores: cpus().length, node: process.version };
if (options.json) console.log(JSON.stringify({ machine, measurements }, null, 2));
else {
  console.log(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}; medians`);
  console.log(drawTable(measurements));
}
const missed = measurements.filter(({ verdict }) => verdict === 'missed');
if (missed.length > 0) {
  console.error(`Missed: ${missed.map(({ name }) => name).join('; ')}`);
  process.exitCode = 1;
}
