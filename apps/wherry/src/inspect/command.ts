import { type FileHandle, open } from 'node:fs/promises';
import { ByteReader, WherryError } from '@wherry/bytes';
import { decodeDevices, StreamWalk } from '@wherry/snapshot';
import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { fileSource, type ReadBytes, readWith, streamSource } from './byte-source.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from './diagnosis.ts';
import { escapeControls, writeAll } from './output.ts';
import { formatJson } from './report-json.ts';
import { formatReport } from './report-text.ts';
import { formatTable } from './table.ts';

const CHUNK_BYTES = 1024 * 1024;

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
  const walk = new StreamWalk();
  const broken = await walkFile(path, walk);
  const error = broken ?? firstMismatch(walk);
  const pieces =
    options.json === true
      ? formatJson(walk.model, error)
      : printable(formatReport(walk.model, formatTable));
  await writeAll(output, pieces);
  if (error !== undefined)
    throw new CliError(escapeControls(`${nameOf(path)}: ${formatDiagnosis(error)}`), 1);
}

async function walkFile(path: string, walk: StreamWalk): Promise<Diagnosis | undefined> {
  const file = path === '-' ? undefined : await openFile(path);
  const read: ReadBytes = file === undefined ? streamSource(process.stdin) : fileSource(file);
  const reader = new ByteReader({ storage: new Uint8Array(CHUNK_BYTES) });
  try {
    await readWith(walk.walk(reader), reader, read);
    return undefined;
  } catch (error) {
    if (error instanceof WherryError) return diagnose(error, walk.path);
    throw new CliError(`${nameOf(path)}: ${messageOf(error)}`, 1);
  } finally {
    await file?.close();
  }
}

async function openFile(path: string): Promise<FileHandle> {
  let file: FileHandle;
  try {
    file = await open(path);
  } catch (error) {
    throw new CliError(`Cannot read ${path}: ${reasonOf(error)}`, 2);
  }
  if ((await file.stat()).isDirectory()) {
    await file.close();
    throw new CliError(`Cannot read ${path}: it is a directory; name a file with a stream`, 2);
  }
  return file;
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
