import { ByteWriter } from '@wherry/bytes';
import { type ReturnPathMessage, writeReturnPathMessage } from '@wherry/stream';
import type { Transport } from '../src/index.ts';
import type { VirtualClock } from './virtual-clock.ts';

/**
 * A connection whose far side takes everything and says something of its own, then nothing: each group
 * of messages, or of raw bytes, a millisecond after the one before.
 */
export function saying(
  clock: VirtualClock,
  ...groups: readonly (readonly ReturnPathMessage[] | Uint8Array)[]
): Transport {
  const chunks = groups.map((group) => {
    if (group instanceof Uint8Array) return group;
    const writer = new ByteWriter();
    for (const message of group) writeReturnPathMessage(writer, message);
    return writer.finish();
  });
  const gone = Promise.withResolvers<never>();
  gone.promise.catch(() => {});
  return {
    read: async (into) => {
      const [chunk] = chunks;
      if (chunk === undefined) return gone.promise;
      await clock.sleep(1);
      const count = Math.min(chunk.length, into.length);
      into.set(chunk.subarray(0, count));
      if (count === chunk.length) chunks.shift();
      else chunks[0] = chunk.subarray(count);
      return count;
    },
    write: async () => {},
    end: async () => {},
    destroy: (reason) => gone.reject(reason ?? new Error('destroyed')),
  };
}
