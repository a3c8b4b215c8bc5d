import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { SocketTransport } from './socket-transport.ts';
import { describeTlsFor } from './tls-error.ts';
import { TlsReader } from './tls-reader.ts';

/**
 * Makes a transport of a connection whose handshake is over.
 *
 * Its end is that of the socket beneath, without a close of TLS, as QEMU does it: a peer that reads no
 * further would answer that, when it closes, with a reset, which may overtake its last message.
 *
 * @param raw the socket beneath
 */
export function tlsTransport(secure: TLSSocket, raw: Socket, place: string): SocketTransport {
  return new SocketTransport(secure, new TlsReader(), place, describeTlsFor(place), {
    write: secure.write.bind(secure),
    end: raw.end.bind(raw),
  });
}
