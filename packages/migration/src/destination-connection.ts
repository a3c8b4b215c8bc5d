import { ByteWriter } from '@wherry/bytes';
import { type ReturnPathMessage, writeReturnPathMessage } from '@wherry/stream';
import { InputChannel } from './channels.ts';
import type { Clock } from './clock.ts';
import { MigrationError } from './migration-error.ts';
import type { Transport } from './transport.ts';

/** How long a source may take to close after it was told of a failure. */
const LAST_WORD_MS = 1000;

/** A destination's connection from its source: the stream, and the answers on the return path. */
export class DestinationConnection {
  readonly input: InputChannel;
  readonly #transport: Transport;
  readonly #storage: Uint8Array;
  readonly #answers = new ByteWriter(64);
  #answering: Promise<void> = Promise.resolve();
  /** Whether the source reads answers. */
  returnPathOpen = false;

  /** @param storage where the stream's unread bytes are kept */
  constructor(transport: Transport, storage: Uint8Array) {
    this.#transport = transport;
    this.#storage = storage;
    this.input = new InputChannel(transport, 'stream', storage);
  }

  /** Drops the connection: what is under way fails with `reason`. */
  destroy(reason: Error): void {
    this.#transport.destroy(reason);
  }

  /** Ends and lets go of the connection. */
  async close(): Promise<void> {
    await this.#transport.end().catch(() => {});
    this.#transport.destroy();
  }

  /** Sends one message back, after those before it. */
  answer(message: ReturnPathMessage): Promise<void> {
    if (!this.returnPathOpen) {
      if (message.name === 'shut') return Promise.resolve();
      throw new MigrationError(
        'COMMAND_UNEXPECTED',
        `${message.name} is due, but no return path is open`,
        {
          likely: 'The source pinged without OPEN_RETURN_PATH: it breaks the protocol',
        },
      );
    }
    this.#answering = this.#answering.then(() => this.#write(message));
    return this.#answering;
  }

  async #write(message: ReturnPathMessage): Promise<void> {
    writeReturnPathMessage(this.#answers, message);
    try {
      await this.#transport.write(this.#answers.finish());
    } catch (cause) {
      throw new MigrationError('CONNECTION_LOST', `The connection broke under ${message.name}`, {
        found: cause instanceof Error ? cause.message : String(cause),
        offset: this.input.reader.offset,
        path: ['return path'],
        likely: 'The other side died, or the network between the two failed',
        cause,
      });
    }
  }

  /**
   * Says SHUT 1 and reads on until the source has closed: a connection that is closed over unread data
   * is reset, and the source might lose the word that its guest may run.
   */
  async tellFailure(clock: Clock): Promise<void> {
    if (!this.returnPathOpen) return;
    const transport = this.#transport;
    const closed = new AbortController();
    const patience = clock.sleep(LAST_WORD_MS, closed.signal).then(() => transport.destroy());
    patience.catch(() => {}); // it was not needed
    try {
      await this.answer({ name: 'shut', status: 1 });
      await transport.end();
      while ((await transport.read(this.#storage)) > 0);
    } catch {
      // The source is gone: that tells it as well.
    } finally {
      closed.abort(new Error('closed'));
    }
  }
}
