import type { QmpChannel } from './channel.ts';
import { EventIterator, type QmpEvent } from './client-events.ts';
import { type QmpClock, systemClock } from './clock.ts';
import type { QmpCapability, VersionInfo, WithControl } from './control-schema.ts';
import { JsonStream } from './json-stream.ts';
import { isJsonObject, toJsonText } from './json-value.ts';
import type { MigrationSchema } from './migration-schema.ts';
import { QmpCommandError, QmpError } from './qmp-error.ts';
import type {
  QapiArguments,
  QapiCommandName,
  QapiEventData,
  QapiEventName,
  QapiReturn,
} from './schema.ts';

/** What the server told of itself when it accepted the connection. */
export interface QmpGreeting {
  readonly version: VersionInfo;
  readonly capabilities: readonly string[];
}

/** How long to wait, and what ends the wait. */
export interface QmpWaitOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds; no limit unless told. */
  readonly timeoutMs?: number;
}

export interface QmpExecuteOptions extends QmpWaitOptions {
  /** Executes out of band; needs `enable: ['oob']` when connecting. */
  readonly oob?: boolean;
}

export interface QmpConnectOptions {
  /** Limit of greeting and negotiation together; 10 000 ms unless told. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  readonly clock?: QmpClock;
  /** Capabilities to enable; none unless told. */
  readonly enable?: readonly QmpCapability[];
  /** Limit of one message from the server; 16 MiB unless told. */
  readonly maxMessageBytes?: number;
}

type Known<S> = WithControl<S>;

/** A command's name: one of the schema, completed by the editor, or any other. */
export type QmpCommandName<S> = QapiCommandName<Known<S>> | (string & {});

/** The arguments of `execute` after the name; required where the command has required ones. */
export type QmpExecuteParameters<S, N> =
  N extends QapiCommandName<Known<S>>
    ? Empty extends QapiArguments<Known<S>, N>
      ? [args?: QapiArguments<Known<S>, N>, options?: QmpExecuteOptions]
      : [args: QapiArguments<Known<S>, N>, options?: QmpExecuteOptions]
    : [args?: Readonly<Record<string, unknown>>, options?: QmpExecuteOptions];

/** What a command resolves to; `unknown` for one that the schema does not have. */
export type QmpReply<S, N> =
  N extends QapiCommandName<Known<S>> ? QapiReturn<Known<S>, N> : unknown;

/** An event's name: one of the schema, or any other. */
export type QmpEventName<S> = QapiEventName<S> | (string & {});

/** The event that goes with a name. */
export type QmpEventOf<S, N extends string> =
  N extends QapiEventName<S> ? QmpEvent<N, QapiEventData<S, N>> : QmpEvent;

type Empty = Record<never, never>;
type Listener = (event: QmpEvent) => void;

interface Pending {
  resolve(value: unknown): void;
  reject(error: QmpError): void;
}

const MAX_FOUND_LENGTH = 200;

/** Shows the start of what was received. */
function excerpt(value: unknown): string {
  const text = toJsonText(value);
  return text.length > MAX_FOUND_LENGTH ? `${text.slice(0, MAX_FOUND_LENGTH)}…` : text;
}

/**
 * Is one connection to a QMP server, QEMU's or ours, typed by schema `S` for the names that it has.
 * All that fails rejects with {@link QmpError}.
 */
export class QmpClient<S = MigrationSchema> {
  readonly #channel: QmpChannel;
  readonly #clock: QmpClock;
  readonly #input: JsonStream;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #waiters = new Set<(error: QmpError) => void>();
  readonly #iterators = new Set<EventIterator<QmpEvent>>();
  readonly #closed = Promise.withResolvers<QmpError>();
  readonly #greeted = Promise.withResolvers<QmpGreeting>();
  #greeting: QmpGreeting | undefined;
  #error: QmpError | undefined;
  #nextId = 1;

  private constructor(channel: QmpChannel, options: QmpConnectOptions) {
    this.#channel = channel;
    this.#clock = options.clock ?? systemClock;
    this.#input = new JsonStream({ maxMessageBytes: options.maxMessageBytes ?? 16 << 20 });
    this.#greeted.promise.catch(() => {}); // may end before anyone waits for it
  }

  /**
   * Waits for the greeting and leaves negotiation mode.
   *
   * @throws QmpError `TIMEOUT`, `ABORTED`, `CONNECTION_CLOSED` or `PROTOCOL`; the channel is closed
   *   then
   */
  static async connect<S = MigrationSchema>(
    channel: QmpChannel,
    options: QmpConnectOptions = {},
  ): Promise<QmpClient<S>> {
    const client = new QmpClient<S>(channel, options);
    channel.onClose((error) => client.#fail(connectionClosed(error)));
    channel.onData((chunk) => client.#receive(chunk));
    const { signal, timeoutMs = 10_000, enable } = options;
    const endsMs = client.#clock.nowMs() + timeoutMs;
    const limit = (): QmpWaitOptions => ({
      timeoutMs: Math.max(0, endsMs - client.#clock.nowMs()),
      ...(signal === undefined ? {} : { signal }),
    });
    try {
      await client.#wait(
        client.#greeted.promise,
        limit(),
        'no QMP greeting came: is this a QMP socket, and does no other client hold it?',
      );
      const args = enable === undefined ? {} : { enable };
      await client.#request('qmp_capabilities', args, limit());
      return client;
    } catch (error) {
      client.#fail(
        error instanceof QmpError
          ? error
          : new QmpError('PROTOCOL', String(error), { cause: error }),
      );
      throw error;
    }
  }

  /** What the server told of itself. */
  get greeting(): QmpGreeting {
    return this.#greeting!;
  }

  /** Resolves, never rejects, with the reason once the connection has ended. */
  get closed(): Promise<QmpError> {
    return this.#closed.promise;
  }

  /**
   * Executes a command and resolves to what it returns.
   *
   * @throws QmpCommandError when the server refuses; QmpError `CONNECTION_CLOSED`, `TIMEOUT`,
   *   `ABORTED`: the command may then still be executed
   */
  execute<N extends QmpCommandName<S>>(
    name: N,
    ...[args, options]: QmpExecuteParameters<S, N>
  ): Promise<QmpReply<S, N>> {
    return this.#request(name, args, options ?? {}) as Promise<QmpReply<S, N>>;
  }

  /**
   * Calls the listener for each event of a name, or for all with `'event'`.
   *
   * @returns what removes the listener
   */
  on<N extends QmpEventName<S> | 'event'>(
    name: N,
    listener: (event: QmpEventOf<S, N>) => void,
  ): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners);
    const added: Listener = (event) => listener(event as QmpEventOf<S, N>);
    listeners.add(added);
    return () => {
      listeners.delete(added);
    };
  }

  /**
   * Iterates over the events from now on, those of one name or all. The loop ends when this client
   * closes, and throws `CONNECTION_CLOSED` when the connection is lost.
   */
  events<N extends QmpEventName<S> | 'event' = 'event'>(
    name?: N,
  ): AsyncIterableIterator<QmpEventOf<S, N>> {
    const remove: { listener?: () => void } = {};
    const iterator = new EventIterator<QmpEvent>((ended) => {
      remove.listener?.();
      this.#iterators.delete(ended);
    });
    if (this.#error !== undefined) {
      iterator.end(this.#error);
    } else {
      remove.listener = this.on(name ?? 'event', (event) => iterator.push(event));
      this.#iterators.add(iterator);
    }
    return iterator as AsyncIterableIterator<QmpEventOf<S, N>>;
  }

  /**
   * Waits for the next event of a name that the predicate accepts. Events before the call do not
   * count: call it before the command that causes the event.
   *
   * @throws QmpError `CONNECTION_CLOSED`, `TIMEOUT` or `ABORTED`
   */
  async waitForEvent<N extends QmpEventName<S>>(
    name: N,
    predicate: (event: QmpEventOf<S, N>) => boolean = () => true,
    options: QmpWaitOptions = {},
  ): Promise<QmpEventOf<S, N>> {
    if (this.#error !== undefined) throw this.#error;
    const found = Promise.withResolvers<QmpEventOf<S, N>>();
    const remove = this.on(name, (event) => {
      const matching = event as QmpEventOf<S, N>;
      try {
        if (predicate(matching)) found.resolve(matching);
      } catch (error) {
        found.reject(error);
      }
    });
    this.#waiters.add(found.reject);
    try {
      return await this.#wait(found.promise, options, `no event ${name} came`);
    } finally {
      this.#waiters.delete(found.reject);
      remove();
    }
  }

  /** Ends the connection; what is pending rejects with `CONNECTION_CLOSED`. */
  close(): void {
    this.#end(new QmpError('CONNECTION_CLOSED', 'the QMP connection was closed here'), true);
  }

  #request(name: string, args: unknown, options: QmpExecuteOptions): Promise<unknown> {
    if (this.#error !== undefined) return Promise.reject(this.#error);
    if (options.signal?.aborted === true) {
      const cause = options.signal.reason;
      return Promise.reject(new QmpError('ABORTED', `${name} was aborted, not sent`, { cause }));
    }
    const id = this.#nextId++;
    let text: string;
    try {
      text = toJsonText({
        [options.oob === true ? 'exec-oob' : 'execute']: name,
        arguments: args,
        id,
      });
    } catch (error) {
      return Promise.reject(error);
    }
    const reply = Promise.withResolvers<unknown>();
    this.#pending.set(id, reply);
    this.#channel.send(`${text}\n`);
    const wait = this.#wait(reply.promise, options, `no reply to ${name} came`);
    return wait.finally(() => this.#pending.delete(id));
  }

  async #wait<T>(promise: Promise<T>, options: QmpWaitOptions, what: string): Promise<T> {
    const { signal, timeoutMs } = options;
    if (signal === undefined && timeoutMs === undefined) return promise;
    const limit = Promise.withResolvers<never>();
    const onAbort = () =>
      limit.reject(
        new QmpError('ABORTED', `${what}: the wait was aborted`, { cause: signal?.reason }),
      );
    const cancel =
      timeoutMs === undefined
        ? undefined
        : this.#clock.setTimer(timeoutMs, () =>
            limit.reject(new QmpError('TIMEOUT', `${what} within ${timeoutMs} ms`)),
          );
    signal?.addEventListener('abort', onAbort, { once: true });
    if (signal?.aborted === true) onAbort();
    try {
      return await Promise.race([promise, limit.promise]);
    } finally {
      cancel?.();
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #receive(chunk: Uint8Array | string): void {
    if (this.#error !== undefined) return;
    this.#input.push(chunk);
    for (;;) {
      if (this.#error !== undefined) return;
      const item = this.#input.next();
      if (item === undefined) return;
      if (item.kind === 'error') {
        this.#refuse(item.message, item.offset, 'JSON', item.message);
      } else {
        this.#message(item.value, item.offset);
      }
    }
  }

  #message(message: unknown, offset: number): void {
    if (!isJsonObject(message)) {
      this.#refuse('a message is no object', offset, 'an object', excerpt(message));
    } else if (this.#greeting === undefined && typeof message['event'] === 'string') {
      // QEMU before 10.0 can emit one to a client that connects while it starts.
    } else if (this.#greeting === undefined) {
      this.#greet(message, offset);
    } else if (typeof message['event'] === 'string') {
      this.#event(message as unknown as QmpEvent);
    } else if ('return' in message || isJsonObject(message['error'])) {
      this.#reply(message, offset);
    } else {
      const expected = "an object with 'return', 'error' or 'event'";
      this.#refuse('a message is neither reply nor event', offset, expected, excerpt(message));
    }
  }

  #greet(message: Record<string, unknown>, offset: number): void {
    const greeting = message['QMP'];
    if (
      !isJsonObject(greeting) ||
      !isJsonObject(greeting['version']) ||
      !Array.isArray(greeting['capabilities'])
    ) {
      const cause = 'the first message is no QMP greeting: this may be another protocol';
      this.#refuse(cause, offset, "{'QMP': {'version', 'capabilities'}}", excerpt(message));
      return;
    }
    this.#greeting = greeting as unknown as QmpGreeting;
    this.#greeted.resolve(this.#greeting);
  }

  #reply(message: Record<string, unknown>, offset: number): void {
    const { id, error } = message;
    if (id === undefined) {
      const cause = 'a reply without an id: the server could not read what was sent';
      this.#refuse(cause, offset, 'a reply with an id', excerpt(message));
      return;
    }
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    // QMP's specification: replies with an unknown id are dropped. Here it timed out or was aborted.
    if (pending === undefined) return;
    if (isJsonObject(error)) {
      pending.reject(new QmpCommandError(String(error['class']), String(error['desc'])));
    } else {
      pending.resolve(message['return']);
    }
  }

  #event(event: QmpEvent): void {
    const complete = event.data === undefined ? { ...event, data: {} } : event;
    for (const name of [event.event, 'event']) {
      for (const listener of [...(this.#listeners.get(name) ?? [])]) {
        try {
          listener(complete);
        } catch (error) {
          // The listener's own fault, and no reason to stop reading: reported as uncaught.
          queueMicrotask(() => {
            throw error;
          });
        }
      }
    }
  }

  #refuse(what: string, offset: number, expected: string, found: string): void {
    const text = `${what} (at byte ${offset}: expected ${expected}, found ${found})`;
    this.#fail(new QmpError('PROTOCOL', text, { offset, expected, found }));
  }

  #fail(error: QmpError): void {
    this.#end(error, false);
  }

  #end(error: QmpError, isGraceful: boolean): void {
    if (this.#error !== undefined) return;
    this.#error = error;
    this.#channel.close();
    this.#greeted.reject(error);
    for (const pending of [...this.#pending.values()]) pending.reject(error);
    for (const reject of [...this.#waiters]) reject(error);
    for (const iterator of [...this.#iterators]) iterator.end(isGraceful ? undefined : error);
    this.#closed.resolve(error);
  }
}

function connectionClosed(error: Error | undefined): QmpError {
  const why =
    error === undefined ? 'the server, or the process behind it, ended it' : error.message;
  return new QmpError('CONNECTION_CLOSED', `the QMP connection was lost: ${why}`, { cause: error });
}
