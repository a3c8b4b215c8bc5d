import { setTimeout as sleep } from 'node:timers/promises';
import type { Transport } from '@wherry/migration';
import { type Listener, TransportError } from '@wherry/transport';
import { ReceiveError } from './receive-error.ts';

const MULTIFD_MAGIC = Buffer.from([0x11, 0x22, 0x33, 0x44]);
/** A multifd channel names itself at once. */
const FIRST_BYTES_MS = 5_000;

/** Takes what connects to a listener beside the connection that brings the stream. */
export class ExtraConnections {
  readonly #listener: Listener;
  readonly #signal: AbortSignal;
  readonly #multifd = Promise.withResolvers<never>();
  #next: PromiseWithResolvers<Transport> | undefined;
  #over: Error | undefined;

  constructor(listener: Listener, signal: AbortSignal) {
    this.#listener = listener;
    this.#signal = signal;
    this.#multifd.promise.catch(() => {});
  }

  /**
   * Accepts until the signal: sends away whoever is no part of the migration, and holds the channel of
   * postcopy-preempt, over which nothing comes since no page is asked for.
   *
   * @param expectsChannel whether the source may open one
   * @throws ReceiveError `UNSUPPORTED` when a multifd channel connects
   */
  async watch(expectsChannel: () => boolean): Promise<void> {
    await Promise.race([this.#accept(expectsChannel), this.#multifd.promise]).catch(
      (error: unknown) => {
        this.#over = error as Error;
        this.#next?.reject(error);
        const givesOne = error instanceof TransportError && error.code === 'UNSUPPORTED';
        if (!this.#signal.aborted && !givesOne) throw error;
      },
    );
  }

  /** Gives the next connection that comes, whatever it is. @throws the signal's reason, or why none can come */
  next(): Promise<Transport> {
    const next = Promise.withResolvers<Transport>();
    this.#next = next;
    if (this.#over !== undefined) next.reject(this.#over);
    this.#signal.addEventListener('abort', () => next.reject(this.#signal.reason), { once: true });
    return next.promise;
  }

  async #accept(expectsChannel: () => boolean): Promise<void> {
    for (;;) {
      const transport = await this.#listener
        .accept({ signal: this.#signal })
        .catch(ignoreRefusedPeer);
      if (transport === undefined) continue;
      if (this.#next !== undefined) {
        this.#next.resolve(transport);
        this.#next = undefined;
      } else {
        void this.#sort(transport, expectsChannel);
      }
    }
  }

  async #sort(transport: Transport, expectsChannel: () => boolean): Promise<void> {
    const first = await firstBytes(transport, this.#signal);
    if (first === 'silent' && expectsChannel()) {
      this.#signal.addEventListener('abort', () => transport.destroy(), { once: true });
      return;
    }
    transport.destroy();
    if (first !== 'silent' && MULTIFD_MAGIC.equals(first)) this.#multifd.reject(multifdError());
  }
}

/** Someone whose TLS handshake failed is a stranger to the migration that runs. */
function ignoreRefusedPeer(error: unknown): undefined {
  if (!(error instanceof TransportError) || error.code !== 'TLS_FAILED') throw error;
}

async function firstBytes(
  transport: Transport,
  signal: AbortSignal,
): Promise<Uint8Array | 'silent'> {
  const bytes = new Uint8Array(4);
  const read = async (): Promise<Uint8Array> => {
    for (let have = 0; have < 4; ) {
      const count = await transport.read(bytes.subarray(have));
      if (count === 0) return bytes.subarray(0, have);
      have += count;
    }
    return bytes;
  };
  const timeout = sleep(FIRST_BYTES_MS, 'silent' as const, { signal }).catch(
    () => 'silent' as const,
  );
  return Promise.race([read(), timeout]).catch(() => new Uint8Array());
}

function multifdError(): ReceiveError {
  return new ReceiveError('UNSUPPORTED', 'The source migrates with multifd', {
    found: 'a further connection, which is a multifd channel',
    likely: 'Switch multifd off at the source and migrate again; its guest runs on',
  });
}
