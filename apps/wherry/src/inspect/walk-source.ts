import { ByteReader, WherryError } from '@wherry/bytes';
import {
  findVmdesc,
  StreamWalk,
  VMDESC_TAIL_BYTES,
  type VmdescModel,
  type WalkOptions,
} from '@wherry/snapshot';
import { type ByteSource, readWith } from './byte-source.ts';

const CHUNK_BYTES = 1024 * 1024;

/** A walk that ended, and the error that ended it before its time. */
export interface Walked {
  readonly walk: StreamWalk;
  readonly error?: WherryError;
}

/**
 * Walks a source from its beginning to its end. A file whose sections have no footers is walked a second
 * time, with the vmdesc from its end.
 *
 * @throws what reading the source throws
 */
export async function walkSource(
  source: ByteSource,
  options: WalkOptions,
  onRead?: (offset: number) => void,
): Promise<Walked> {
  const storage = new Uint8Array(CHUNK_BYTES);
  const first = await walkOnce(source, storage, options, onRead);
  if (source.seek === undefined || !lacksFooters(first)) return first;
  const vmdesc = await readTailVmdesc(source);
  if (vmdesc === undefined) return first;
  source.seek(0);
  return walkOnce(source, storage, { ...options, vmdesc }, onRead);
}

async function walkOnce(
  source: ByteSource,
  storage: Uint8Array,
  options: WalkOptions,
  onRead: ((offset: number) => void) | undefined,
): Promise<Walked> {
  const walk = new StreamWalk(options);
  const reader = new ByteReader({ storage });
  try {
    await readWith(walk.walkFile(reader), reader, source, onRead);
    return { walk };
  } catch (error) {
    if (error instanceof WherryError) return { walk, error };
    throw error;
  }
}

function lacksFooters({ walk: { model }, error }: Walked): boolean {
  if (error?.code === 'FOOTERS_ABSENT') return true;
  // A device before RAM: its footer was looked for in all that follows.
  const isFirst = model.ram === undefined && model.devices.length === 0;
  return isFirst && model.partial?.kind === 'full';
}

async function readTailVmdesc(source: ByteSource): Promise<VmdescModel | undefined> {
  const { sizeBytes = 0 } = source;
  const tail = new Uint8Array(Math.min(sizeBytes, VMDESC_TAIL_BYTES));
  source.seek?.(sizeBytes - tail.length);
  let have = 0;
  for (let count = 1; count > 0 && have < tail.length; have += count) {
    count = await source.read(tail.subarray(have));
  }
  return findVmdesc(tail.subarray(0, have), sizeBytes - tail.length);
}
