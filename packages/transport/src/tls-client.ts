import { connect as connectSocket, isIP, type Socket, type SocketConnectOpts } from 'node:net';
import { type ConnectionOptions, checkServerIdentity, connect, type TLSSocket } from 'node:tls';
import type { TlsCredentials } from './tls-credentials.ts';
import { describeTlsFor, hungUp, tlsError } from './tls-error.ts';
import type { TransportError } from './transport-error.ts';

/** TLS on an outgoing connection. */
export interface ConnectTls {
  /** For the endpoint `client`. */
  readonly credentials: TlsCredentials;
  /** The name that the other side's certificate must have, in place of the host in the URI. */
  readonly hostname?: string | undefined;
}

/**
 * Connects with TLS.
 *
 * @param where the address
 * @param host the host that the URI names, where it names one
 * @returns how to give it up
 */
export function connectTls(
  where: SocketConnectOpts,
  host: string | undefined,
  tls: ConnectTls,
  place: string,
  resolve: (socket: TLSSocket, raw: Socket) => void,
  reject: (reason: Error) => void,
): () => void {
  const options = optionsOf(host, tls, place);
  const raw = connectSocket({ ...where, allowHalfOpen: true });
  const socket = connect({ ...options, socket: raw });
  let isConnected = false;
  const onError = (error: NodeJS.ErrnoException): void => {
    const isLost = isConnected && error.code === 'ECONNRESET';
    reject(isLost ? hungUp(place, error) : describeTlsFor(place)(error));
  };
  raw.once('connect', () => {
    isConnected = true;
  });
  socket.once('error', onError);
  socket.once('secureConnect', () => {
    socket.off('error', onError);
    resolve(socket, raw);
  });
  return () => {
    socket.on('error', () => {});
    socket.destroy();
    raw.destroy();
  };
}

/** @throws TransportError `TLS_FAILED` when no name is known that a certificate could be checked against */
function optionsOf(
  host: string | undefined,
  { credentials, hostname = host }: ConnectTls,
  place: string,
): ConnectionOptions {
  const { kind, context, keys, username, verifyPeer } = credentials;
  if (credentials.endpoint !== 'client') throw wrongEndpoint('client', credentials);
  if (kind === 'psk') {
    const psk = keys.get(username)!; // loading has checked it
    return {
      ...context,
      pskCallback: () => ({ psk, identity: username }),
      checkServerIdentity: () => undefined,
    };
  }
  if (!verifyPeer) return { ...context, rejectUnauthorized: false };
  if (hostname === undefined || hostname === '') {
    throw tlsError(
      `No host name is known for the certificate of ${place}`,
      'Set tls-hostname to a name in the certificate of the destination',
    );
  }
  return {
    ...context,
    checkServerIdentity: (_, certificate) => checkServerIdentity(hostname, certificate),
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
  };
}

/** Makes the error of credentials that are for the other side. */
export function wrongEndpoint(
  needed: 'client' | 'server',
  { endpoint, dir }: TlsCredentials,
): TransportError {
  return tlsError(
    `The TLS credentials ${dir} are for a ${endpoint}`,
    `Who ${needed === 'client' ? 'connects' : 'listens'} needs endpoint=${needed}`,
  );
}
