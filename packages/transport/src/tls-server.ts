import type { Socket } from 'node:net';
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { wrongEndpoint } from './tls-client.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { describeTlsFor, hungUp } from './tls-error.ts';

/** A connection that does not finish its handshake by then is dropped. */
const HANDSHAKE_MS = 30_000;

/** Who hears how handshakes end. */
export interface TlsAcceptorEvents {
  /** Where connections come from, for messages. */
  place(): string;
  /** Gets a connection whose peer was found good. */
  onSecure(secure: TLSSocket, raw: Socket): void;
  /** Hears why a peer was refused; not of those who said nothing at all. */
  onFail(reason: Error): void;
}

/** Does the server's part of the handshake on accepted connections. */
export class TlsAcceptor {
  readonly #options: TlsOptions;
  readonly #events: TlsAcceptorEvents;
  readonly #needsCertificate: boolean;
  readonly #handshakes = new Set<Socket>();

  /** @throws TransportError `TLS_FAILED` for credentials of a client */
  constructor(credentials: TlsCredentials, events: TlsAcceptorEvents) {
    const { kind, context, keys, verifyPeer } = credentials;
    if (credentials.endpoint !== 'server') throw wrongEndpoint('server', credentials);
    this.#events = events;
    this.#needsCertificate = kind === 'x509' && verifyPeer;
    const pskCallback = (_: TLSSocket, name: string): Uint8Array | null => keys.get(name) ?? null;
    this.#options = {
      ...context,
      handshakeTimeout: HANDSHAKE_MS,
      requestCert: this.#needsCertificate,
      rejectUnauthorized: false, // it would hang up without a reason
      ...(kind === 'psk' ? { pskCallback } : {}),
    };
  }

  /** Begins the handshake of a connection. */
  accept(socket: Socket): void {
    const { place, onSecure, onFail } = this.#events;
    const describe = describeTlsFor(place());
    this.#handshakes.add(socket);
    // A server that never listens, one a connection: it alone knows the verdict on the peer's
    // certificate, and a shared one would not tell which connection an error belongs to.
    const server = createServer(this.#options);
    server.once('secureConnection', (secure) => {
      this.#handshakes.delete(socket);
      const problem = this.#needsCertificate ? problemOf(secure) : undefined;
      if (problem === undefined) {
        onSecure(secure, socket);
        return;
      }
      secure.on('error', () => {});
      secure.destroySoon(); // the end of the handshake is not yet sent: only with it the client judges us
      onFail(describe(problem));
    });
    server.once('tlsClientError', (error: NodeJS.ErrnoException, secure) => {
      secure.on('error', () => {});
      secure.destroy();
      const isSilent = socket.bytesRead === 0 || error.code === 'ERR_TLS_HANDSHAKE_TIMEOUT';
      if (!this.#handshakes.delete(socket) || isSilent) return;
      onFail(error.code === 'ECONNRESET' ? hungUp(place(), error) : describe(error));
    });
    server.emit('connection', socket);
  }

  /** Drops the connections whose handshake is under way. */
  close(): void {
    for (const socket of this.#handshakes) {
      this.#handshakes.delete(socket);
      socket.destroy();
    }
  }
}

function problemOf(secure: TLSSocket): { readonly code: string } | undefined {
  if (Object.keys(secure.getPeerCertificate()).length === 0) return { code: 'NO_PEER_CERT' };
  const { authorizationError } = secure;
  // Declared as an error, it is the error's code.
  return authorizationError ? { code: String(authorizationError) } : undefined;
}
