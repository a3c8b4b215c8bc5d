import { type ByteReader, more, type Parser } from '@wherry/bytes';
import { type ReturnPathMessage, readReturnPathMessage } from '@wherry/stream';
import { passAll } from './follower.ts';

/** The received bitmap of a block of 512 GiB; a longer one passes unread. */
const MAX_BITMAP_BYTES = 16 * 1024 * 1024;

/** Reads what the destination sends back over one connection. */
export class ReturnChannel {
  readonly #isReturnPath: () => boolean;
  readonly #onMessage: (message: ReturnPathMessage, offset: number) => void;
  readonly #counts: Partial<Record<ReturnPathMessage['name'], number>> = {};
  #shutStatus: number | undefined;

  /**
   * @param isReturnPath whether the connection carries one, asked when the first byte is there
   * @param onMessage hears of each message, with the offset behind it
   */
  constructor(
    isReturnPath: () => boolean,
    onMessage: (message: ReturnPathMessage, offset: number) => void,
  ) {
    this.#isReturnPath = isReturnPath;
    this.#onMessage = onMessage;
  }

  /** How many messages of each kind passed. */
  get counts(): Readonly<Partial<Record<ReturnPathMessage['name'], number>>> {
    return this.#counts;
  }

  /** What the destination said at the end: 0 is well. */
  get shutStatus(): number | undefined {
    return this.#shutStatus;
  }

  /** Reads the direction to its end. */
  *read(reader: ByteReader): Parser<void> {
    if (!(yield* more(reader))) return;
    if (!this.#isReturnPath()) return yield* passAll(reader);
    while (yield* more(reader)) {
      const message = yield* readReturnPathMessage(reader, { maxBitmapBytes: MAX_BITMAP_BYTES });
      this.#counts[message.name] = (this.#counts[message.name] ?? 0) + 1;
      if (message.name === 'shut') this.#shutStatus = message.status;
      this.#onMessage(message, reader.offset);
    }
  }
}
