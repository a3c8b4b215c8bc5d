import { parentPort, workerData } from 'node:worker_threads';
import { ByteReader, runParser, WherryError } from '@wherry/bytes';
import { decodeDevices, findVmdesc, locate, type RamSink, StreamWalk } from '@wherry/snapshot';
import { mutate } from './mutate.ts';
import { Random } from './random.ts';
import { fuzzSeeds } from './seeds.ts';

/** Which mutated streams a worker reads, and where it says which one it is at. */
export interface FuzzJob {
  readonly first: number;
  readonly count: number;
  /** One 32-bit word: the number of the stream that is being read. */
  readonly at: SharedArrayBuffer;
}

/** What a worker found. */
export interface FuzzResult {
  readonly whole: number;
  /** How often each error code came. */
  readonly errors: Readonly<Record<string, number>>;
  /** The first failures, by the number of their stream. */
  readonly failures: readonly string[];
  /** The most memory outside the heap that was held at once, in bytes. */
  readonly peakArrayBytes: number;
}

/** Reads a stream as `wherry inspect` does, at once or in pieces. */
function read(bytes: Uint8Array, random: Random): void {
  const at = random.below(8) === 0 ? random.below(bytes.length + 1) : undefined;
  const walk = new StreamWalk({
    at,
    ramSink: random.below(4) === 0 ? inBounds : undefined,
    vmdesc: random.below(16) === 0 ? findVmdesc(bytes, 0) : undefined,
  });
  try {
    if (random.below(8) > 0) {
      const reader = ByteReader.over(bytes);
      runParser(walk.walkFile(reader), reader);
    } else {
      readInPieces(walk, bytes, random);
    }
  } finally {
    for (const { mismatch } of decodeDevices(walk.model)) check(mismatch);
    const found = locate(walk.model);
    if (found !== undefined) checkPlace(found.range, found.offset, at);
  }
}

function readInPieces(walk: StreamWalk, bytes: Uint8Array, random: Random): void {
  const reader = new ByteReader({ storage: new Uint8Array(16 * 1024) });
  const parser = walk.walkFile(reader);
  let at = 0;
  while (parser.next().done !== true) {
    const room = reader.space();
    const size = Math.min(1 + random.below(3000), room.length, bytes.length - at);
    room.set(bytes.subarray(at, at + size));
    if (size === 0) reader.finish();
    else reader.commit(size);
    at += size;
  }
}

/** An error says what is wrong and where. */
function check(error: WherryError | undefined): void {
  if (error === undefined) return;
  if (error.what === '' || error.offset === undefined) {
    throw new Error(`an error without a place: ${error.code} ${error.message}`);
  }
}

/** Whoever writes RAM to files relies on it: nothing lies outside its block. */
const inBounds: RamSink = {
  begin: () => {},
  page: ({ usedBytes }, offset, { length }) => checkBounds(usedBytes, offset, length),
  zero: ({ usedBytes }, offset, length) => checkBounds(usedBytes, offset, length),
  xbzrle: ({ usedBytes }, offset, length) => checkBounds(usedBytes, offset, length),
  compressed: ({ usedBytes }, offset, length) => checkBounds(usedBytes, offset, length),
};

function checkBounds(usedBytes: number, offset: number, length: number): void {
  if (offset < 0 || length < 0 || offset + length > usedBytes) {
    throw new Error(`${length} bytes at ${offset} of a block of ${usedBytes}`);
  }
}

function checkPlace(
  range: { readonly offset: number; readonly lengthBytes: number },
  offset: number,
  asked: number | undefined,
): void {
  const end = range.offset + range.lengthBytes;
  if (offset !== asked || offset < range.offset || offset >= end) {
    throw new Error(`asked for ${asked}: found ${offset} in ${range.offset} to ${end}`);
  }
}

function run({ first, count, at }: FuzzJob): FuzzResult {
  const progress = new Int32Array(at);
  const seeds = fuzzSeeds();
  const errors: Record<string, number> = {};
  const failures: string[] = [];
  let [whole, peakArrayBytes] = [0, 0];
  for (let number = first; number < first + count; number++) {
    Atomics.store(progress, 0, number);
    const random = new Random(number);
    const bytes = mutate(random, random.of(seeds), random.of(seeds));
    try {
      read(bytes, random);
      whole++;
    } catch (error) {
      try {
        if (!(error instanceof WherryError)) throw error;
        check(error);
        errors[error.code] = (errors[error.code] ?? 0) + 1;
      } catch (failure) {
        if (failures.length < 10) failures.push(`stream ${number}: ${(failure as Error).stack}`);
      }
    }
    if (number % 64 === 0) {
      peakArrayBytes = Math.max(peakArrayBytes, process.memoryUsage().arrayBuffers);
    }
  }
  return { whole, errors, failures, peakArrayBytes };
}

parentPort!.postMessage(run(workerData as FuzzJob));
