import { X509Certificate } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { TransportError } from './transport-error.ts';

/** Which credentials to load; the names of the options are those of QEMU's objects. */
export interface TlsCredentialsOptions {
  /** The folder, as QEMU's `dir`. */
  readonly dir: string;
  /** Whether this side listens or connects. */
  readonly endpoint: 'server' | 'client';
  /** Default: `psk` where the folder holds `keys.psk`, otherwise `x509`. */
  readonly kind?: 'x509' | 'psk' | undefined;
  /** Whether the other side must show a certificate that the CA signed (default true). */
  readonly verifyPeer?: boolean | undefined;
  /** Whether one's own certificates are refused when they are out of date (default true). */
  readonly sanityCheck?: boolean | undefined;
  /** The key that a client takes from `keys.psk` (default `qemu`). */
  readonly username?: string | undefined;
}

/** Certificates or pre-shared keys for one end of TLS, read and checked. */
export interface TlsCredentials {
  readonly kind: 'x509' | 'psk';
  readonly endpoint: 'server' | 'client';
  readonly dir: string;
  readonly verifyPeer: boolean;
  readonly context: SecureContextOptions;
  /** The name of the key that a client shows. */
  readonly username: string;
  /** Keys by name; empty for x509. */
  readonly keys: ReadonlyMap<string, Uint8Array>;
}

/** What GnuTLS takes with QEMU's priority for PSK, strongest first. OpenSSL has no other with forward secrecy. */
const PSK_CIPHERS = [
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-CHACHA20-POLY1305',
  'DHE-PSK-AES128-GCM-SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'ECDHE-PSK-AES256-CBC-SHA384',
  'ECDHE-PSK-AES128-CBC-SHA256',
].join(':');

/**
 * Reads credentials from a folder laid out as for QEMU's `tls-creds-x509` and `tls-creds-psk`.
 *
 * x509: `ca-cert.pem`, `{server,client}-cert.pem` and `-key.pem` (a client may have none), and for a server
 * `ca-crl.pem` if it is there. psk: `keys.psk`, lines `NAME:HEX`. `dh-params.pem` is not read: the groups
 * are those that TLS itself defines.
 *
 * @throws TransportError `BAD_CREDENTIALS`, with the file
 * @see qcrypto_tls_creds_x509_load in QEMU's crypto/tlscredsx509.c, and crypto/tlscredspsk.c
 */
export async function loadTlsCredentials(options: TlsCredentialsOptions): Promise<TlsCredentials> {
  const { dir, endpoint, verifyPeer = true, sanityCheck = true, username = 'qemu' } = options;
  const kind = options.kind ?? ((await exists(join(dir, 'keys.psk'))) ? 'psk' : 'x509');
  const base = { kind, endpoint, dir, verifyPeer, username };
  if (kind === 'x509') {
    const context = contextOf(await readX509(dir, endpoint, sanityCheck), dir);
    return { ...base, context, keys: new Map() };
  }
  const keys = await readKeys(join(dir, 'keys.psk'));
  if (endpoint === 'client' && !keys.has(username)) {
    throw bad(join(dir, 'keys.psk'), `holds no key for '${username}'`, {
      expected: `a line ${username}:HEX`,
      found: [...keys.keys()].slice(0, 8).join(', '),
      likely: 'Choose one of these names as username, or add the key on both sides',
    });
  }
  const context = contextOf(
    { ciphers: PSK_CIPHERS, dhparam: 'auto', maxVersion: 'TLSv1.2', minVersion: 'TLSv1.2' },
    dir,
  );
  return { ...base, context, keys };
}

async function readX509(
  dir: string,
  endpoint: 'server' | 'client',
  sanityCheck: boolean,
): Promise<SecureContextOptions> {
  const path = (name: string): string => join(dir, name);
  const ca = await read(path('ca-cert.pem'));
  const check = sanityCheck ? checkValid : () => {};
  check(path('ca-cert.pem'), ca);
  const [certPath, keyPath] = [path(`${endpoint}-cert.pem`), path(`${endpoint}-key.pem`)];
  if (endpoint === 'client' && !(await exists(certPath)) && !(await exists(keyPath))) {
    return { ca, minVersion: 'TLSv1.2' };
  }
  const [cert, key] = await Promise.all([read(certPath), read(keyPath)]);
  check(certPath, cert);
  const crlPath = path('ca-crl.pem');
  const crl = endpoint === 'server' && (await exists(crlPath)) ? await read(crlPath) : undefined;
  return {
    ...{ ca, cert, key, minVersion: 'TLSv1.2' },
    // A server of TLS 1.3 here sends session tickets behind the handshake, which cannot be turned off. A
    // source without a return path never reads them, and a socket closed over unread bytes is reset:
    // the end of the stream would be lost.
    ...(endpoint === 'server' ? { maxVersion: 'TLSv1.2' } : {}),
    ...(crl === undefined ? {} : { crl }),
  };
}

/** A certificate of one's own that is out of date is told here: the other side would only hang up. */
function checkValid(path: string, pem: Buffer): void {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (cause) {
    throw bad(path, 'holds no certificate', { expected: 'PEM', cause });
  }
  const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  const now = Date.now();
  if (now <= to && now >= from) return;
  throw bad(path, now > to ? 'has expired' : 'is not valid yet', {
    expected: `a date from ${certificate.validFrom} to ${certificate.validTo}`,
    found: new Date(now).toUTCString(),
    likely: now > to ? 'Have it signed anew' : 'Check the clocks of this machine and of the CA',
  });
}

function contextOf(options: SecureContextOptions, dir: string): SecureContextOptions {
  try {
    createSecureContext(options);
    return options;
  } catch (cause) {
    throw bad(dir, 'holds certificates and keys that do not fit together', {
      found: (cause as Error).message,
      likely: 'Check that the key is that of the certificate and that all files are PEM',
      cause,
    });
  }
}

async function readKeys(path: string): Promise<Map<string, Uint8Array>> {
  const keys = new Map<string, Uint8Array>();
  for (const line of (await read(path)).toString('utf8').split('\n')) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const [, name, hex] = /^([^:]+):((?:[0-9a-f]{2})+)\s*$/i.exec(line) ?? [];
    if (name === undefined || hex === undefined) {
      throw bad(path, 'has a line that is no key', {
        expected: 'NAME:HEX, an even number of digits',
      });
    }
    keys.set(name, Buffer.from(hex, 'hex'));
  }
  if (keys.size === 0) throw bad(path, 'holds no key', { expected: 'lines of NAME:HEX' });
  return keys;
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw bad(path, code === 'ENOENT' ? 'does not exist' : `cannot be read (${code})`, {
      likely:
        'Check the folder: x509 needs ca-cert.pem and a certificate with its key, psk keys.psk',
      cause,
    });
  }
}

function bad(
  path: string,
  what: string,
  details: ConstructorParameters<typeof TransportError>[2] = {},
): TransportError {
  return new TransportError('BAD_CREDENTIALS', `The TLS credentials ${path}: it ${what}`, details);
}
