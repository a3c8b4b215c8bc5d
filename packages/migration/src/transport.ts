import { MigrationError } from './migration-error.ts';

/**
 * One connection of a migration, both directions. `migration` owns this interface; `@wherry/transport`
 * implements it for Node, the simulation for a virtual network.
 *
 * One read and one write may be under way at a time. Errors reject with what broke the connection.
 */
export interface Transport {
  /**
   * Reads at least one byte into `into`, which must stay untouched until then.
   *
   * @returns the number of bytes read; 0 when the peer has ended its direction
   */
  read(into: Uint8Array): Promise<number>;
  /** Writes all of `bytes`; resolves when the buffer may be used again. */
  write(bytes: Uint8Array): Promise<void>;
  /** Ends this side's direction after what was written; the other direction stays open. */
  end(): Promise<void>;
  /** Drops the connection at once: what is under way rejects with `reason`. Idempotent. */
  destroy(reason?: Error): void;
  /** Where the connection is a file that has offsets: access to the whole of it. */
  readonly file?: SeekableFile | undefined;
}

/** A file that a stream is written to or read from. Its operations count as those of the transport. */
export interface SeekableFile {
  /** Offset in the file of the stream's next byte. */
  readonly position: number;
  /** Has the stream go on elsewhere. */
  seek(offset: number): void;
  /** Reads at an offset; resolves to the number of bytes, fewer than `into` has only at the file's end. */
  readAt(into: Uint8Array, offset: number): Promise<number>;
  /** Writes all of `bytes` at an offset. */
  writeAt(bytes: Uint8Array, offset: number): Promise<void>;
}

/**
 * Gives access to the file of a connection.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED` when it is none
 */
export function checkSeekable({ file }: Pick<Transport, 'file'>): SeekableFile {
  if (file === undefined) throw notSeekable();
  return file;
}

/** Says that mapped-ram has no file, in QEMU's words. @see migration_channels_and_transport_compatible in QEMU's migration/migration.c */
export function notSeekable(): MigrationError {
  return new MigrationError(
    'CAPABILITY_UNSUPPORTED',
    'Migration requires seekable transport (e.g. file)',
    { likely: 'mapped-ram is on: turn it off, or migrate to file:PATH' },
  );
}
