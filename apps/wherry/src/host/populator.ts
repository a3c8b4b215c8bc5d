import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { GuestRam } from '@wherry/page-engine';

/**
 * Starts the thread that runs ahead of an incoming migration, where there is a processor for it.
 *
 * @returns what ends it
 */
export function startPopulator(ram: GuestRam): () => void {
  if (availableParallelism() < 2) return () => {};
  const worker = new Worker(new URL('./populate-thread.js', import.meta.url), {
    workerData: ram.handle(),
  });
  worker.unref();
  worker.on('error', () => {}); // the receiver then touches every page itself
  return () => void worker.terminate();
}
