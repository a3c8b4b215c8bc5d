import { QmpError } from './qmp-error.ts';

/** An event as the server sent it. */
export interface QmpEvent<N extends string = string, D = unknown> {
  readonly event: N;
  readonly data: D;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

const MAX_UNREAD_EVENTS = 10_000;

/** Is a queue of events that a loop reads; ends with the connection. */
export class EventIterator<E> implements AsyncIterableIterator<E> {
  readonly #detach: (iterator: EventIterator<E>) => void;
  #unread: E[] = [];
  #waiting: PromiseWithResolvers<IteratorResult<E, undefined>>[] = [];
  #done = false;
  #error: QmpError | undefined;

  constructor(detach: (iterator: EventIterator<E>) => void) {
    this.#detach = detach;
  }

  push(event: E): void {
    if (this.#done) return;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) waiting.resolve({ done: false, value: event });
    else if (this.#unread.length < MAX_UNREAD_EVENTS) this.#unread.push(event);
    else this.end(new QmpError('EVENT_OVERFLOW', `${MAX_UNREAD_EVENTS} events were left unread`));
  }

  /** Ends the loop after the events already queued; with an error, it throws then. */
  end(error?: QmpError): void {
    if (this.#done) return;
    this.#done = true;
    this.#error = error;
    this.#detach(this);
    for (const waiting of this.#waiting.splice(0)) this.#settle(waiting);
  }

  #settle(waiting: PromiseWithResolvers<IteratorResult<E, undefined>>): void {
    const error = this.#error;
    this.#error = undefined;
    if (error === undefined) waiting.resolve({ done: true, value: undefined });
    else waiting.reject(error);
  }

  next(): Promise<IteratorResult<E, undefined>> {
    const waiting = Promise.withResolvers<IteratorResult<E, undefined>>();
    const event = this.#unread.shift();
    if (event !== undefined) waiting.resolve({ done: false, value: event });
    else if (this.#done) this.#settle(waiting);
    else this.#waiting.push(waiting);
    return waiting.promise;
  }

  return(): Promise<IteratorResult<E, undefined>> {
    this.#unread = [];
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
