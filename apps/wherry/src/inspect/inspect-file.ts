import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { locate, type StreamModel, type WalkOptions } from '@wherry/snapshot';
import { CliError } from '../cli-error.ts';
import { diagnoseBreak } from './break-diagnosis.ts';
import { type Diagnosis, formatDiagnosis } from './diagnosis.ts';
import { type Input, openInput } from './input.ts';
import type { InspectOptions } from './options.ts';
import { escapeControls, writeAll } from './output.ts';
import type { RamFiles } from './ram-files.ts';
import { ReadProgress } from './read-progress.ts';
import { fitLines } from './report-layout.ts';
import type { ReportOptions } from './report-options.ts';
import { machineTypeOf, type SchemaFile } from './schema-file.ts';
import { walkSource } from './walk-source.ts';

/**
 * Prints what a stream holds.
 *
 * @throws CliError 1 when the stream is broken: what comes before the break was printed; 2 when the file cannot be opened
 */
export async function inspectFile(
  path: string,
  options: InspectOptions,
  schemaFile: SchemaFile | undefined,
): Promise<void> {
  const schema = schemaFile?.schema;
  const ram =
    options.ramDirectory === undefined
      ? undefined
      : new (await import('./ram-files.ts')).RamFiles(options.ramDirectory, options.replace);
  const walked = await walkFile(path, options, ram, schemaFile);
  const { model } = walked;
  ram?.finish(model, walked.error === undefined);
  let error = walked.error;
  const onMismatch = (mismatch: Diagnosis): void => {
    error ??= mismatch;
  };
  const report: ReportOptions = {
    file: path,
    columns: process.stdout.columns ?? 80,
    schema,
    schemaMachineType: machineTypeOf(schemaFile),
    isShown: options.isShown,
    packed: walked.packed,
    ramFiles: ram?.names,
    onMismatch,
  };
  await writeAll(process.stdout, await format(model, options, report, () => error));
  if (error !== undefined) {
    const lines = `${nameOf(path)}: ${formatDiagnosis(error)}`.split('\n');
    throw new CliError(escapeControls([...fitLines(lines, process.stderr.columns)].join('\n')), 1);
  }
}

interface WalkedFile {
  readonly model: StreamModel;
  readonly error: Diagnosis | undefined;
  /** What the stream was unpacked from. */
  readonly packed: string | undefined;
}

async function walkFile(
  path: string,
  { at }: InspectOptions,
  ramSink: RamFiles | undefined,
  schemaFile: SchemaFile | undefined,
): Promise<WalkedFile> {
  let input: Input | undefined;
  const progress = new ReadProgress(process.stderr, nameOf(path));
  try {
    input = await openInput(path);
    const walkOptions: WalkOptions = { at, ramSink, container: input.container };
    const { sizeBytes } = input.source;
    const { walk, error } = await walkSource(input.source, walkOptions, (offset) =>
      progress.show(offset, sizeBytes),
    );
    const { packed } = input;
    if (error === undefined) return { model: walk.model, error, packed };
    const diagnosis = diagnoseBreak(error, walk, input.head, schemaFile);
    return { model: walk.model, error: diagnosis, packed };
  } catch (error) {
    ramSink?.finish(undefined, false);
    if (error instanceof CliError) throw error;
    throw new CliError(`${nameOf(path)}: ${error instanceof Error ? error.message : error}`, 1);
  } finally {
    progress.done();
    input?.close();
  }
}

/** Only what the format needs is loaded: on a small stream that is what takes the time. */
async function format(
  model: StreamModel,
  options: InspectOptions,
  report: ReportOptions,
  error: () => Diagnosis | undefined,
): Promise<Iterable<string>> {
  const located = options.at === undefined ? undefined : locate(model, report);
  switch (options.format) {
    case 'json': {
      const { formatJson } = await import('./report-json.ts');
      return formatJson(model, located, report, error);
    }
    case 'text': {
      const { formatLocated, formatReport } = await import('./report-text.ts');
      if (options.at === undefined) return printable(formatReport(model, report));
      if (located === undefined) report.onMismatch(notReached(options.at, model));
      return located === undefined ? [] : printable(formatLocated(located));
    }
    default: {
      const analyzer = await import('./analyze/analyze-migration.ts');
      return formatAnalysis(analyzer, model, options, report, error() === undefined);
    }
  }
}

function* formatAnalysis(
  { formatDescription, formatState }: typeof import('./analyze/analyze-migration.ts'),
  model: StreamModel,
  { format, extractsTo }: InspectOptions,
  { onMismatch, ramFiles }: ReportOptions,
  isWhole: boolean,
): Generator<string> {
  if (model.vmdesc?.text === undefined) {
    if (isWhole) onMismatch(NO_VMDESC);
  } else if (extractsTo !== undefined) {
    for (const [name, pieces] of [
      ['desc.json', formatDescription(model)],
      ['state.json', formatState(model, onMismatch)],
    ] as const) {
      // The analyser's files have no newline at their end.
      writeFileSync(join(extractsTo, name), [...pieces].join('').trimEnd());
      yield `${name}\n`;
    }
    for (const file of ramFiles?.values() ?? []) yield `${file}\n`;
  } else {
    yield* format === 'analyze-desc' ? formatDescription(model) : formatState(model, onMismatch);
  }
}

const NO_VMDESC: Diagnosis = {
  code: 'VMDESC_MISSING',
  message: 'The stream has no description of its devices',
  path: ['vmdesc'],
  expected: 'a vmdesc behind the end of the stream',
  likely:
    'It is a postcopy stream, or its machine suppresses the vmdesc: QEMU’s analyser reads neither. Without --as the rest of it is shown',
};

function notReached(offset: number, { endOffset }: StreamModel): Diagnosis {
  return {
    code: 'OFFSET_NOT_REACHED',
    message: 'The input has no such byte',
    offset,
    path: [],
    expected: endOffset === undefined ? 'an offset before the break' : `less than ${endOffset}`,
  };
}

/** Names a file as messages do. */
export function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path;
}

function* printable(lines: Iterable<string>): Generator<string> {
  for (const line of fitLines(lines, process.stdout.columns)) yield `${escapeControls(line)}\n`;
}
