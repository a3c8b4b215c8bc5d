import { formatOffset, WherryError } from '@wherry/bytes';
import { streamFacts } from '@wherry/snapshot';
import { type CheckSide, parseDump, type StreamFacts } from '@wherry/vmstate';
import { CliError } from '../cli-error.ts';
import type { ByteSource } from '../inspect/byte-source.ts';
import { openInput } from '../inspect/input.ts';
import { walkSource } from '../inspect/walk-source.ts';

/** A real dump has less than 1 MiB. */
const MAX_DUMP_BYTES = 64 * 1024 * 1024;

/** One side of a check, and the name that its reports call it by. */
export interface LoadedSide {
  readonly name: string;
  readonly side: CheckSide;
}

/**
 * Reads a dump or a stream, whichever the file holds; `-` is standard input.
 *
 * @throws CliError 2 when it cannot be opened or is neither; 1 when the stream is broken
 */
export async function loadSide(path: string): Promise<LoadedSide> {
  const name = path === '-' ? 'standard input' : path;
  try {
    const input = await openInput(path);
    try {
      if (looksLikeJson(input.head)) {
        return { name, side: { dump: parseDump(await readText(input.source, name)) } };
      }
      return { name, side: { stream: await readStream(input.source, name) } };
    } finally {
      input.close();
    }
  } catch (error) {
    if (error instanceof CliError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    throw new CliError(`${name}: ${message}`, error instanceof WherryError ? 2 : 1);
  }
}

function looksLikeJson(head: Uint8Array): boolean {
  const isSpace = (byte: number): boolean => [0x20, 0x09, 0x0a, 0x0d].includes(byte);
  const first = head.find((byte) => !isSpace(byte));
  return first === 0x7b || first === 0x5b;
}

async function readText(source: ByteSource, name: string): Promise<string> {
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(1024 * 1024);
  let text = '';
  for (;;) {
    const count = await source.read(chunk);
    if (count === 0) return text + decoder.decode();
    text += decoder.decode(chunk.subarray(0, count), { stream: true });
    if (text.length > MAX_DUMP_BYTES) {
      throw new CliError(`${name}: it is too long for a dump (more than 64 MiB)`, 2);
    }
  }
}

async function readStream(source: ByteSource, name: string): Promise<StreamFacts> {
  const { walk, error } = await walkSource(source, {});
  if (error !== undefined) {
    const isStream = walk.model.version !== undefined;
    const where = error.offset === undefined ? '' : ` at ${formatOffset(error.offset)}`;
    throw new CliError(
      isStream
        ? `${name}: the stream is broken${where}: ${error.what}; wherry inspect tells more`
        : `${name}: it is neither a -dump-vmstate nor a migration stream`,
      isStream ? 1 : 2,
    );
  }
  return streamFacts(walk.model);
}
