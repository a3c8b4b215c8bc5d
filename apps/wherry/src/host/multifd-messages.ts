import {
  MigrationError,
  type MigrationErrorCode,
  type MultifdCompression,
} from '@wherry/migration';
import type { GuestRamHandle } from '@wherry/page-engine';
import type { ConnectTls } from '@wherry/transport';

/** What a channel's thread is started with. */
export type ChannelInit = {
  readonly ram: GuestRamHandle;
  readonly id: number;
  readonly compression: MultifdCompression;
} & (
  | {
      readonly role: 'send';
      readonly uri: string;
      readonly tls: ConnectTls | undefined;
      readonly uuid: string;
      readonly findZeroPages: boolean;
      readonly level: number;
    }
  | { readonly role: 'receive'; readonly fd: number; readonly unread: Uint8Array }
);

/** A call of a channel's method; its reply carries the same number. */
export interface ChannelCall {
  readonly call: number;
  readonly name: 'send' | 'sync' | 'end' | 'receive' | 'destroy';
  readonly args: readonly unknown[];
}

/** The reply to a call; number 0 is that of the thread's start. */
export type ChannelReply =
  | { readonly call: number; readonly result: unknown }
  | { readonly call: number; readonly error: PlainError };

/** A MigrationError as it crosses threads, where classes and their accessors are lost. */
export interface PlainError {
  readonly code: MigrationErrorCode;
  readonly what: string;
  readonly detail: {
    readonly offset?: number;
    readonly path: readonly string[];
    readonly expected?: string;
    readonly found?: string;
    readonly likely?: string;
  };
}

/** Prepares an error for another thread; one that is not a migration's becomes one of the channel. */
export function toPlainError(error: unknown, id: number): PlainError {
  if (error instanceof MigrationError) {
    const { code, what, path, offset, expected, found, likely } = error;
    return {
      code,
      what,
      detail: {
        path,
        ...(offset === undefined ? {} : { offset }),
        ...(expected === undefined ? {} : { expected }),
        ...(found === undefined ? {} : { found }),
        ...(likely === undefined ? {} : { likely }),
      },
    };
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    code: 'CONNECTION_LOST',
    what: `multifd channel ${id}: ${message}`,
    detail: { path: ['multifd', `channel ${id}`] },
  };
}

/** Makes the error of another thread. */
export function fromPlainError(plain: unknown): MigrationError {
  const { code, what, detail } = plain as PlainError;
  return new MigrationError(code, what, detail);
}
