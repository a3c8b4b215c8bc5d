import { WherryError } from '@wherry/bytes';

/** Codes of {@link TransportError}. */
export type TransportErrorCode =
  | 'BAD_URI'
  | 'ADDRESS_IN_USE'
  | 'CONNECTION_REFUSED'
  | 'NOT_FOUND'
  | 'PERMISSION'
  | 'CONNECTION_LOST'
  | 'TIMEOUT'
  | 'ABORTED'
  | 'COMMAND_FAILED'
  /** Files of certificates or keys that are missing, out of date, or no such thing. */
  | 'BAD_CREDENTIALS'
  /** The TLS handshake: another CA, an expired certificate, another name, a side without TLS. */
  | 'TLS_FAILED'
  /** The kind of channel cannot do this: write to a file that is being read, accept a second time. */
  | 'UNSUPPORTED'
  /** A file could not be read or written: no space left, a directory, a failing disk. */
  | 'IO_ERROR'
  /** A second read (or write) while one is under way: a mistake of the caller. */
  | 'BUSY';

/** Says why a channel could not be opened, or what broke it; `message` says what to do. */
export class TransportError extends WherryError<TransportErrorCode> {
  override readonly name = 'TransportError';
}

type Meaning = readonly [code: TransportErrorCode, what: string, likely: string];

const MEANINGS: Readonly<Record<string, Meaning>> = {
  EADDRINUSE: [
    'ADDRESS_IN_USE',
    'is in use',
    'Choose another address (tcp port 0 takes a free one) or end what listens there',
  ],
  EADDRNOTAVAIL: [
    'NOT_FOUND',
    'is no address of this machine',
    'Listen on an address that this machine has, or leave the host empty for all of them',
  ],
  ECONNREFUSED: [
    'CONNECTION_REFUSED',
    'refused the connection',
    'Start the other side first and check the address',
  ],
  EHOSTUNREACH: ['CONNECTION_REFUSED', 'cannot be reached', 'Check the address and the network'],
  ENETUNREACH: ['CONNECTION_REFUSED', 'cannot be reached', 'Check the address and the network'],
  ETIMEDOUT: ['TIMEOUT', 'did not answer', 'Check the address, the network and its firewalls'],
  ENOENT: ['NOT_FOUND', 'does not exist', 'Check the path and start the other side first'],
  ENOTDIR: ['NOT_FOUND', 'does not exist', 'Check the path: a part of it is no directory'],
  ENOTFOUND: ['NOT_FOUND', 'is no known host', 'Check the host name'],
  EAI_AGAIN: ['NOT_FOUND', 'could not be looked up', 'Check the host name and the name server'],
  ENOTSOCK: ['NOT_FOUND', 'is no socket', 'Check the path'],
  EBADF: ['NOT_FOUND', 'is not open for this', 'Pass an open descriptor to this process'],
  EACCES: ['PERMISSION', 'is not permitted', 'Check its permissions and the user'],
  EPERM: ['PERMISSION', 'is not permitted', 'Check its permissions and the user'],
  EROFS: ['PERMISSION', 'is on a read-only file system', 'Choose another path'],
  ECONNRESET: ['CONNECTION_LOST', 'dropped the connection', 'The other side died or gave up'],
  ECONNABORTED: ['CONNECTION_LOST', 'dropped the connection', 'The other side died or gave up'],
  EPIPE: ['CONNECTION_LOST', 'takes no more data', 'The other side died or gave up'],
  ENOSPC: ['IO_ERROR', 'cannot grow: no space left', 'Free some space or choose another path'],
  EISDIR: ['IO_ERROR', 'is a directory', 'Name a file in it'],
};

/**
 * Turns an error of the operating system into a {@link TransportError} that names the place.
 *
 * @param place what was opened, as a URI
 * @param fallback the code for a failure without a meaning of its own
 */
export function fromSystemError(
  error: unknown,
  place: string,
  fallback: 'CONNECTION_LOST' | 'IO_ERROR',
): TransportError {
  if (error instanceof TransportError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const meaning = code === undefined ? undefined : MEANINGS[code];
  if (meaning !== undefined) {
    return new TransportError(meaning[0], `${place} ${meaning[1]}`, {
      likely: meaning[2],
      cause: error,
    });
  }
  return new TransportError(fallback, `${place} failed (${code ?? message ?? String(error)})`, {
    likely: 'Check the other side and its log',
    cause: error,
  });
}
