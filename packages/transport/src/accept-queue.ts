import type { Transport } from '@wherry/migration';
import { TransportError } from './transport-error.ts';
import { wait } from './waiting.ts';

/** Connections that may wait for an accept; more are dropped. */
const MAX_WAITING = 64;

type Waiter = { resolve(transport: Transport): void; reject(reason: Error): void };

/** Hands connections to those who accept, first come first served on both sides. */
export class AcceptQueue {
  readonly #what: string;
  readonly #ready: Transport[] = [];
  readonly #waiters = new Set<Waiter>();
  #end: Error | undefined;

  /** @param place where the connections come from, for messages */
  constructor(place: string) {
    this.#what = `Waiting for a connection on ${place}`;
  }

  /** Adds a connection. */
  push(transport: Transport): void {
    const [waiter] = this.#waiters;
    if (waiter !== undefined) waiter.resolve(transport);
    else if (this.#end === undefined && this.#ready.length < MAX_WAITING) {
      this.#ready.push(transport);
    } else transport.destroy();
  }

  /** Rejects those who wait now. */
  fail(reason: Error): void {
    for (const waiter of [...this.#waiters]) waiter.reject(reason);
  }

  /** Takes the next connection. */
  take(signal: AbortSignal | undefined): Promise<Transport> {
    const ready = signal?.aborted ? undefined : this.#ready.shift();
    if (ready !== undefined) return Promise.resolve(ready);
    if (this.#end !== undefined) return Promise.reject(this.#end);
    return wait<Transport>(this.#what, { signal }, (resolve, reject) => {
      const leave = (): void => void this.#waiters.delete(waiter);
      const waiter: Waiter = {
        resolve: (transport) => {
          leave();
          resolve(transport);
        },
        reject: (reason) => {
          leave();
          reject(reason);
        },
      };
      this.#waiters.add(waiter);
      return leave;
    });
  }

  /** Lets no further connection in: those who wait get `reason`, connections that wait are taken still. */
  seal(reason: TransportError): void {
    this.#end ??= reason;
    this.fail(this.#end);
  }

  /** Ends the queue: those who wait are told, connections that wait are dropped. */
  close(): void {
    this.#end = new TransportError('ABORTED', `${this.#what} ended: the listener was closed`);
    this.fail(this.#end);
    for (const transport of this.#ready.splice(0)) transport.destroy(this.#end);
  }
}
