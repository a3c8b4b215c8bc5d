import type { DestinationConnection } from './destination-connection.ts';
import type { FaultSource } from './guest-port.ts';

/** Requests the pages that vCPUs wait for, over one connection at a time. */
export class PageRequests {
  readonly #faults: FaultSource;
  readonly #onTaken: () => void;
  #ended: AbortController | undefined;
  #serving: Promise<void> = Promise.resolve();
  /** Requests that were sent. */
  count = 0;

  /** @param onTaken called when it was seen who waits for pages, before these are requested */
  constructor(faults: FaultSource, onTaken: () => void = () => {}) {
    this.#faults = faults;
    this.#onTaken = onTaken;
  }

  /** Begins to send requests; those over a connection before are sent again where they are still due. */
  start(connection: DestinationConnection): void {
    this.#ended = new AbortController();
    this.#faults.repeat();
    // A lost connection ends the loop here and the reading side with its cause.
    this.#serving = this.#serve(connection, this.#ended.signal).catch((error: Error) =>
      connection.destroy(error),
    );
  }

  /** Ends the requests; call it when the connection is closed, which ends one that is being sent. */
  async stop(): Promise<void> {
    this.#ended?.abort();
    await this.#serving;
  }

  async #serve(connection: DestinationConnection, signal: AbortSignal): Promise<void> {
    let named: string | undefined;
    while (!signal.aborted) {
      const faults = this.#faults.take();
      this.#onTaken();
      for (const { block, offsetBytes, lengthBytes } of faults) {
        const isNamed = block.name === named;
        named = block.name;
        this.count += 1;
        await connection.answer({
          name: 'req-pages',
          start: offsetBytes,
          length: lengthBytes,
          ...(isNamed ? {} : { block: block.name }),
        });
      }
      await this.#faults.wait(signal);
    }
  }
}
