import { type GuestRam, RamReceiver } from '@wherry/page-engine';
import { InputChannel } from './channels.ts';
import type { Clock } from './clock.ts';
import { MigrationError } from './migration-error.ts';
import { RamLoad } from './ram-load.ts';
import type { OpenChannel } from './source-options.ts';
import type { Transport } from './transport.ts';

/** How long the source's second connection may be behind the first. */
const ACCEPT_MS = 30_000;

/** What {@link DestinationPreempt} needs. */
export interface DestinationPreemptOptions {
  readonly ram: GuestRam;
  readonly clock: Clock;
  /** Called when the channel breaks, or brings what it must not. */
  readonly onBroken: (error: MigrationError) => void;
  /** Called when pages may have become present. */
  readonly onPlaced: () => void;
}

/**
 * The destination's channel for requested pages: page records alone, gathered beside those of the main
 * channel.
 *
 * @see postcopy_preempt_thread in QEMU's migration/postcopy-ram.c
 */
export class DestinationPreempt {
  readonly #options: DestinationPreemptOptions;
  readonly #receiver: RamReceiver;
  #stopped = new AbortController();
  #transport: Transport | undefined;
  #reading: Promise<void> = Promise.resolve();
  #allHere: PromiseWithResolvers<void> | undefined;

  constructor(options: DestinationPreemptOptions) {
    this.#options = options;
    this.#receiver = new RamReceiver(options.ram, 'preempt');
  }

  /** Pages that were received. */
  get counters(): RamReceiver['counters'] {
    return this.#receiver.counters;
  }

  /**
   * Takes the source's next connection, in postcopy, and begins to read it: it comes before the first
   * request can.
   *
   * @throws MigrationError `CONNECTION_LOST`, `CAPABILITY_UNSUPPORTED` where nothing accepts one
   */
  async open(accept: OpenChannel | undefined): Promise<void> {
    if (accept === undefined) {
      throw new MigrationError(
        'CAPABILITY_UNSUPPORTED',
        "Capability 'postcopy-preempt' needs a connection more",
        { likely: 'The migration was made without acceptChannel' },
      );
    }
    this.#stopped = new AbortController();
    const { signal } = this.#stopped;
    this.#receiver.reset();
    this.#receiver.enterPostcopy();
    const transport = await this.#accept(accept);
    if (signal.aborted) transport.destroy(signal.reason);
    signal.throwIfAborted();
    this.#transport = transport;
    this.#reading = this.#read(transport);
  }

  async #accept(accept: OpenChannel): Promise<Transport> {
    const { signal } = this.#stopped;
    const waited = new AbortController();
    const late = new AbortController();
    const patience = this.#options.clock.sleep(ACCEPT_MS, waited.signal).then(() => late.abort());
    patience.catch(() => {}); // it came in time
    try {
      return await accept(AbortSignal.any([signal, late.signal]));
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      throw new MigrationError('CONNECTION_LOST', 'The preempt channel did not come', {
        found: late.signal.aborted ? `none within ${ACCEPT_MS / 1000} s` : String(cause),
        path: ['preempt channel'],
        likely: 'postcopy-preempt is off at the source, or the network lets one connection through',
        cause,
      });
    } finally {
      waited.abort(new Error('over'));
    }
  }

  async #read(transport: Transport): Promise<void> {
    const { ram, onPlaced } = this.#options;
    const input = new InputChannel(transport, 'preempt channel', this.#receiver.input.bytes);
    const onDecoded = (): void => {
      onPlaced();
      if (this.#allHere !== undefined && isWhole(ram)) this.#allHere.resolve();
    };
    const load = new RamLoad({ ram }, this.#receiver, new Set(), {
      onDecoded,
      place: 'preempt channel',
    });
    try {
      await input.parse(load.loadRequested(input.reader));
    } catch (error) {
      // Machine types of 8.0 and later end it without a mark, when nothing is missing any more.
      if (!isWhole(ram)) this.#options.onBroken(asMigrationError(error));
    }
  }

  /** Resolves when all pages are here, or nothing more comes. */
  async drained(): Promise<void> {
    if (isWhole(this.#options.ram)) return;
    this.#allHere = Promise.withResolvers();
    await Promise.race([this.#allHere.promise, this.#reading]);
    this.#allHere = undefined;
    this.#stopped.signal.throwIfAborted();
  }

  /** Drops the channel; resolves when it is read no more. */
  async stop(reason: Error): Promise<void> {
    this.#stopped.abort(reason);
    this.#transport?.destroy(reason);
    await this.#reading;
  }
}

function asMigrationError(cause: unknown): MigrationError {
  if (cause instanceof MigrationError) return cause;
  const message = cause instanceof Error ? cause.message : String(cause);
  return new MigrationError('RAM_RECORD_INVALID', message, { path: ['preempt channel'], cause });
}

function isWhole(ram: GuestRam): boolean {
  return ram.blocks.every((block) => block.receivedCount() === block.pageCount);
}
