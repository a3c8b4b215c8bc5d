import { Worker } from 'node:worker_threads';
import {
  type Capabilities,
  checkMultifdInit,
  MigrationError,
  type MultifdReceivePort,
  type MultifdSendPort,
  type Parameters,
  type Transport,
  withPrefix,
} from '@wherry/migration';
import { GuestRam, PacketPages } from '@wherry/page-engine';
import { MULTIFD_INIT_BYTES, MULTIFD_MAGIC } from '@wherry/stream';
import { type ConnectTls, connect, giveAway, type Listener } from '@wherry/transport';
import {
  type ChannelCall,
  type ChannelInit,
  type ChannelReply,
  fromPlainError,
  toPlainError,
} from './multifd-messages.ts';
import { receiveChannel } from './multifd-receive-channel.ts';

/** How long a source may take to make its other connections once the first is there. */
const ALL_CHANNELS_MS = 10_000;
/** Connections that may leave open what they are. */
const MAX_SILENT = 64;

/** What the channels of one migration have in common. */
export interface MultifdSettings {
  readonly ram: GuestRam;
  readonly uuid: string;
  readonly parameters: Parameters;
}

/** Whether a migration has channels besides its stream: a file has a place for each page instead. */
export function usesChannels(capabilities: Capabilities): boolean {
  return capabilities.has('multifd') && !capabilities.has('mapped-ram');
}

/** A channel's thread, and the calls that it has not answered. */
class ChannelThread {
  readonly #id: number;
  readonly #worker: Worker;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  #lastCall = 0;
  #failure: MigrationError | undefined;
  readonly #started: Promise<unknown>;

  constructor(init: ChannelInit) {
    this.#id = init.id;
    this.#worker = new Worker(new URL('./multifd-thread.js', import.meta.url), {
      workerData: init,
    });
    this.#started = this.#await(0);
    this.#worker.on('message', (reply: ChannelReply) => {
      const call = this.#calls.get(reply.call);
      this.#calls.delete(reply.call);
      if ('error' in reply) call?.reject(fromPlainError(reply.error));
      else call?.resolve(reply.result);
    });
    this.#worker.on('error', (error) => this.#fail(error));
    this.#worker.on('exit', () => this.#fail(new Error('its thread has ended')));
  }

  /** Resolves once the channel has its connection. */
  async started(): Promise<this> {
    await this.#started;
    return this;
  }

  async call<T>(name: ChannelCall['name'], ...args: readonly unknown[]): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure;
    const call = ++this.#lastCall;
    const result = this.#await(call);
    this.#worker.postMessage({ call, name, args } satisfies ChannelCall);
    return (await result) as T;
  }

  /** Drops the channel, whatever it does, and ends the thread. */
  async destroy(reason: Error): Promise<void> {
    await this.call('destroy', toPlainError(reason, this.#id)).catch(() => {});
    await this.end();
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #await(call: number): Promise<unknown> {
    const waiting = Promise.withResolvers<unknown>();
    waiting.promise.catch(() => {}); // a caller may have given up
    this.#calls.set(call, waiting);
    return waiting.promise;
  }

  #fail(error: Error): void {
    this.#failure ??= fromPlainError(toPlainError(error, this.#id));
    for (const waiting of this.#calls.values()) waiting.reject(this.#failure);
    this.#calls.clear();
  }
}

/** The connections of an outgoing migration with multifd. */
interface SendChannels {
  readonly transport: Transport;
  readonly multifd: readonly MultifdSendPort[];
}

/**
 * Makes the connections of a source: the main one first, as releases before 8.0 take the first for it.
 *
 * @throws TransportError, MigrationError naming the channel that could not connect; nothing is left then
 */
export async function connectChannels(
  uri: string,
  settings: MultifdSettings,
  tls: ConnectTls | undefined,
  signal: AbortSignal,
): Promise<SendChannels> {
  const transport = await connect(uri, { signal, tls });
  try {
    return { transport, multifd: await openSendChannels(uri, settings, tls, signal) };
  } catch (error) {
    transport.destroy(error as Error);
    throw error;
  }
}

/**
 * Connects a source's channels, each on a thread of its own, once the main connection is there.
 *
 * @throws MigrationError naming the channel that could not connect; no thread is left then
 */
async function openSendChannels(
  uri: string,
  { ram, uuid, parameters }: MultifdSettings,
  tls: ConnectTls | undefined,
  signal: AbortSignal,
): Promise<readonly MultifdSendPort[]> {
  const compression = parameters['multifd-compression'];
  const threads = Array.from(
    { length: parameters['multifd-channels'] },
    (_, id) =>
      new ChannelThread({
        role: 'send',
        ram: ram.handle(),
        ...{ id, compression, uri, tls, uuid },
        findZeroPages: parameters['zero-page-detection'] === 'multifd',
        level: parameters[compression === 'zstd' ? 'multifd-zstd-level' : 'multifd-zlib-level'],
      }),
  );
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', onAbort);
  try {
    signal.throwIfAborted();
    await Promise.race([Promise.all(threads.map((thread) => thread.started())), aborted.promise]);
  } catch (error) {
    await Promise.all(threads.map((thread) => thread.end()));
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
  return threads.map((thread) => ({
    send: (list, packetNum) => thread.call('send', list, packetNum),
    sync: (packetNum) => thread.call('sync', packetNum),
    end: async () => {
      await thread.call('end').catch(() => {});
      await thread.end();
    },
    destroy: (reason) => thread.destroy(reason),
  }));
}

function receivePort(thread: ChannelThread): MultifdReceivePort {
  return {
    receive: () => thread.call('receive'),
    destroy: (reason) => thread.destroy(reason),
  };
}

/** The connections of an incoming migration with multifd. */
interface AcceptedChannels {
  readonly transport: Transport;
  readonly multifd: readonly MultifdReceivePort[];
}

/**
 * Accepts the connections of a migration with multifd, in whatever order they come: each says by its
 * first bytes what it is.
 *
 * @throws MigrationError `MULTIFD_INVALID` for a channel that does not belong to it, or where some are
 *   missing; no connection is left then
 * @see migration_ioc_process_incoming in QEMU's migration/migration.c
 */
export async function acceptChannels(
  listener: Listener,
  settings: MultifdSettings,
): Promise<AcceptedChannels> {
  const accepting = new AcceptedConnections(settings);
  const stop = new AbortController();
  const accept = async (): Promise<never> => {
    for (;;) accepting.take(await listener.accept({ signal: stop.signal }));
  };
  try {
    return await Promise.race([accepting.complete, accept()]);
  } catch (error) {
    await accepting.drop(error as Error);
    throw error;
  } finally {
    stop.abort();
    accepting.stop();
  }
}

class AcceptedConnections {
  readonly #settings: MultifdSettings;
  readonly #channels = new Map<number, MultifdReceivePort>();
  readonly #silent = new Set<Transport>();
  readonly #complete = Promise.withResolvers<AcceptedChannels>();
  #main: Transport | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(settings: MultifdSettings) {
    this.#settings = settings;
  }

  /** Resolves when the main connection and all channels are there. */
  get complete(): Promise<AcceptedChannels> {
    return this.#complete.promise;
  }

  get #expected(): number {
    return this.#settings.parameters['multifd-channels'];
  }

  /** Takes a connection of which nothing is known yet. */
  take(transport: Transport): void {
    if (this.#silent.size >= MAX_SILENT) {
      transport.destroy();
      return;
    }
    this.#silent.add(transport);
    this.#identify(transport).then(
      () => this.#silent.delete(transport),
      (error: Error) => {
        this.#silent.delete(transport);
        transport.destroy(error);
        // One that breaks before it has said what it is, is not missed.
        if (error instanceof MigrationError) this.#complete.reject(error);
      },
    );
  }

  /** Lets go of the connections that have not said what they are. */
  stop(): void {
    clearTimeout(this.#timer);
    for (const transport of this.#silent) transport.destroy();
  }

  async drop(reason: Error): Promise<void> {
    this.#main?.destroy(reason);
    await Promise.all([...this.#channels.values()].map((channel) => channel.destroy(reason)));
  }

  async #identify(transport: Transport): Promise<void> {
    const bytes = new Uint8Array(MULTIFD_INIT_BYTES);
    const magic = new DataView(bytes.buffer);
    let have = 0;
    while (have < 4 || (have < bytes.length && magic.getUint32(0) === MULTIFD_MAGIC)) {
      const count = await transport.read(bytes.subarray(have, have < 4 ? 4 : bytes.length));
      if (count === 0) {
        transport.destroy(); // it has said too little to be missed
        return;
      }
      have += count;
    }
    if (magic.getUint32(0) === MULTIFD_MAGIC) await this.#addChannel(transport, bytes);
    else if (this.#main === undefined) this.#main = withPrefix(transport, bytes.slice(0, have));
    else transport.destroy();
    this.#look();
  }

  async #addChannel(transport: Transport, bytes: Uint8Array): Promise<void> {
    const { ram, uuid, parameters } = this.#settings;
    const id = checkMultifdInit(bytes, { uuid, channels: this.#expected });
    const compression = parameters['multifd-compression'];
    // What TLS knows of a connection cannot go to another thread: it is read in this one.
    const own = parameters['tls-creds'] === '' ? undefined : await GuestRam.attach(ram.handle());
    if (this.#channels.has(id)) {
      throw new MigrationError('MULTIFD_INVALID', `multifd: received id '${id}' already setup'`, {
        path: ['multifd', 'initial packet'],
        likely: 'A second migration connects at the same time',
      });
    }
    if (own !== undefined) {
      this.#channels.set(
        id,
        receiveChannel({ pages: new PacketPages(own, id), id, transport, compression }),
      );
      return;
    }
    const init = { role: 'receive', ram: ram.handle(), id, compression } as const;
    const thread = new ChannelThread({ ...init, ...giveAway(transport) });
    this.#channels.set(id, receivePort(thread));
    await thread.started();
  }

  #look(): void {
    const main = this.#main;
    if (main === undefined || this.#channels.size < this.#expected) {
      this.#timer ??= setTimeout(() => this.#complete.reject(this.#missing()), ALL_CHANNELS_MS);
      return;
    }
    const channels = Array.from({ length: this.#expected }, (_, id) => this.#channels.get(id)!);
    this.#complete.resolve({ transport: main, multifd: channels });
  }

  #missing(): MigrationError {
    const main = this.#main === undefined ? 0 : 1;
    return new MigrationError(
      'MULTIFD_INVALID',
      `multifd: connections are missing after ${ALL_CHANNELS_MS / 1000} s`,
      {
        expected: `the main one and ${this.#expected} channels`,
        found: `${main} main, ${this.#channels.size} channels`,
        likely: 'Set the capability multifd and multifd-channels alike on both sides',
      },
    );
  }
}
