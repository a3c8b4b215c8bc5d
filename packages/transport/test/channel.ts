import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Transport } from '@wherry/migration';
import { onTestFinished } from 'vitest';
import {
  type ConnectTls,
  connect,
  type Listener,
  listen,
  loadTlsCredentials,
  type TlsCredentials,
} from '../src/index.ts';

/** Makes a folder that lives as long as the test. */
export function testFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'wherry-transport-'));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** TLS for both ends of a connection. */
export interface TestTls {
  readonly server: TlsCredentials;
  readonly client: ConnectTls;
}

/** The folder of a set of credentials that tests have. */
export function tlsFolder(name: string): string {
  return join(import.meta.dirname, 'fixtures', 'tls', name);
}

/** Loads credentials that fit together, for a name that is in the certificate. */
export async function testTls(name: string): Promise<TestTls> {
  const dir = tlsFolder(name);
  const [server, credentials] = await Promise.all([
    loadTlsCredentials({ dir, endpoint: 'server' }),
    loadTlsCredentials({ dir, endpoint: 'client' }),
  ]);
  return { server, client: { credentials, hostname: 'destination.example' } };
}

/** Listens for as long as the test runs. */
export async function testListener(uri: string, tls?: TestTls): Promise<Listener> {
  const listener = await listen(uri, { tls: tls?.server });
  onTestFinished(() => listener.close());
  return listener;
}

/** Makes both ends of a socket connection: the one that connected and the one that accepted. */
export async function testPair(uri: string, tls?: TestTls): Promise<[Transport, Transport]> {
  const listener = await testListener(uri, tls);
  const ends = await Promise.all([connect(listener.uri, { tls: tls?.client }), listener.accept()]);
  onTestFinished(() => {
    for (const end of ends) end.destroy();
  });
  return ends;
}

/** Fills bytes with a pattern that repeats at no power of two. */
export function pattern(length: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) | 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/** Reads until the peer ends its direction. */
export async function readAll(
  from: Transport,
  into: Uint8Array = new Uint8Array(65536),
): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for (;;) {
    const count = await from.read(into);
    if (count === 0) return Buffer.concat(parts);
    parts.push(into.slice(0, count));
  }
}
