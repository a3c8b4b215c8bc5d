import { BytesError, WherryError } from '@wherry/bytes';
import { type ReturnPathMessage, readReturnPathMessage } from '@wherry/stream';
import { InputChannel, OutputChannel } from './channels.ts';
import type { Clock } from './clock.ts';
import { MigrationError } from './migration-error.ts';
import { SourcePreempt, type SourcePreemptOptions } from './source-preempt.ts';
import type { Transport } from './transport.ts';

/** How long to wait for the destination's last word once the connection breaks. */
const LAST_WORD_MS = 1000;

/** A source's connection to its destination: both directions, and what made it end. */
export class SourceConnection {
  readonly output: OutputChannel;
  readonly input: InputChannel;
  readonly #transport: Transport;
  readonly #abort = new AbortController();
  readonly #ponged = Promise.withResolvers<void>();
  /** The channel for requested pages, with `postcopy-preempt`. */
  readonly preempt: SourcePreempt | undefined;
  /** What the destination said at its end: 0 if it has the guest. */
  shut: number | undefined;

  /** @param preempt what a channel for requested pages needs, where there is to be one */
  constructor(transport: Transport, preempt?: Omit<SourcePreemptOptions, 'onBroken'>) {
    this.#transport = transport;
    this.output = new OutputChannel(transport);
    this.input = new InputChannel(transport, 'return path');
    if (preempt !== undefined) {
      this.preempt = new SourcePreempt({ ...preempt, onBroken: (error) => this.stopWith(error) });
    }
    this.#ponged.promise.catch(() => {}); // nobody may wait
  }

  /** Bytes handed to the connections or gathered for them. */
  get bytes(): number {
    return this.output.bytes + (this.preempt?.bytes ?? 0);
  }

  /** Takes an answer to a PING. */
  pong(): void {
    this.#ponged.resolve();
  }

  /**
   * Resolves once the channel for requested pages is there, if there is to be one. The destination has
   * answered a PING then, so that it takes this connection for its second.
   *
   * @throws MigrationError `CONNECTION_LOST`
   * @see migration_wait_main_channel in QEMU's migration/migration.c
   */
  async openPreempt(): Promise<void> {
    if (this.preempt === undefined) return;
    await this.#ponged.promise;
    await this.preempt.ready();
  }

  /** Is aborted with what ends the connection. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Makes everything under way end with `reason`; the first reason stays. */
  stopWith(reason: Error): void {
    if (!this.signal.aborted) this.#abort.abort(reason);
    this.#ponged.reject(reason);
    this.#transport.destroy(reason);
    this.preempt?.stopWith(reason);
  }

  /**
   * Reads the destination's messages until it has said how it ended, or the connection ends; never rejects.
   *
   * @param maxBitmapBytes of a bitmap of received pages
   */
  async readMessages(
    maxBitmapBytes: number,
    handle: (message: ReturnPathMessage, offset: number) => void,
  ): Promise<void> {
    const { input } = this;
    let hasAnswered = false;
    try {
      while (this.shut === undefined) {
        const { offset } = input.reader;
        const message = await input.parse(readReturnPathMessage(input.reader, { maxBitmapBytes }));
        hasAnswered = true;
        handle(message, offset);
      }
      if (this.shut !== 0) this.stopWith(destinationFailed(this.shut));
    } catch (error) {
      const atEnd = error instanceof BytesError && error.code === 'UNEXPECTED_END';
      const isBroken = error instanceof MigrationError && error.code === 'CONNECTION_LOST';
      this.stopWith(atEnd || isBroken ? destinationClosed(error, hasAnswered) : (error as Error));
    }
  }

  checkAborted(): void {
    this.signal.throwIfAborted();
  }

  /** A destination says how it ended before it closes: a better cause than a broken pipe. */
  async awaitLastWord(returnPath: Promise<void>, clock: Clock): Promise<void> {
    if (this.signal.aborted) return;
    const given = new AbortController();
    const waited = clock.sleep(LAST_WORD_MS, given.signal).catch(() => {});
    await Promise.race([returnPath, waited]);
    given.abort();
  }

  /** Ends this side's direction. */
  end(): Promise<void> {
    return this.#transport.end();
  }

  /** Drops the connection; resolves when no buffer is in use any more. */
  async close(reason?: Error): Promise<void> {
    this.#transport.destroy(reason);
    this.preempt?.stopWith(reason);
    await this.output.settled();
    await this.preempt?.settled();
  }
}

/**
 * Says that the destination closed the connection without a word.
 *
 * @param hasAnswered whether it had read this side's first bytes and answered them
 */
function destinationClosed(
  cause: BytesError | MigrationError,
  hasAnswered: boolean,
): MigrationError {
  const broken = cause.cause instanceof WherryError ? cause.cause.what : cause.found;
  return new MigrationError('CONNECTION_LOST', 'The destination closed the connection', {
    ...(cause instanceof MigrationError && broken !== undefined ? { found: broken } : {}),
    path: ['return path'],
    likely: hasAnswered
      ? 'It refused the stream or died: its own error message (query-migrate there, or its log) says why'
      : 'It answered nothing: it has another machine type, wants TLS or another certificate, or expects other channels; its own error message (query-migrate there, or its log) says which',
    cause,
  });
}

/** Says that the destination told of its failure. */
function destinationFailed(status: number): MigrationError {
  return new MigrationError('DESTINATION_FAILED', 'The destination could not load the guest', {
    found: `status ${status} on the return path`,
    likely: 'Its own error message (query-migrate there, or its log) says why',
  });
}

/** Says that a message has no place here. */
export function unexpected({ name }: ReturnPathMessage): MigrationError {
  return new MigrationError('STATE', `The destination sent an unexpected ${name}`, {
    path: ['return path'],
  });
}

/** Says that nobody here can know which side has the guest. */
export function outcomeUnknown(cause: Error): MigrationError {
  return new MigrationError(
    'OUTCOME_UNKNOWN',
    'The connection broke after the whole guest was sent: the destination may run it',
    {
      found: cause.message,
      likely:
        'The guest is kept paused here: look at the destination, and `cont` here only if it does not run there',
      cause,
    },
  );
}
