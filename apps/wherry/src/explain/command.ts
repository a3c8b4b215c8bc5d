import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { escapeControls, writeAll } from '../inspect/output.ts';
import { CATALOGUE, causeOf } from './catalogue.ts';
import type { Cause } from './cause.ts';
import { formatCause } from './format.ts';
import { linesOf } from './lines.ts';
import { explainLine, fillNames } from './match.ts';

interface ExplainOptions {
  readonly json?: boolean;
  readonly list?: boolean;
}

/** What is explained: a line of a log, or a code of the catalogue. */
interface Explained {
  /** Number of the line, from 1 on. */
  readonly line?: number;
  readonly text: string;
  readonly cause: Cause;
  /** What the line says in the places of its names; undefined for a code of the catalogue. */
  readonly names?: Readonly<Record<string, string>>;
}

/** Makes the command `wherry explain`. */
export function explainCommand(): Command {
  return new Command('explain')
    .description('say what a message of a failed migration means, and what to do')
    .argument(
      '[message...]',
      'a message of QEMU, a code of the catalogue, or - for a log on standard input',
    )
    .option('--list', 'list the codes of the catalogue')
    .option('--json', 'print one JSON object (described in docs/causes.md)')
    .addHelpText(
      'after',
      `
Examples:
  wherry explain "Unknown savevm section or instance '0000:00:03.0/virtio-net' 0"
  wherry explain - < qemu.log
  wherry explain FOOTER_MISSING

Exit codes: 0 something was explained, 1 nothing was recognised, 2 wrong usage.`,
    )
    .action((words: readonly string[], options: ExplainOptions) => explain(words, options));
}

/** Explains a message, a log or a code. @throws CliError 1 when nothing is recognised, 2 for wrong usage */
async function explain(words: readonly string[], options: ExplainOptions): Promise<void> {
  if (options.list === true) {
    if (words.length > 0) throw new CliError('--list takes no message', 2);
    await writeAll(process.stdout, options.json === true ? listJson() : listText());
    return;
  }
  const message = words.join(' ').trim();
  if (message === '') {
    throw new CliError('Nothing to explain: give a message, a code, or - for a log', 2);
  }
  const explained = message === '-' ? await explainLog() : explainMessage(message);
  await writeAll(
    process.stdout,
    options.json === true ? formatJson(explained) : formatText(explained),
  );
  if (explained.length > 0) return;
  throw new CliError(
    message === '-'
      ? 'No line of standard input is a message of a failed migration that the catalogue knows'
      : 'The catalogue does not know this message: give the whole log with `wherry explain - < LOG`, or see --list',
    1,
  );
}

/** Every recognised line is kept: a log that repeats one message for ever ends there. */
const MAX_EXPLAINED = 10_000;

async function explainLog(): Promise<Explained[]> {
  const explained: Explained[] = [];
  let line = 0;
  for await (const text of linesOf(process.stdin)) {
    line++;
    for (const explanation of explainLine(text)) explained.push({ line, text, ...explanation });
    if (explained.length >= MAX_EXPLAINED) break;
  }
  return explained;
}

function explainMessage(message: string): Explained[] {
  const cause = causeOf(message.toUpperCase());
  if (cause !== undefined) return [{ text: message, cause }];
  return message
    .split('\n')
    .flatMap((text) => explainLine(text).map((explanation) => ({ text, ...explanation })));
}

function* formatText(explained: readonly Explained[]): Generator<string> {
  const columns = process.stdout.columns ?? 80;
  let shown: string | undefined;
  for (const [i, { line, text, cause, names }] of explained.entries()) {
    if (i > 0) yield '\n';
    const place = `${line}: ${text.trim()}`;
    if (line !== undefined && place !== shown) yield `${escapeControls(place)}\n`;
    shown = place;
    for (const row of formatCause(cause, names, columns)) yield `${escapeControls(row)}\n`;
  }
}

function* formatJson(explained: readonly Explained[]): Generator<string> {
  yield '{"version":1,"explained":[';
  for (const [i, { line, text, cause, names }] of explained.entries()) {
    const { code, what, why, action } = cause;
    yield `${i === 0 ? '\n' : ',\n'}${JSON.stringify({
      line,
      text,
      code,
      what: fillNames(what, names),
      why: fillNames(why, names),
      action: fillNames(action, names),
      names,
    })}`;
  }
  yield '\n]}\n';
}

function* listText(): Generator<string> {
  for (const [i, [area, causes]] of CATALOGUE.entries()) {
    yield `${i === 0 ? '' : '\n'}${area}\n`;
    for (const { code, what } of causes)
      yield `  ${code.padEnd(30)}${fillNames(what, undefined)}\n`;
  }
}

function* listJson(): Generator<string> {
  yield '{"version":1,"causes":[';
  let separator = '\n';
  for (const [area, causes] of CATALOGUE) {
    for (const { code, what, why, action, messages = [], errors = [] } of causes) {
      yield separator + JSON.stringify({ code, area, what, why, action, messages, errors });
      separator = ',\n';
    }
  }
  yield '\n]}\n';
}
