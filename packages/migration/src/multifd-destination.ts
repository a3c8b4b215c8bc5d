import { checkHasChannels } from './capabilities.ts';
import type { DestinationOptions } from './destination-options.ts';
import { flushesAfterEachSection } from './machine-defaults.ts';
import { MigrationError } from './migration-error.ts';
import type { MultifdReceived, MultifdReceivePort } from './multifd-port.ts';

/** What {@link MultifdDestination} needs. */
interface MultifdDestinationOptions {
  /** In the order of their ids. */
  readonly channels: readonly MultifdReceivePort[];
  /** Whether each section of RAM ends with a SYNC on each channel, rather than each round. */
  readonly flushAfterEachSection: boolean;
  /** Told at once what broke a channel: the main stream may have nothing to say any more. */
  readonly onFailure: (error: Error) => void;
}

/**
 * A destination's channels: each receives up to a SYNC, and goes on once all of them have got there.
 *
 * @see multifd_recv_sync_main in QEMU's migration/multifd.c
 */
export class MultifdDestination {
  readonly #options: MultifdDestinationOptions;
  readonly #received = { normalPages: 0, zeroPages: 0 };
  #isOver = false;
  #pending: readonly Promise<MultifdReceived>[] = [];

  constructor(options: MultifdDestinationOptions) {
    this.#options = options;
    this.#receive();
  }

  /** Pages that came through all channels, up to the last SYNC. */
  get received(): { readonly normalPages: number; readonly zeroPages: number } {
    return this.#received;
  }

  get flushAfterEachSection(): boolean {
    return this.#options.flushAfterEachSection;
  }

  /** Resolves when all pages are in place that were sent before this mark in the main stream. */
  async sync(): Promise<void> {
    for (const [id, { ended, normalPages, zeroPages }] of (
      await Promise.all(this.#pending)
    ).entries()) {
      if (ended) {
        throw new MigrationError('CONNECTION_LOST', `multifd channel ${id}: the connection ended`, {
          expected: 'a SYNC packet for the mark in the main stream',
          found: 'the end of the connection',
          path: ['multifd', `channel ${id}`],
          likely: 'The source died, gave up or lost this connection: its guest runs on',
        });
      }
      this.#received.normalPages += normalPages;
      this.#received.zeroPages += zeroPages;
    }
    this.#receive();
  }

  /** Drops the channels; resolves when nothing is written to guest memory any more. */
  async destroy(): Promise<void> {
    this.#isOver = true;
    const reason = new MigrationError('CANCELLED', 'The channel is not needed any more');
    await Promise.all(this.#options.channels.map((channel) => channel.destroy(reason)));
  }

  #receive(): void {
    this.#pending = this.#options.channels.map((channel) => channel.receive());
    for (const pending of this.#pending) {
      pending.catch((error: Error) => {
        if (!this.#isOver) this.#options.onFailure(error);
      });
    }
  }
}

/**
 * Begins to receive through a migration's channels, if it has some.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED` when it has none and should, or has some in vain
 */
export function receiveChannels(
  { guest, capabilities, multifd: channels }: DestinationOptions,
  onFailure: (error: Error) => void,
): MultifdDestination | undefined {
  checkHasChannels(capabilities, channels);
  if (channels === undefined) return undefined;
  const flushAfterEachSection = flushesAfterEachSection(guest.machineType);
  return new MultifdDestination({ channels, flushAfterEachSection, onFailure });
}
