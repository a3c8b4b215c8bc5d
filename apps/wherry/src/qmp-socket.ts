import { lstat, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { QmpChannel } from '@wherry/qmp';
import { CliError } from './cli-error.ts';

/** Where a QMP socket is: `unix:PATH`, `tcp:HOST:PORT`, or a path alone. */
export type QmpAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** Parses a QMP address as QEMU's `-qmp` and people write it. @throws CliError */
export function parseQmpAddress(text: string): QmpAddress {
  const [address = ''] = text.split(',', 1); // QEMU's server=on,wait=off may follow
  const tcp = /^tcp:(?:\[([^\]]+)\]|([^:]*)):(\d+)$/.exec(address);
  if (tcp) {
    const port = Number(tcp[3]);
    if (port <= 65535) return { host: tcp[1] ?? (tcp[2] || '127.0.0.1'), port };
  } else if (address.startsWith('unix:') && address.length > 5) {
    return { path: address.slice(5) };
  } else if (address !== '' && !address.startsWith('tcp:') && address !== 'unix:') {
    return { path: address };
  }
  throw new CliError(
    `'${text}' is no QMP address: use unix:PATH, tcp:HOST:PORT, or the path of a socket`,
    2,
  );
}

/** Formats an address as {@link parseQmpAddress} takes it. */
export function formatQmpAddress(address: QmpAddress): string {
  if ('path' in address) return `unix:${address.path}`;
  return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

/** Wraps a connected socket as a QMP channel. */
function socketChannel(socket: Socket): QmpChannel {
  let lastError: Error | undefined;
  socket.on('error', (error) => {
    lastError = error;
  });
  return {
    send: (text) => void socket.write(text),
    onData: (listener) => void socket.on('data', listener),
    onClose: (listener) => void socket.on('close', () => listener(lastError)),
    close: () => void socket.end(),
    abort: () => void socket.destroy(),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    get bufferedBytes() {
      return socket.writableLength;
    },
  };
}

/** Connects to a QMP socket. @throws CliError with exit code 2 when nothing answers there */
export function openQmpChannel(address: QmpAddress): Promise<QmpChannel> {
  return new Promise((resolve, reject) => {
    const socket = connect('path' in address ? { path: address.path } : address);
    socket.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'ENOENT'
          ? 'there is no such socket'
          : error.code === 'ECONNREFUSED'
            ? 'nothing listens there'
            : error.message;
      reject(
        new CliError(
          `Cannot reach QMP at ${formatQmpAddress(address)}: ${why}. Start the host first, and check the address`,
          2,
        ),
      );
    });
    socket.once('connect', () => resolve(socketChannel(socket)));
  });
}

/** Listens for QMP clients. @throws CliError with exit code 2 when the address cannot be used */
export async function listenForQmp(
  address: QmpAddress,
  accept: (channel: QmpChannel) => void,
): Promise<Server & { readonly qmpAddress: QmpAddress }> {
  if ('path' in address) await removeStaleSocket(address.path);
  const server = createServer((socket) => accept(socketChannel(socket)));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        {
          EADDRINUSE: 'it is in use, choose another one',
          EACCES: 'no such directory, or no permission',
        }[error.code ?? ''] ?? error.message;
      reject(new CliError(`Cannot listen for QMP at ${formatQmpAddress(address)}: ${why}`, 2));
    });
    server.listen('path' in address ? { path: address.path } : address, resolve);
  });
  const bound = server.address();
  const qmpAddress =
    'host' in address && typeof bound === 'object' && bound !== null
      ? { host: address.host, port: bound.port }
      : address;
  return Object.assign(server, { qmpAddress });
}

/** A socket file that nobody listens on any more would keep its path taken for ever. */
async function removeStaleSocket(path: string): Promise<void> {
  // Connecting to a file that is no socket is refused just the same, and that file must stay.
  const stat = await lstat(path).catch(() => undefined);
  if (stat?.isSocket() !== true) return;
  const isStale = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(false);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED'));
  });
  if (isStale) await unlink(path);
}
