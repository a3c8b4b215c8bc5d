import { closeSync, fstatSync, openSync } from 'node:fs';
import { decodeDevices, type StreamWalk } from '@wherry/snapshot';
import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { fileSource, streamSource } from './byte-source.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from './diagnosis.ts';
import { escapeControls, writeAll } from './output.ts';
import { formatJson } from './report-json.ts';
import { formatReport } from './report-text.ts';
import { formatTable } from './table.ts';
import { type Walked, walkSource } from './walk-source.ts';

/** Makes the command `wherry inspect`. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description('show what a migration stream holds')
    .argument('<file>', 'a file with a migration stream, or - for standard input')
    .option('--json', 'print one JSON object (described in docs/inspect.md)')
    .action((file: string, options: { readonly json?: boolean }) => inspect(file, options));
}

/**
 * Prints what a stream holds.
 *
 * @throws CliError 1 when the stream is broken: what comes before the break was printed; 2 when the file cannot be opened
 */
export async function inspect(
  path: string,
  options: { readonly json?: boolean },
  output: NodeJS.WritableStream = process.stdout,
): Promise<void> {
  const { walk, error: broken } = await walkFile(path);
  const error = broken === undefined ? firstMismatch(walk) : diagnose(broken, walk.path);
  const pieces =
    options.json === true
      ? formatJson(walk.model, error)
      : printable(formatReport(walk.model, formatTable));
  await writeAll(output, pieces);
  if (error !== undefined)
    throw new CliError(escapeControls(`${nameOf(path)}: ${formatDiagnosis(error)}`), 1);
}

async function walkFile(path: string): Promise<Walked> {
  const fd = path === '-' ? undefined : openFile(path);
  try {
    return await walkSource(fd === undefined ? streamSource(process.stdin) : fileSource(fd), {});
  } catch (error) {
    throw new CliError(`${nameOf(path)}: ${messageOf(error)}`, 1);
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function openFile(path: string): number {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    throw new CliError(`Cannot read ${path}: ${reasonOf(error)}`, 2);
  }
  if (fstatSync(fd).isDirectory()) {
    closeSync(fd);
    throw new CliError(`Cannot read ${path}: it is a directory; name a file with a stream`, 2);
  }
  return fd;
}

/** A section that differs from its own description is a damaged stream, though its framing is whole. */
function firstMismatch(walk: StreamWalk): Diagnosis | undefined {
  for (const { mismatch } of decodeDevices(walk.model)) {
    if (mismatch !== undefined) return diagnose(mismatch, []);
  }
  return undefined;
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : path;
}

function* printable(lines: Iterable<string>): Generator<string> {
  for (const line of lines) yield `${escapeControls(line)}\n`;
}

function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOENT') return 'there is no such file; check the path';
  if (code === 'EACCES') return 'permission denied; make it readable, or run as its owner';
  return messageOf(error);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
