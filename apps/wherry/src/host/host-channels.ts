import type { Parameters, Transport } from '@wherry/migration';
import {
  type ConnectTls,
  connect,
  type Listener,
  listen,
  type MigrationUri,
  parseUri,
  TransportError,
} from '@wherry/transport';
import { HostObjects } from './host-objects.ts';

interface Bounds {
  readonly signal?: AbortSignal;
}

/** Opens the connections of a host's migrations: with TLS where its parameters say so. */
export class HostChannels {
  readonly objects: HostObjects = new HostObjects();
  readonly #parameters: () => Parameters;

  /** @param parameters asked whenever a connection is opened */
  constructor(parameters: () => Parameters) {
    this.#parameters = parameters;
  }

  /** Connects to the destination. @throws QmpCommandError, TransportError */
  async connect(uri: MigrationUri, bounds: Bounds): Promise<Transport> {
    return connect(uri, { ...bounds, tls: this.clientTls() });
  }

  /** Finds what a source speaks TLS with; undefined where it speaks none. @throws QmpCommandError */
  clientTls(): ConnectTls | undefined {
    const { 'tls-creds': id, 'tls-hostname': hostname } = this.#parameters();
    if (id === '') return undefined;
    const credentials = this.objects.credentials(id, 'client');
    return { credentials, ...(hostname === '' ? {} : { hostname }) };
  }

  /** Listens for the source. @throws QmpCommandError, TransportError */
  async listen(uri: string, bounds: Bounds = {}): Promise<Listener> {
    const id = this.#parameters()['tls-creds'];
    if (id === '') return listen(uri, bounds);
    return listen(uri, { ...bounds, tls: this.objects.credentials(id, 'server') });
  }
}

/** Waits for the next connection whose TLS handshake ends well: others do not end a recovery. */
export async function acceptWelcome(listener: Listener): Promise<Transport> {
  for (;;) {
    try {
      return await listener.accept();
    } catch (error) {
      if (!(error instanceof TransportError) || error.code !== 'TLS_FAILED') throw error;
    }
  }
}

/** @see SocketAddress in QEMU's qapi/sockets.json */
export function socketAddress(uri: string): { type: string; [key: string]: string } {
  const parsed = parseUri(uri);
  if (parsed.kind === 'tcp') return { type: 'inet', host: parsed.host, port: String(parsed.port) };
  if (parsed.kind === 'unix') return { type: 'unix', path: parsed.path };
  return { type: 'fd', str: uri };
}
