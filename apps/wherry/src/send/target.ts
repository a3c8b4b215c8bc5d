import { fstatSync } from 'node:fs';
import type { Transport } from '@wherry/migration';
import {
  type ConnectTls,
  connect,
  formatUri,
  loadTlsCredentials,
  type MigrationUri,
  parseUri,
  TransportError,
} from '@wherry/transport';
import { CliError } from '../cli-error.ts';

/** How to reach a destination, as the command line says it. */
export interface TargetOptions {
  /** The folder of credentials for TLS. */
  readonly tlsCreds?: string;
  readonly tlsHostname?: string;
}

/** Where a destination waits. */
export class SendTarget {
  readonly #uri: MigrationUri;
  readonly #tls: ConnectTls | undefined;

  private constructor(uri: MigrationUri, tls: ConnectTls | undefined) {
    this.#uri = uri;
    this.#tls = tls;
  }

  /** Reads a URI and the credentials for it. @throws CliError 2 */
  static async of(text: string, { tlsCreds, tlsHostname }: TargetOptions): Promise<SendTarget> {
    try {
      const uri = parseUri(text);
      if (tlsCreds === undefined) {
        if (tlsHostname === undefined) return new SendTarget(uri, undefined);
        throw new CliError('--tls-hostname is for TLS: name the credentials with --tls-creds', 2);
      }
      if (!isAddress(uri)) throw new CliError(`TLS needs tcp: or unix:, not ${text}`, 2);
      const credentials = await loadTlsCredentials({ dir: tlsCreds, endpoint: 'client' });
      return new SendTarget(uri, { credentials, hostname: tlsHostname });
    } catch (error) {
      if (error instanceof TransportError) throw new CliError(error.message, 2);
      throw error;
    }
  }

  /** Whether the destination can answer: a command or file that takes a stream cannot be asked whether it does. */
  get hasReturnPath(): boolean {
    if (this.#uri.kind !== 'fd') return isAddress(this.#uri);
    try {
      return fstatSync(this.#uri.fd).isSocket();
    } catch {
      return false; // connecting says what is wrong with it
    }
  }

  /** Whether a destination can be reached more than once. */
  get takesChannels(): boolean {
    return isAddress(this.#uri);
  }

  get text(): string {
    return formatUri(this.#uri);
  }

  /** Opens one connection. @throws TransportError; the signal's reason */
  async connect(signal: AbortSignal): Promise<Transport> {
    try {
      return await connect(this.#uri, { signal, tls: this.#tls });
    } catch (error) {
      signal.throwIfAborted();
      throw error;
    }
  }
}

function isAddress({ kind }: MigrationUri): boolean {
  return kind === 'tcp' || kind === 'unix';
}
