import { lookup } from 'node:dns/promises';
import { lstat, unlink } from 'node:fs/promises';
import {
  type AddressInfo,
  connect,
  createServer,
  isIP,
  type ListenOptions,
  type Server,
} from 'node:net';
import type { Transport } from '@wherry/migration';
import { AcceptQueue } from './accept-queue.ts';
import { noTls, open } from './connect.ts';
import {
  formatUri,
  type MigrationUri,
  parseUri,
  type TcpUri,
  type UnixUri,
} from './migration-uri.ts';
import { SocketReader } from './socket-reader.ts';
import { adoptSocket, describeFor, SocketTransport } from './socket-transport.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { TlsAcceptor } from './tls-server.ts';
import { tlsTransport } from './tls-transport.ts';
import { TransportError } from './transport-error.ts';
import { wait } from './waiting.ts';

/** The incoming end of a channel. */
export interface Listener {
  /** Where it listens: the URI that was asked for, with the port that it got. */
  readonly uri: string;
  /**
   * Waits for the next connection, in the order in which they came. It belongs to the caller.
   *
   * @throws TransportError `ABORTED` by the signal or by `close`; `UNSUPPORTED` for a second one of
   *   exec, fd or file; `TLS_FAILED` when a handshake failed while it waited: another accept goes on
   */
  accept(options?: { readonly signal?: AbortSignal | undefined }): Promise<Transport>;
  /** Stops listening, drops connections that nobody has accepted, removes a unix socket. Idempotent. */
  close(): Promise<void>;
}

/** Options of {@link listen}. */
export interface ListenerOptions {
  /** Closes the listener. */
  readonly signal?: AbortSignal | undefined;
  /** Speaks TLS over the connections, with credentials for the endpoint `server`; for tcp and unix. */
  readonly tls?: TlsCredentials | undefined;
}

/**
 * Opens the incoming end of a channel: listens on a socket, starts the command, or opens the file.
 *
 * @param uri as `-incoming` takes it, or parsed
 * @returns a listener, owned by the caller: `close` frees it
 * @throws TransportError when it cannot be opened; the codes say why
 */
export async function listen(
  uri: string | MigrationUri,
  options: ListenerOptions = {},
): Promise<Listener> {
  const { signal, tls } = options;
  const parsed = typeof uri === 'string' ? parseUri(uri) : uri;
  const isSocket = parsed.kind === 'tcp' || parsed.kind === 'unix';
  if (!isSocket && tls !== undefined) throw noTls(parsed);
  const listener = isSocket
    ? await listenOnSocket(parsed, signal, tls)
    : offerOne(formatUri(parsed), await open(parsed, 'incoming', { signal }));
  const onAbort = (): void => void listener.close();
  signal?.addEventListener('abort', onAbort, { once: true });
  const close = (): Promise<void> => {
    signal?.removeEventListener('abort', onAbort);
    return listener.close();
  };
  return { ...listener, close };
}

function offerOne(uri: string, transport: Transport): Listener {
  const queue = new AcceptQueue(uri);
  queue.push(transport);
  queue.seal(new TransportError('UNSUPPORTED', `${uri} gives one connection, which is taken`));
  return {
    uri,
    accept: ({ signal } = {}) => queue.take(signal),
    close: async () => queue.close(),
  };
}

async function listenOnSocket(
  uri: TcpUri | UnixUri,
  signal: AbortSignal | undefined,
  tls: TlsCredentials | undefined,
): Promise<Listener> {
  const place = formatUri(uri);
  const queue = new AcceptQueue(place);
  let bound = place;
  const acceptor =
    tls === undefined
      ? undefined
      : new TlsAcceptor(tls, {
          place: () => bound,
          onSecure: (secure, raw) => queue.push(tlsTransport(secure, raw, bound)),
          onFail: (reason) => queue.fail(reason),
        });
  const server = createServer({
    pauseOnConnect: true,
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: uri.kind === 'tcp' && uri.keepAlive === true,
  });
  server.on('connection', (raw) => {
    if (acceptor !== undefined) {
      acceptor.accept(adoptSocket(raw));
      return;
    }
    const reader = new SocketReader(describeFor(bound));
    queue.push(new SocketTransport(adoptSocket(raw, reader), reader, bound));
  });
  if (uri.kind === 'tcp') await listenOnPort(server, uri, signal);
  else await listenOnPath(server, uri, signal);
  bound = boundPlace(uri, server);
  server.on('error', (error) => queue.fail(describeFor(place)(error)));

  let closing: Promise<void> | undefined;
  return {
    uri: bound,
    accept: ({ signal } = {}) => queue.take(signal),
    close: () => {
      closing ??= new Promise((resolve) => {
        server.close(() => resolve());
        queue.close();
        acceptor?.close();
      });
      return closing;
    },
  };
}

/** The URI that was asked for, with the port that it got. */
function boundPlace(uri: TcpUri | UnixUri, server: Server): string {
  if (uri.kind === 'unix') return formatUri(uri);
  const { toPort: _, ...rest } = uri;
  return formatUri({ ...rest, port: (server.address() as AddressInfo).port });
}

async function listenOnPort(
  server: Server,
  uri: TcpUri,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { port: first, toPort = first, family } = uri;
  const place = formatUri(uri);
  const where: ListenOptions = {};
  if (uri.host !== '') where.host = await resolveHost(uri.host, family, place);
  else if (family !== undefined) {
    where.host = family === 4 ? '0.0.0.0' : '::';
    where.ipv6Only = family === 6;
  }
  for (let port = first; ; port++) {
    try {
      return await startListening(server, { ...where, port }, place, signal);
    } catch (error) {
      if (port >= toPort || (error as TransportError).code !== 'ADDRESS_IN_USE') throw error;
    }
  }
}

async function resolveHost(
  host: string,
  family: 4 | 6 | undefined,
  place: string,
): Promise<string> {
  if (isIP(host) === (family ?? isIP(host)) && isIP(host) !== 0) return host;
  try {
    return (await lookup(host, { family: family ?? 0 })).address;
  } catch (error) {
    throw describeFor(place)(error);
  }
}

async function listenOnPath(
  server: Server,
  uri: UnixUri,
  signal: AbortSignal | undefined,
): Promise<void> {
  const place = formatUri(uri);
  try {
    await startListening(server, { path: uri.path }, place, signal);
  } catch (error) {
    if ((error as TransportError).code !== 'ADDRESS_IN_USE' || !(await isStale(uri.path))) {
      throw error;
    }
    await unlink(uri.path);
    await startListening(server, { path: uri.path }, place, signal);
  }
}

/** Whether a path is a socket that a process left behind: nobody answers there. */
async function isStale(path: string): Promise<boolean> {
  // Connecting to a file that is no socket is refused just the same, and that file must stay.
  const stat = await lstat(path).catch(() => undefined);
  if (stat?.isSocket() !== true) return false;
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
}

function startListening(
  server: Server,
  where: ListenOptions,
  place: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  return wait<void>(`Listening on ${place}`, { signal }, (resolve, reject) => {
    const onError = (error: Error): void => {
      server.off('listening', onListening);
      reject(describeFor(place)(error));
    };
    const onListening = (): void => {
      server.off('error', onError);
      resolve();
    };
    server.once('error', onError).once('listening', onListening).listen(where);
    return () => {
      server.close();
    };
  });
}
