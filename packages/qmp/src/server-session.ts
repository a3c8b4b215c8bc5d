import type { QmpChannel } from './channel.ts';
import type { QmpCapability } from './control-schema.ts';
import { JsonStream } from './json-stream.ts';
import { isJsonObject, toJsonText } from './json-value.ts';
import { QmpCommandError } from './qmp-error.ts';

/** Why a server let go of a client. */
export type QmpDisconnectReason =
  /** The client, or the connection, ended. */
  | 'closed'
  /** The server was closed. */
  | 'server-closed'
  /** The client sent too much while its commands were waiting. */
  | 'input-overflow'
  /** The client did not read what was sent to it. */
  | 'output-overflow';

/** Bounds of what one client can make the server hold. */
export interface QmpServerLimits {
  /** Commands read ahead when out-of-band execution is enabled; 8 unless told. Without it, none. */
  readonly maxQueuedCommands?: number;
  /** Bytes received and not yet parsed while the queue is full; 1 MiB unless told. */
  readonly maxPendingInputBytes?: number;
  /** Bytes sent and not yet taken by the client, then it is dropped; 16 MiB unless told. */
  readonly maxPendingOutputBytes?: number;
  /** One message's bytes; 16 MiB unless told. */
  readonly maxMessageBytes?: number;
}

/** One request, checked as far as it can be without the command's schema. */
export interface QmpRequest {
  readonly command: string;
  readonly args: unknown;
  readonly isOob: boolean;
}

/** What a session needs of its server. */
export interface SessionHost {
  readonly offered: readonly QmpCapability[];
  readonly greeting: unknown;
  /** Executes a command; rejects with what becomes the error reply. */
  execute(
    session: ServerSession,
    request: QmpRequest,
    afterReply: (callback: () => void) => void,
  ): Promise<unknown>;
  disconnected(session: ServerSession, reason: QmpDisconnectReason, error?: Error): void;
}

type Job = { readonly request: unknown } | { readonly error: string };

/** An error's text may quote the input: enough of it to be recognised, no echo of megabytes. */
const MAX_DESC_LENGTH = 4096;

/** After so many requests everything else gets its turn, however many more have arrived. */
const TURN_LENGTH = 64;

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve);
  });
}

function asQmpError(error: unknown): QmpCommandError {
  if (error instanceof QmpCommandError) return error;
  return new QmpCommandError(
    'GenericError',
    error instanceof Error ? error.message : String(error),
  );
}

/**
 * Checks the shape of a request.
 *
 * @throws QmpCommandError with QEMU's text
 * @see QEMU qapi/qmp-dispatch.c qmp_dispatch_check_obj
 */
function readRequest(value: unknown, oobEnabled: boolean): QmpRequest {
  const refuse = (desc: string): never => {
    throw new QmpCommandError('GenericError', desc);
  };
  if (!isJsonObject(value)) return refuse('QMP input must be a JSON object');
  let executeKey: string | undefined;
  for (const [key, member] of Object.entries(value)) {
    if (key === 'execute' || (key === 'exec-oob' && oobEnabled)) {
      if (typeof member !== 'string') refuse(`QMP input member '${key}' must be a string`);
      if (executeKey !== undefined) {
        refuse("QMP input member 'execute' clashes with 'exec-oob'");
      }
      executeKey = key;
    } else if (key === 'arguments') {
      if (!isJsonObject(member)) refuse("QMP input member 'arguments' must be an object");
    } else if (key !== 'id') {
      refuse(`QMP input member '${key}' is unexpected`);
    }
  }
  if (executeKey === undefined) return refuse("QMP input lacks member 'execute'");
  return {
    command: value[executeKey] as string,
    args: value['arguments'] ?? {},
    isOob: executeKey === 'exec-oob',
  };
}

/** Is one client of a server: reads requests, has them executed in order, answers. */
export class ServerSession {
  readonly #channel: QmpChannel;
  readonly #host: SessionHost;
  readonly #input: JsonStream;
  readonly #maxQueuedCommands: number;
  readonly #maxPendingInputBytes: number;
  readonly #maxPendingOutputBytes: number;
  readonly #enabled = new Set<QmpCapability>();
  #queue: Job[] = [];
  #executed = 0;
  #running = false;
  #oobRunning = false;
  #pumping = false;
  #paused = false;
  #negotiated = false;
  #closed = false;

  constructor(channel: QmpChannel, host: SessionHost, limits: QmpServerLimits) {
    this.#channel = channel;
    this.#host = host;
    this.#maxQueuedCommands = limits.maxQueuedCommands ?? 8;
    this.#maxPendingInputBytes = limits.maxPendingInputBytes ?? 1 << 20;
    this.#maxPendingOutputBytes = limits.maxPendingOutputBytes ?? 16 << 20;
    this.#input = new JsonStream({
      keepDoubles: true,
      maxMessageBytes: limits.maxMessageBytes ?? 16 << 20,
    });
  }

  get isNegotiated(): boolean {
    return this.#negotiated;
  }

  start(): void {
    this.#channel.onClose((error) => this.#end('closed', error));
    this.#channel.onData((chunk) => {
      if (this.#closed) return;
      this.#input.push(chunk);
      this.#pump();
    });
    this.send(this.#host.greeting);
  }

  /** Leaves negotiation mode with these capabilities. @throws QmpCommandError as QEMU does */
  negotiate(enable: readonly QmpCapability[]): void {
    if (this.#negotiated) {
      throw new QmpCommandError(
        'CommandNotFound',
        'Capabilities negotiation is already complete, command ignored',
      );
    }
    const missing = enable.filter((capability) => !this.#host.offered.includes(capability));
    if (missing.length > 0) {
      throw new QmpCommandError('GenericError', `Capability ${missing.join(', ')} not available`);
    }
    for (const capability of enable) this.#enabled.add(capability);
    this.#negotiated = true;
  }

  /** Sends one message; drops the client when it has left too many unread. */
  send(message: unknown): void {
    this.#sendText(toJsonText(message));
  }

  close(): void {
    if (this.#closed) return;
    this.#channel.close();
    this.#end('server-closed');
  }

  #sendText(text: string): void {
    if (this.#closed) return;
    if ((this.#channel.bufferedBytes ?? 0) > this.#maxPendingOutputBytes) {
      this.#drop('output-overflow');
      return;
    }
    this.#channel.send(`${text}\r\n`);
  }

  #drop(reason: QmpDisconnectReason): void {
    if (this.#channel.abort === undefined) this.#channel.close();
    else this.#channel.abort();
    this.#end(reason);
  }

  #end(reason: QmpDisconnectReason, error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#queue = [];
    this.#host.disconnected(this, reason, error);
  }

  get #oobEnabled(): boolean {
    return this.#enabled.has('oob');
  }

  /** Tells whether one more request may be read: QEMU's rule, see monitor/qmp.c. */
  #hasRoom(): boolean {
    if (this.#oobRunning) return false;
    if (this.#oobEnabled) return this.#queue.length < this.#maxQueuedCommands;
    return !this.#running && this.#queue.length === 0;
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#closed && this.#hasRoom()) {
      const item = this.#input.next();
      if (item === undefined) break;
      if (item.kind === 'error') {
        this.#queue.push({ error: item.message });
      } else if (this.#looksOob(item.value)) {
        void this.#runOob(item.value);
        continue;
      } else {
        this.#queue.push({ request: item.value });
      }
      void this.#runQueue();
    }
    this.#pumping = false;
    this.#holdInput();
  }

  #looksOob(value: unknown): boolean {
    return (
      isJsonObject(value) && Object.hasOwn(value, 'exec-oob') && !Object.hasOwn(value, 'execute')
    );
  }

  /** Stops reading while there is no room, and lets go of a client that floods all the same. */
  #holdInput(): void {
    if (this.#closed) return;
    const isBlocked = !this.#hasRoom();
    if (isBlocked && this.#input.pendingBytes > this.#maxPendingInputBytes) {
      this.#drop('input-overflow');
    } else if (isBlocked !== this.#paused) {
      this.#paused = isBlocked;
      if (isBlocked) this.#channel.pause?.();
      else this.#channel.resume?.();
    }
  }

  async #runQueue(): Promise<void> {
    if (this.#running) return;
    const job = this.#queue.shift();
    if (job === undefined) return;
    this.#running = true;
    await this.#run(job);
    this.#running = false;
    void this.#runQueue();
    this.#pump();
  }

  async #runOob(request: unknown): Promise<void> {
    this.#oobRunning = true;
    await this.#run({ request });
    this.#oobRunning = false;
    this.#pump();
  }

  /** Executes and answers one job; never rejects. */
  async #run(job: Job): Promise<void> {
    let id: unknown;
    const afterReply: (() => void)[] = [];
    try {
      if ('error' in job) throw new QmpCommandError('GenericError', job.error);
      if (isJsonObject(job.request)) id = job.request['id'];
      const request = readRequest(job.request, this.#oobEnabled);
      const value = await this.#host.execute(this, request, (callback) => {
        afterReply.push(callback);
      });
      this.#sendText(toJsonText({ return: value === undefined ? {} : value, id }));
    } catch (error) {
      const { qmpClass, desc } = asQmpError(error);
      const shown = { class: qmpClass, desc: desc.slice(0, MAX_DESC_LENGTH) };
      this.#sendText(toJsonText({ error: shown, id }));
    }
    for (const callback of afterReply) queueMicrotask(callback);
    if (++this.#executed % TURN_LENGTH === 0) await nextTurn();
  }
}
