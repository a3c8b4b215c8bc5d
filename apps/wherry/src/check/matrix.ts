import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type CheckMatrix,
  type CheckOptions,
  checkMatrix,
  compareReleases,
  type Dump,
  parseDump,
} from '@wherry/vmstate';
import { CliError } from '../cli-error.ts';

/** A dump that is named by its release, such as `10.0.json` or `10.0-pc.json`. */
const DUMP_NAME = /^(\d+\.\d+)([.-].*)?\.json$/;

/** A dump of a directory. */
export interface NamedDump {
  readonly release: string;
  readonly file: string;
  readonly dump: Dump;
}

/** Loads a directory's dumps. @throws CliError 2 when there is none, or one cannot be used */
export function loadDumps(directory: string): NamedDump[] {
  let names: readonly string[];
  try {
    names = readdirSync(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'there is no such directory' : (error as Error).message;
    throw new CliError(`Cannot read ${directory}: ${reason}`, 2);
  }
  const dumps = names.flatMap((file) => {
    const release = DUMP_NAME.exec(file)?.[1];
    return release === undefined ? [] : [{ release, file, dump: loadDump(join(directory, file)) }];
  });
  if (dumps.length === 0) {
    throw new CliError(`${directory} has no dump named by its release, such as 10.0.json`, 2);
  }
  return dumps.sort((a, b) => compareReleases(a.release, b.release));
}

function loadDump(path: string): Dump {
  try {
    return parseDump(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CliError(`${path}: ${(error as Error).message}`, 2);
  }
}

/**
 * Checks a directory's dumps in all pairs, for each machine type that they were made with, or for the
 * one that is told.
 *
 * @throws CliError 2 when there are no two releases that have the machine type
 */
export function matricesOf(
  directory: string,
  dumps: readonly NamedDump[],
  machine: string | undefined,
  options: CheckOptions,
): CheckMatrix[] {
  const machines = machine === undefined ? new Set(dumps.map((d) => d.dump.machine)) : [machine];
  const matrices: CheckMatrix[] = [];
  for (const type of machines) {
    const chosen = new Map<string, Dump>();
    for (const { release, dump } of dumps) {
      const fits = machine !== undefined || dump.machine === type;
      if (fits && !chosen.has(release)) chosen.set(release, dump);
    }
    if (chosen.size > 1) matrices.push(checkMatrix(chosen, type, options));
  }
  if (matrices.length === 0) {
    throw new CliError(
      `${directory} has no two releases with the same machine type; --machine takes all as of one`,
      2,
    );
  }
  if (matrices.every(({ pairs }) => pairs.every(({ verdict }) => verdict === 'absent'))) {
    throw new CliError(
      `No two releases of ${directory} have the machine type ${[...machines].join(', ')}`,
      2,
    );
  }
  return matrices;
}
