import { TransportError } from './transport-error.ts';

/** An address and port; an empty `host` means any address to listen on, this machine to connect to. */
export interface TcpUri {
  readonly kind: 'tcp';
  readonly host: string;
  readonly port: number;
  /** Only this IP version, from `ipv4=on|off` and `ipv6=on|off`. */
  readonly family?: 4 | 6;
  /** Listen on the first free port in `[port, toPort]`, from `to=`. */
  readonly toPort?: number;
  /** Probe an idle connection, from `keep-alive=on`. */
  readonly keepAlive?: boolean;
}

/** A unix domain socket. */
export interface UnixUri {
  readonly kind: 'unix';
  readonly path: string;
}

/** A shell command, its standard input and output being the two directions. */
export interface ExecUri {
  readonly kind: 'exec';
  readonly command: string;
}

/** A file descriptor that this process holds: a socket, a pipe or a file. */
export interface FdUri {
  readonly kind: 'fd';
  readonly fd: number;
}

/** A file; the stream starts at byte `offset`. */
export interface FileUri {
  readonly kind: 'file';
  readonly path: string;
  readonly offset: number;
}

/** Where a migration stream goes to or comes from. */
export type MigrationUri = TcpUri | UnixUri | ExecUri | FdUri | FileUri;

/** The room for a path in the system's socket address, without its closing NUL. */
const MAX_SOCKET_PATH_BYTES = 107;

const FORMS = 'tcp:HOST:PORT, unix:PATH, exec:COMMAND, fd:NUMBER or file:PATH[,offset=BYTES]';

/**
 * Reads a migration URI as QEMU's `migrate` and `-incoming` take it.
 *
 * @throws TransportError `BAD_URI`
 * @see QEMU migration/migration.c `migrate_uri_parse`, util/qemu-sockets.c `inet_parse`
 */
export function parseUri(uri: string): MigrationUri {
  const colon = uri.indexOf(':');
  const kind = uri.slice(0, Math.max(0, colon));
  const rest = uri.slice(colon + 1);
  if (rest.includes('\0')) throw bad(uri, 'text without NUL characters');
  switch (kind) {
    case 'tcp':
      return parseTcp(uri, rest);
    case 'unix':
      if (rest === '') throw bad(uri, 'unix:PATH');
      if (Buffer.byteLength(rest) > MAX_SOCKET_PATH_BYTES) {
        throw bad(uri, `a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes`);
      }
      return { kind, path: rest };
    case 'exec':
      if (rest.trim() === '') throw bad(uri, 'exec:COMMAND');
      return { kind, command: rest };
    case 'fd': {
      const fd = /^\d{1,9}$/.test(rest) ? Number(rest) : undefined;
      if (fd === undefined) throw bad(uri, 'fd:NUMBER, an open file descriptor of this process');
      return { kind, fd };
    }
    case 'file':
      return parseFile(uri, rest);
    default:
      throw bad(uri, FORMS);
  }
}

/** Writes a migration URI that {@link parseUri} reads back. */
export function formatUri(uri: MigrationUri): string {
  switch (uri.kind) {
    case 'tcp': {
      const host = uri.host.includes(':') ? `[${uri.host}]` : uri.host;
      const to = uri.toPort === undefined ? '' : `,to=${uri.toPort}`;
      const family = uri.family === undefined ? '' : `,ipv${uri.family}=on`;
      const keepAlive = uri.keepAlive === true ? ',keep-alive=on' : '';
      return `tcp:${host}:${uri.port}${to}${family}${keepAlive}`;
    }
    case 'unix':
      return `unix:${uri.path}`;
    case 'exec':
      return `exec:${uri.command}`;
    case 'fd':
      return `fd:${uri.fd}`;
    case 'file':
      return `file:${uri.path}${uri.offset === 0 ? '' : `,offset=${uri.offset}`}`;
  }
}

function parseTcp(uri: string, rest: string): TcpUri {
  const match = /^(?:\[([^\]]+)\]|([^:,[\]]*)):(\d{1,5})((?:,.*)?)$/s.exec(rest);
  if (match === null) throw bad(uri, 'tcp:HOST:PORT, with an IPv6 address in brackets');
  const port = parsePort(uri, match[3] ?? '');
  let toPort: number | undefined;
  let keepAlive = false;
  const versions: { ipv4?: boolean; ipv6?: boolean } = {};
  for (const option of (match[4] ?? '').split(',').slice(1)) {
    const [name, value] = option.split('=', 2);
    if (name === 'to') {
      toPort = parsePort(uri, value ?? '');
      if (toPort < port) throw bad(uri, `to= a port of at least ${port}`);
    } else if (name === 'ipv4' || name === 'ipv6') versions[name] = parseSwitch(uri, value);
    else if (name === 'keep-alive') keepAlive = parseSwitch(uri, value);
    else throw bad(uri, 'no other options than to=, ipv4=, ipv6= and keep-alive=');
  }
  return {
    kind: 'tcp',
    host: match[1] ?? match[2] ?? '',
    port,
    ...parseFamily(uri, versions.ipv4, versions.ipv6),
    ...(toPort === undefined ? {} : { toPort }),
    ...(keepAlive ? { keepAlive } : {}),
  };
}

function parseFamily(uri: string, ipv4?: boolean, ipv6?: boolean): { family?: 4 | 6 } {
  if (ipv4 === false && ipv6 === false) throw bad(uri, 'ipv4 or ipv6 to be left on');
  if (ipv4 === ipv6) return {};
  return { family: ipv4 === true || ipv6 === false ? 4 : 6 };
}

function parsePort(uri: string, text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 65536;
  if (port > 65535) throw bad(uri, 'a port from 0 to 65535');
  return port;
}

function parseSwitch(uri: string, text: string | undefined): boolean {
  if (text === undefined || text === 'on') return true;
  if (text === 'off') return false;
  throw bad(uri, 'on or off');
}

function parseFile(uri: string, rest: string): FileUri {
  const at = rest.indexOf(',offset=');
  const path = at < 0 ? rest : rest.slice(0, at);
  if (path === '') throw bad(uri, 'file:PATH[,offset=BYTES]');
  return { kind: 'file', path, offset: at < 0 ? 0 : parseSize(uri, rest.slice(at + 8)) };
}

/** Reads a byte count: decimal or 0x, with one of the suffixes b, k, M, G, T. */
function parseSize(uri: string, text: string): number {
  const match = /^(0x[0-9a-f]{1,14}|\d{1,16})([bkmgt]?)$/i.exec(text);
  const size =
    match === null
      ? Number.NaN
      : Number(match[1]) * 1024 ** Math.max(0, 'bkmgt'.indexOf((match[2] || 'b').toLowerCase()));
  if (!Number.isSafeInteger(size)) throw bad(uri, 'offset= a number of bytes, such as 4096 or 1M');
  return size;
}

function bad(uri: string, expected: string): TransportError {
  const shown = uri.length > 200 ? `${uri.slice(0, 200)}…` : uri;
  return new TransportError('BAD_URI', 'A migration URI is not valid', {
    expected,
    found: JSON.stringify(shown),
  });
}
