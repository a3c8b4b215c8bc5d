import type { QmpChannel } from './channel.ts';
import { type QmpClock, systemClock } from './clock.ts';
import { controlSchema, type QmpCapability, type VersionInfo } from './control-schema.ts';
import { QmpCommandError, QmpError } from './qmp-error.ts';
import {
  mergeSchemas,
  type QapiArguments,
  type QapiCommandName,
  type QapiEventData,
  type QapiEventName,
  type QapiHasReturn,
  type QapiReturn,
  type QapiSchema,
} from './schema.ts';
import { SchemaChecker } from './schema-check.ts';
import {
  type QmpDisconnectReason,
  type QmpRequest,
  type QmpServerLimits,
  ServerSession,
} from './server-session.ts';

/** What a handler learns besides its arguments. */
export interface QmpCommandContext {
  /** Executes ahead of the queue, because the client asked for it. */
  readonly isOob: boolean;
  /** Calls back once the reply has been handed to the channel, or the client has gone. */
  afterReply(callback: () => void): void;
}

/**
 * Handles one command. Its arguments are already checked. It refuses by throwing
 * {@link QmpCommandError}; anything else that it throws becomes a `GenericError`.
 */
export type QmpHandler<S, N> =
  QapiHasReturn<S, N> extends true
    ? (
        args: QapiArguments<S, N>,
        context: QmpCommandContext,
      ) => QapiReturn<S, N> | Promise<QapiReturn<S, N>>
    : (args: QapiArguments<S, N>, context: QmpCommandContext) => void | Promise<void>;

/** The handlers of a server; a command without one is unknown to its clients. */
export type QmpHandlers<S> = {
  readonly [N in Exclude<
    QapiCommandName<S>,
    keyof (typeof controlSchema)['commands']
  >]?: QmpHandler<S, N>;
};

export interface QmpServerOptions<S extends QapiSchema> {
  readonly schema: S;
  /** What the greeting and `query-version` tell. */
  readonly version: VersionInfo;
  readonly commands: QmpHandlers<S>;
  /** `['oob']` offers out-of-band execution; none unless told. */
  readonly capabilities?: readonly QmpCapability[];
  /** Stamps events; the machine's clock unless told. */
  readonly clock?: QmpClock;
  readonly limits?: QmpServerLimits;
  /** Tells of each client that has gone. */
  readonly onDisconnect?: (reason: QmpDisconnectReason, error?: Error) => void;
}

type AnyHandler = (args: Record<string, unknown>, context: QmpCommandContext) => unknown;

/**
 * Serves QMP to any number of clients, each with its own negotiation and its own order of commands.
 * Wrong input of any kind gets QEMU's error reply and reaches no handler.
 *
 * A client is served one command at a time, and its channel is paused meanwhile; with out-of-band
 * execution, once eight more wait. A client that does not read its replies and events is dropped at
 * {@link QmpServerLimits.maxPendingOutputBytes}.
 *
 * @see QEMU monitor/qmp.c, qapi/qmp-dispatch.c
 */
export class QmpServer<S extends QapiSchema> {
  readonly #checker: SchemaChecker;
  readonly #handlers = new Map<string, AnyHandler>();
  readonly #version: VersionInfo;
  readonly #capabilities: readonly QmpCapability[];
  readonly #clock: QmpClock;
  readonly #limits: QmpServerLimits;
  readonly #onDisconnect: ((reason: QmpDisconnectReason, error?: Error) => void) | undefined;
  readonly #sessions = new Set<ServerSession>();

  /** @throws QmpError `SCHEMA` when a handler has no command, or a type is not defined */
  constructor(options: QmpServerOptions<S>) {
    const schema: QapiSchema = options.schema;
    this.#checker = new SchemaChecker(mergeSchemas(schema, controlSchema));
    this.#version = options.version;
    this.#capabilities = options.capabilities ?? [];
    this.#clock = options.clock ?? systemClock;
    this.#limits = options.limits ?? {};
    this.#onDisconnect = options.onDisconnect;
    for (const [name, handler] of Object.entries(options.commands)) {
      if (Object.hasOwn(controlSchema.commands, name)) {
        throw new QmpError('SCHEMA', `the server itself answers '${name}': drop its handler`);
      }
      if (this.#checker.command(name) === undefined) {
        throw new QmpError('SCHEMA', `the schema has no command '${name}', but there is a handler`);
      }
      if (handler !== undefined) this.#handlers.set(name, handler as AnyHandler);
    }
    this.#handlers.set('query-version', () => this.#version);
    this.#handlers.set('query-commands', () =>
      ['qmp_capabilities', ...this.#handlers.keys()].map((name) => ({ name })),
    );
  }

  /** Counts the connected clients. */
  get clientCount(): number {
    return this.#sessions.size;
  }

  /** Takes over a new connection and greets it. */
  accept(channel: QmpChannel): void {
    const session = new ServerSession(
      channel,
      {
        offered: this.#capabilities,
        greeting: { QMP: { version: this.#version, capabilities: this.#capabilities } },
        execute: (client, request, afterReply) => this.#execute(client, request, afterReply),
        disconnected: (client, reason, error) => {
          this.#sessions.delete(client);
          this.#onDisconnect?.(reason, error);
        },
      },
      this.#limits,
    );
    this.#sessions.add(session);
    session.start();
  }

  /** Sends an event to every client that has negotiated. */
  emit<N extends QapiEventName<S>>(
    name: N,
    ...data: keyof QapiEventData<S, N> extends never ? [] : [QapiEventData<S, N>]
  ): void {
    const microseconds = Math.floor(this.#clock.nowMs() * 1000);
    const timestamp = {
      seconds: Math.floor(microseconds / 1_000_000),
      microseconds: microseconds % 1_000_000,
    };
    const message = { timestamp, event: name, data: data[0] };
    for (const session of [...this.#sessions]) {
      if (session.isNegotiated) session.send(message);
    }
  }

  /** Ends every connection after what is queued has been sent. */
  close(): void {
    for (const session of [...this.#sessions]) session.close();
  }

  async #execute(
    session: ServerSession,
    request: QmpRequest,
    afterReply: QmpCommandContext['afterReply'],
  ): Promise<unknown> {
    const { command: name, isOob } = request;
    const command = this.#checker.command(name);
    const handler =
      name === 'qmp_capabilities'
        ? (args: Record<string, unknown>) =>
            session.negotiate((args['enable'] ?? []) as QmpCapability[])
        : session.isNegotiated
          ? this.#handlers.get(name)
          : undefined;
    if (command === undefined || handler === undefined) {
      throw new QmpCommandError(
        'CommandNotFound',
        session.isNegotiated
          ? `The command ${name} has not been found`
          : "Expecting capabilities negotiation with 'qmp_capabilities'",
      );
    }
    if (isOob && command.allowOob !== true) {
      throw new QmpCommandError('GenericError', `The command ${name} does not support OOB`);
    }
    const args = this.#checker.arguments(command, request.args);
    return handler(args, { isOob, afterReply });
  }
}
