import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { Transport } from '@wherry/migration';
import { type Listener, TransportError } from '@wherry/transport';
import type { MultifdChannels } from './multifd-channels.ts';
import { ReceiveError } from './receive-error.ts';

const MULTIFD_MAGIC = Buffer.from([0x11, 0x22, 0x33, 0x44]);
/** A multifd channel names itself at once. */
const FIRST_BYTES_MS = 5_000;
const SETTLE_MS = 1_000;

/** Takes what connects to a listener beside the connection that brings the stream. */
export class ExtraConnections {
  readonly #listener: Listener;
  readonly #signal: AbortSignal;
  readonly #channels: MultifdChannels | undefined;
  readonly #multifd = Promise.withResolvers<never>();
  #next: PromiseWithResolvers<Transport> | undefined;
  #over: Error | undefined;
  readonly #sorting = new Set<Promise<void>>();

  /** @param multifd takes the channels that come */
  constructor(listener: Listener, signal: AbortSignal, multifd?: MultifdChannels) {
    this.#channels = multifd;
    this.#listener = listener;
    this.#signal = signal;
    this.#multifd.promise.catch(() => {});
  }

  /**
   * Accepts until the signal: sends away whoever is no part of the migration, and holds the channel of
   * postcopy-preempt, over which nothing comes since no page is asked for.
   *
   * @param expectsChannel whether the source may open one
   * @throws ReceiveError `UNSUPPORTED` when a multifd channel connects that nobody takes, `CHANNEL_INVALID`
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

  /**
   * Waits until it is known what has connected so far, a second at most: channels connect before the
   * stream ends.
   */
  async settle(): Promise<void> {
    await setImmediate(); // what waits to be accepted is
    await Promise.race([Promise.all(this.#sorting), sleep(SETTLE_MS, undefined, { ref: false })]);
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
        const sorting = this.#sort(transport, expectsChannel);
        this.#sorting.add(sorting);
        void sorting.finally(() => this.#sorting.delete(sorting));
      }
    }
  }

  async #sort(transport: Transport, expectsChannel: () => boolean): Promise<void> {
    const first = await firstBytes(transport, this.#signal);
    if (first === 'silent' && expectsChannel()) {
      this.#signal.addEventListener('abort', () => transport.destroy(), { once: true });
      return;
    }
    const isChannel = first !== 'silent' && MULTIFD_MAGIC.equals(first);
    if (isChannel && this.#channels !== undefined) {
      this.#channels.take(transport, first).catch((error: Error) => this.#multifd.reject(error));
      return;
    }
    transport.destroy();
    if (isChannel) this.#multifd.reject(multifdError());
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
    likely:
      'Say with --multifd how many channels the source has, or switch multifd off there, and migrate again; its guest runs on',
  });
}
