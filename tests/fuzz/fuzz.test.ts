import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import type { FuzzJob, FuzzResult } from './fuzz-worker.ts';

const STREAMS = 100_000;
const WORKERS = 2;
/** The streams are at most some ten KiB. */
const HEAP_MIB = 192;
const ARRAY_BYTES = 256 * 2 ** 20;
const STUCK_MS = 20_000;

/** Runs a worker; a stream that takes too long fails it by its number. */
async function fuzz(first: number, count: number): Promise<FuzzResult> {
  const at = new SharedArrayBuffer(4);
  const workerData: FuzzJob = { first, count, at };
  const worker = new Worker(new URL('./fuzz-worker.ts', import.meta.url), {
    workerData,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
  });
  const progress = new Int32Array(at);
  let last = -1;
  let stuck: ((error: Error) => void) | undefined;
  const watch = setInterval(() => {
    const now = Atomics.load(progress, 0);
    if (now === last) stuck?.(new Error(`stream ${now} is read for longer than ${STUCK_MS} ms`));
    last = now;
  }, STUCK_MS);
  try {
    const [result] = (await Promise.race([
      once(worker, 'message'),
      new Promise<never>((_, reject) => {
        stuck = reject;
      }),
    ])) as [FuzzResult];
    return result;
  } catch (error) {
    const where = `at stream ${Atomics.load(progress, 0)}`;
    throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
  } finally {
    clearInterval(watch);
    await worker.terminate();
  }
}

describe(`${STREAMS} mutated streams`, () => {
  test('are each read to an end or to one error that says where', async () => {
    // WHERRY_SEED=n takes others.
    const begin = Number(process.env['WHERRY_SEED'] ?? 0) * STREAMS;
    const count = STREAMS / WORKERS;
    const results = await Promise.all(
      Array.from({ length: WORKERS }, (_, i) => fuzz(begin + i * count, count)),
    );
    expect(results.flatMap(({ failures }) => failures)).toEqual([]);
    for (const { whole, errors, peakArrayBytes } of results) {
      // The mutations reach behind the header, and damage most streams.
      expect(whole).toBeGreaterThan(count / 50);
      expect(whole).toBeLessThan(count / 2);
      expect(Object.keys(errors).length).toBeGreaterThan(10);
      expect(peakArrayBytes).toBeLessThan(ARRAY_BYTES);
    }
  }, 300_000);
});
