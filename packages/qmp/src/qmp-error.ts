/** Why an operation of this package failed. */
export type QmpErrorCode =
  /** The connection ended, by either side; no reply will come. */
  | 'CONNECTION_CLOSED'
  /** The peer sent something that is no QMP. */
  | 'PROTOCOL'
  /** A greeting, a reply or an event did not come in time. */
  | 'TIMEOUT'
  /** The caller's AbortSignal fired. */
  | 'ABORTED'
  /** The command was refused; always a {@link QmpCommandError}. */
  | 'COMMAND_FAILED'
  /** An event iterator was not read for too long. */
  | 'EVENT_OVERFLOW'
  /** A schema, or the handlers given for it, contradict themselves. */
  | 'SCHEMA'
  /** A value has no JSON form. */
  | 'NOT_JSON';

/** Where and how input broke the protocol. */
export interface QmpErrorDetails {
  /** Offset in bytes, counted from the connection's first. */
  readonly offset?: number;
  readonly expected?: string;
  readonly found?: string;
  readonly cause?: unknown;
}

/** Is every error that this package throws or rejects with. */
export class QmpError extends Error {
  readonly code: QmpErrorCode;
  readonly offset: number | undefined;
  readonly expected: string | undefined;
  readonly found: string | undefined;

  constructor(code: QmpErrorCode, message: string, details: QmpErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'QmpError';
    this.code = code;
    this.offset = details.offset;
    this.expected = details.expected;
    this.found = details.found;
  }
}

/** QMP's error classes. @see QEMU qapi/error.json QapiErrorClass */
export type QmpErrorClass =
  | 'GenericError'
  | 'CommandNotFound'
  | 'DeviceNotActive'
  | 'DeviceNotFound'
  | 'KVMMissingCap';

/** Is a QMP error reply: thrown by a server's handler, and what a client's `execute` rejects with. */
export class QmpCommandError extends QmpError {
  readonly qmpClass: QmpErrorClass | (string & {});
  /** The text for people, without any prefix; equal to `message`. */
  readonly desc: string;

  constructor(qmpClass: QmpErrorClass | (string & {}), desc: string) {
    super('COMMAND_FAILED', desc);
    this.name = 'QmpCommandError';
    this.qmpClass = qmpClass;
    this.desc = desc;
  }
}
