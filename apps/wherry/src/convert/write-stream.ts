import { writeSync } from 'node:fs';
import { MigrationError, StoredSource, type Transport } from '@wherry/migration';
import type { StoredGuest } from '@wherry/snapshot';
import { wallClock } from '../wall-clock.ts';
import type { Pace } from './pace.ts';

/** Writes a guest as a stream with each page once. @throws what ended it */
export async function writeStream(
  fd: number,
  guest: StoredGuest,
  pace: Pace,
  signal: AbortSignal,
): Promise<void> {
  const transport: Transport = {
    read: async () => 0,
    write: async (bytes) => {
      for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
      await pace.wrote(bytes.length);
    },
    end: async () => {},
    destroy: () => {},
  };
  const source = new StoredSource({
    ...{ guest, transport, clock: wallClock, returnPath: false, postcopy: false },
  });
  const onAbort = (): void => source.stopWith(new MigrationError('CANCELLED', 'Interrupted'));
  signal.addEventListener('abort', onAbort);
  const status = await source.run();
  signal.removeEventListener('abort', onAbort);
  if (status !== 'completed') throw source.error;
}
