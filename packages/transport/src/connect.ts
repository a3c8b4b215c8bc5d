import { fstatSync } from 'node:fs';
import { connect as connectSocket, Socket, type SocketConnectOpts } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Transport } from '@wherry/migration';
import { CommandTransport } from './command-transport.ts';
import { type Direction, FileTransport, openFileTransport } from './file-transport.ts';
import {
  type ExecUri,
  type FdUri,
  type FileUri,
  formatUri,
  type MigrationUri,
  parseUri,
  type TcpUri,
  type UnixUri,
} from './migration-uri.ts';
import { SocketReader } from './socket-reader.ts';
import { describeFor, SocketTransport } from './socket-transport.ts';
import { type ConnectTls, connectTls } from './tls-client.ts';
import { tlsError } from './tls-error.ts';
import { tlsTransport } from './tls-transport.ts';
import { fromSystemError, TransportError } from './transport-error.ts';
import { type WaitOptions, wait } from './waiting.ts';

/** Options of {@link connect}. */
export interface ConnectOptions extends WaitOptions {
  /** Speaks TLS over the connection; for tcp and unix. */
  readonly tls?: ConnectTls | undefined;
}

/**
 * Opens the outgoing end of a channel: connects a socket, starts the command, or creates the file.
 *
 * @param uri as `migrate` takes it, or parsed
 * @returns the connection, owned by the caller: `end` or `destroy` frees it
 * @throws TransportError when it cannot be opened; the codes say why
 */
export async function connect(
  uri: string | MigrationUri,
  options: ConnectOptions = {},
): Promise<Transport> {
  const parsed = typeof uri === 'string' ? parseUri(uri) : uri;
  if (parsed.kind !== 'tcp' && parsed.kind !== 'unix') {
    if (options.tls !== undefined) throw noTls(parsed);
    return open(parsed, 'outgoing', options);
  }
  if (parsed.kind === 'tcp' && (parsed.port === 0 || parsed.toPort !== undefined)) {
    throw new TransportError('BAD_URI', 'A tcp URI to connect to names one port', {
      found: formatUri(parsed),
      likely: 'Port 0 and to= are for the side that listens',
    });
  }
  return connectStream(parsed, options);
}

/** Makes the refusal of TLS where there is no socket to speak it over. */
export function noTls(uri: MigrationUri): TransportError {
  return tlsError(
    `${formatUri(uri)} cannot carry TLS`,
    'Use tcp: or unix:, or leave tls-creds away',
  );
}

function connectStream(uri: TcpUri | UnixUri, options: ConnectOptions): Promise<Transport> {
  const place = formatUri(uri);
  const { tls } = options;
  if (tls !== undefined) {
    const host = uri.kind === 'tcp' ? uri.host || 'localhost' : undefined;
    return wait(`Connecting to ${place}`, options, (resolve, reject) => {
      const accept = (socket: TLSSocket, raw: Socket): void => {
        if (uri.kind === 'tcp') raw.setNoDelay().setKeepAlive(uri.keepAlive === true);
        resolve(tlsTransport(socket, raw, place));
      };
      return connectTls(address(uri), host, tls, place, accept, reject);
    });
  }
  return wait(`Connecting to ${place}`, options, (resolve, reject) => {
    const reader = new SocketReader(describeFor(place));
    const options: SocketConnectOpts = address(uri);
    const socket = connectSocket({ ...options, onread: reader.onread, allowHalfOpen: true });
    const onError = (error: Error): void => reject(describeFor(place)(error));
    socket.once('error', onError);
    socket.once('connect', () => {
      socket.off('error', onError);
      if (uri.kind === 'tcp') socket.setNoDelay().setKeepAlive(uri.keepAlive === true);
      resolve(new SocketTransport(socket, reader, place));
    });
    return () => {
      socket.on('error', () => {});
      socket.destroy();
    };
  });
}

function address(uri: TcpUri | UnixUri): SocketConnectOpts {
  if (uri.kind === 'unix') return { path: uri.path };
  const { port, family = 0 } = uri;
  const host = uri.host === '' ? 'localhost' : uri.host;
  return { host, port, family };
}

/** Opens a channel that has no address to meet at, in either direction. */
export function open(
  uri: ExecUri | FdUri | FileUri,
  direction: Direction,
  options: WaitOptions,
): Promise<Transport> {
  return wait<Transport>(`Opening ${formatUri(uri)}`, options, (resolve, reject) => {
    let isGivenUp = false;
    openNow(uri, direction).then((transport) => {
      if (isGivenUp) transport.destroy();
      else resolve(transport);
    }, reject);
    return () => {
      isGivenUp = true;
    };
  });
}

async function openNow(uri: ExecUri | FdUri | FileUri, direction: Direction): Promise<Transport> {
  if (uri.kind === 'exec') return new CommandTransport(uri.command);
  if (uri.kind === 'file') return openFileTransport(uri.path, uri.offset, direction);
  const place = formatUri(uri);
  try {
    const stat = fstatSync(uri.fd);
    if (stat.isFile()) return new FileTransport(uri.fd, place, direction);
    if (!stat.isSocket() && !stat.isFIFO()) {
      throw new TransportError('UNSUPPORTED', `${place} is no socket, pipe or file`);
    }
    const reader = new SocketReader(describeFor(place));
    const options = { fd: uri.fd, readable: true, writable: true, allowHalfOpen: true };
    const socket = new Socket({ ...options, onread: reader.onread, manualStart: true } as object);
    socket.setNoDelay();
    return new SocketTransport(socket, reader, place);
  } catch (error) {
    throw fromSystemError(error, place, 'IO_ERROR');
  }
}
