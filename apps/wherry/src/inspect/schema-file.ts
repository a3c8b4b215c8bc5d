import { WherryError } from '@wherry/bytes';
import { streamFacts } from '@wherry/snapshot';
import {
  type CheckSide,
  parseDump,
  type Schema,
  schemaFromDump,
  schemaFromVmdesc,
} from '@wherry/vmstate';
import { CliError } from '../cli-error.ts';
import type { ByteSource } from './byte-source.ts';
import { openInput } from './input.ts';
import { walkSource } from './walk-source.ts';

/** What is known of a machine's devices from elsewhere than the stream. */
export interface SchemaFile {
  readonly schema: Schema;
  /** The same file as one side of a check. */
  readonly side: CheckSide;
}

/** Gives the machine type that a schema belongs to, where its file states it. */
export function machineTypeOf(schemaFile: SchemaFile | undefined): string | undefined {
  const side = schemaFile?.side;
  return side?.dump === undefined ? side?.stream.machine : side.dump.machine;
}

/** A real dump has some 3 MiB. */
const MAX_DUMP_BYTES = 64 * 1024 * 1024;

/**
 * Reads a schema from another stream of the same machine, or from what `-dump-vmstate` wrote.
 *
 * @throws CliError 2 when the file is neither
 */
export async function readSchemaFile(path: string): Promise<SchemaFile> {
  const input = await openInput(path);
  try {
    if (input.head[0] === 0x7b) {
      const dump = parseDump(await readText(input.source, path));
      return { schema: schemaFromDump(dump), side: { dump } };
    }
    const { walk, error } = await walkSource(input.source, {});
    const { vmdesc } = walk.model;
    if (vmdesc?.value === undefined) {
      if (error !== undefined) throw error;
      throw new CliError(
        `--schema ${path}: the stream has no vmdesc; take one that was not sent in postcopy, or a file of -dump-vmstate`,
        2,
      );
    }
    return { schema: schemaFromVmdesc(vmdesc.value), side: { stream: streamFacts(walk.model) } };
  } catch (error) {
    if (!(error instanceof WherryError)) throw error;
    throw new CliError(`--schema ${path}: ${error.message}`, 2);
  } finally {
    input.close();
  }
}

async function readText(source: ByteSource, path: string): Promise<string> {
  const pieces: Uint8Array[] = [];
  for (let have = 0; ; ) {
    const piece = new Uint8Array(1024 * 1024);
    const count = await source.read(piece);
    if (count === 0) return Buffer.concat(pieces).toString();
    pieces.push(piece.subarray(0, count));
    have += count;
    if (have > MAX_DUMP_BYTES) {
      throw new CliError(`--schema ${path}: a dump has at most ${MAX_DUMP_BYTES} bytes`, 2);
    }
  }
}
