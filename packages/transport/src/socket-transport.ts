import { Socket } from 'node:net';
import type { Writable } from 'node:stream';
import type { Transport } from '@wherry/migration';
import { SocketReader } from './socket-reader.ts';
import { SocketWriter } from './socket-writer.ts';
import { fromSystemError, TransportError } from './transport-error.ts';

/** What reads a socket for its transport. */
export interface ConnectionReader {
  /** Starts to read. */
  attach(socket: Socket): void;
  /** Implements Transport.read. */
  read(into: Uint8Array): Promise<number>;
  /** Rejects the read under way and those to come, after the bytes that have arrived. */
  fail(reason: Error): void;
  /** Rejects as `fail` does, and drops the bytes that have arrived. */
  destroy(reason: Error): void;
}

/** A connection that another thread goes on with. */
export interface GivenConnection {
  /** Open, and closed by whoever takes it: `connect('fd:NUMBER')` does. */
  readonly fd: number;
  /** What was received before, and not read. */
  readonly unread: Uint8Array;
}

/** The part of a socket's handle, which is no public property, that is used here. */
interface SocketHandle {
  readonly fd?: number;
  readStop(): void;
  unref(): void;
}

/**
 * Handles whose descriptor another thread has closed, or will: Node cannot let go of a descriptor, so
 * a handle must neither be closed nor be collected, or it would close what has got its number since.
 */
const givenAway = new Set<SocketHandle>();

/**
 * Gives a connection away, for a thread of this process that takes its descriptor; nothing may be
 * under way on it. The transport is of no use any more.
 *
 * @throws TransportError `UNSUPPORTED` when it is no plain socket
 */
export function giveAway(transport: Transport): GivenConnection {
  if (transport instanceof SocketTransport) return transport.giveAway();
  throw notPlain();
}

/** One connected stream socket, plain or with TLS. */
export class SocketTransport implements Transport {
  readonly #socket: Socket;
  readonly #reader: ConnectionReader;
  readonly #writer: SocketWriter;

  /**
   * @param socket made with the `onread` of `reader`, where that is a {@link SocketReader}
   * @param describe turns its errors into those that readers and writers get
   * @param writable takes what is written and the end, where that is not the socket itself
   */
  constructor(
    socket: Socket,
    reader: ConnectionReader,
    place: string,
    describe: (error: unknown) => Error = describeFor(place),
    writable: Pick<Writable, 'write' | 'end'> = socket,
  ) {
    this.#socket = socket;
    this.#reader = reader;
    this.#writer = new SocketWriter(writable, describe);
    reader.attach(socket);
    socket.on('error', (error) => this.#fail(describe(error)));
    socket.once('close', () => this.#fail(closed(place)));
  }

  read(into: Uint8Array): Promise<number> {
    return this.#reader.read(into);
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.#writer.write(bytes);
  }

  end(): Promise<void> {
    return this.#writer.end();
  }

  /** Implements {@link giveAway}. */
  giveAway(): GivenConnection {
    if (!(this.#reader instanceof SocketReader)) throw notPlain();
    const unread = Uint8Array.from(this.#reader.takeUnread());
    const inner = this.#socket as unknown as { _handle: SocketHandle | null };
    const handle = inner._handle;
    const fd = handle?.fd;
    if (!handle || fd === undefined || fd < 0) throw destroyed();
    handle.readStop();
    handle.unref();
    inner._handle = null;
    givenAway.add(handle);
    this.destroy(new TransportError('ABORTED', 'The connection was given to another thread'));
    return { fd, unread };
  }

  destroy(reason: Error = destroyed()): void {
    this.#reader.destroy(reason);
    this.#writer.fail(reason);
    this.#socket.destroy();
  }

  #fail(reason: Error): void {
    this.#reader.fail(reason);
    this.#writer.fail(reason);
  }
}

/**
 * Takes over the connection of a socket that Node made without an `onread`, which it makes unusable.
 *
 * @param reader reads it; without one it is read as any socket
 */
export function adoptSocket(raw: Socket, reader?: SocketReader): Socket {
  // A server and a child process hand out ready sockets. Their handle is no public property, but
  // there is no other way to read into a given buffer from them.
  const inner = raw as unknown as { _handle: unknown };
  const onread = reader === undefined ? {} : { onread: reader.onread };
  const options = { handle: inner._handle, ...onread, allowHalfOpen: true };
  const socket = new Socket({ ...options, manualStart: true } as object);
  inner._handle = null;
  raw.destroy();
  return socket;
}

/** Makes the function that turns system errors at `place` into transport errors. */
export function describeFor(place: string): (error: unknown) => TransportError {
  return (error) => fromSystemError(error, place, 'CONNECTION_LOST');
}

function notPlain(): TransportError {
  return new TransportError('UNSUPPORTED', 'Only a plain socket can be given to another thread');
}

/** Makes the default reason of a destroy. */
export function destroyed(): TransportError {
  return new TransportError('ABORTED', 'The connection was dropped on this side');
}

function closed(place: string): TransportError {
  return new TransportError('CONNECTION_LOST', `The connection ${place} is closed`);
}
