import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The sets of credentials; see `make.sh` beside them. */
export type TlsSet = 'good' | 'other' | 'expired' | 'revoked' | 'psk';

const SETS = fileURLToPath(new URL('../packages/transport/test/fixtures/tls/', import.meta.url));

/** The host name in the server's certificate, besides localhost and 127.0.0.1. */
export const TLS_HOSTNAME = 'destination.example';

/** The folder of a set of credentials. */
export function tlsFolder(set: TlsSet): string {
  return join(SETS, set);
}

/** A folder of credentials for one test. */
export interface MixedTlsFolder extends AsyncDisposable {
  readonly path: string;
}

/** Makes a folder whose own certificates are of one set and whose CA is of another. */
export function mixedTlsFolder(sets: {
  readonly own: TlsSet;
  readonly ca: TlsSet;
}): MixedTlsFolder {
  const parent = mkdtempSync(join(tmpdir(), 'wherry-tls-'));
  const path = join(parent, sets.own);
  cpSync(tlsFolder(sets.own), path, { recursive: true });
  if (sets.own !== sets.ca) {
    cpSync(join(tlsFolder(sets.ca), 'ca-cert.pem'), join(path, 'ca-cert.pem'));
  }
  return { path, [Symbol.asyncDispose]: async () => rmSync(parent, { recursive: true }) };
}

/** Arguments that give a QEMU credentials with the id `tls0`. */
export function tlsObject(folder: string, endpoint: 'server' | 'client'): readonly string[] {
  const kind = basename(folder) === 'psk' ? 'tls-creds-psk' : 'tls-creds-x509';
  // It checks its own certificate beforehand: here the other side is to.
  const check = kind === 'tls-creds-x509' ? ',sanity-check=off' : '';
  return ['-object', `${kind},id=tls0,dir=${folder},endpoint=${endpoint}${check}`];
}
