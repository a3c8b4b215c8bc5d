import { setTimeout as sleep } from 'node:timers/promises';
import type { Transport } from '@wherry/migration';
import type { Listener } from '@wherry/transport';
import { ReceiveError } from './receive-error.ts';

const MULTIFD_MAGIC = Buffer.from([0x11, 0x22, 0x33, 0x44]);
/** A multifd channel names itself at once. */
const FIRST_BYTES_MS = 5_000;

/**
 * Takes further connections while a migration is under way: a multifd channel means that pages do not
 * come through the main one; anyone else is sent away.
 *
 * @returns never, but by the signal
 * @throws ReceiveError `UNSUPPORTED` when a multifd channel connects
 */
export async function watchForChannels(listener: Listener, signal: AbortSignal): Promise<void> {
  const channel = Promise.withResolvers<never>();
  channel.promise.catch(() => {});
  const accept = async (): Promise<void> => {
    for (;;) {
      const transport = await listener.accept({ signal });
      void isMultifd(transport, signal).then((found) => {
        transport.destroy();
        if (found) channel.reject(multifdError());
      });
    }
  };
  await Promise.race([accept(), channel.promise]).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}

async function isMultifd(transport: Transport, signal: AbortSignal): Promise<boolean> {
  const bytes = new Uint8Array(4);
  const read = async (): Promise<boolean> => {
    for (let have = 0; have < 4; ) {
      const count = await transport.read(bytes.subarray(have));
      if (count === 0) return false;
      have += count;
    }
    return MULTIFD_MAGIC.equals(bytes);
  };
  const timeout = sleep(FIRST_BYTES_MS, false, { signal }).catch(() => false);
  return Promise.race([read(), timeout]).catch(() => false);
}

function multifdError(): ReceiveError {
  return new ReceiveError('UNSUPPORTED', 'The source migrates with multifd', {
    found: 'a further connection, which is a multifd channel',
    likely:
      'A file keeps a precopy migration over one connection: switch multifd off at the source and migrate again; its guest runs on',
  });
}
