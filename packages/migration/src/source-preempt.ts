import { RamFlag, writeRamWord } from '@wherry/stream';
import { type Chunk, OutputChannel } from './channels.ts';
import { MigrationError } from './migration-error.ts';
import type { OpenChannel } from './source-options.ts';
import type { Transport } from './transport.ts';

/**
 * Tells whether the machine type has its preempt channel from the beginning, and an end mark on it:
 * those of 7.2 and before do. Later ones open it when postcopy begins, and just close it.
 *
 * @see x-preempt-pre-7-2 in QEMU's hw/core/machine.c
 */
export function hasEarlyPreempt(machineType: string): boolean {
  const [, major, minor] = /-(\d+)\.(\d+)$/.exec(machineType) ?? [];
  return major !== undefined && Number(major) + Number(minor) / 100 < 8;
}

/** What answers requests: `RamSender` of a guest memory is one. */
export interface RequestedChunks {
  /** Whether there are requests that could not be answered yet. */
  readonly hasRequests: boolean;
  /** Encodes the next requested pages for a channel of their own. */
  nextRequested(): Chunk | undefined;
}

/** What {@link SourcePreempt} needs. */
export interface SourcePreemptOptions {
  readonly sender: RequestedChunks;
  /** Opens a connection more to where the main one goes. */
  readonly open: OpenChannel | undefined;
  /** Called when a host page is requested that the main channel is inside of. */
  readonly onAwaited: () => void;
  /** Called when the channel breaks. */
  readonly onBroken: (error: MigrationError) => void;
}

/**
 * The source's channel for requested pages: they go out at once, whatever is on its way over the main
 * one, and inside whatever host page that is.
 *
 * @see ram_save_queue_pages in QEMU's migration/ram.c, postcopy_preempt_establish_channel in its
 *   migration/postcopy-ram.c
 */
export class SourcePreempt {
  readonly #options: SourcePreemptOptions;
  readonly #stopped = new AbortController();
  #connecting: Promise<void> | undefined;
  #transport: Transport | undefined;
  #output: OutputChannel | undefined;
  /** What ended the destination's direction, in which nothing comes: it refuses the channel. */
  #closed: unknown;
  #isServing = false;
  #serving: Promise<void> = Promise.resolve();

  constructor(options: SourcePreemptOptions) {
    this.#options = options;
  }

  /** Bytes handed to the connection. */
  get bytes(): number {
    return this.#output?.bytes ?? 0;
  }

  /** Begins to connect; {@link SourcePreempt.ready} says how it went. */
  connect(): void {
    this.#connecting ??= this.#connect();
    this.#connecting.catch(() => {});
  }

  /** Resolves when the channel is there. @throws MigrationError `CONNECTION_LOST` */
  ready(): Promise<void> {
    this.connect();
    return this.#connecting!;
  }

  async #connect(): Promise<void> {
    const { signal } = this.#stopped;
    try {
      const { open } = this.#options;
      if (open === undefined) throw new Error('the migration was made without openChannel');
      const transport = await open(signal);
      if (signal.aborted) transport.destroy(signal.reason);
      signal.throwIfAborted();
      this.#transport = transport;
      this.#output = new OutputChannel(transport);
      transport.read(new Uint8Array(1)).then(
        () => {
          this.#closed = 'the destination closed it';
        },
        (error) => {
          this.#closed = error;
        },
      );
    } catch (cause) {
      throw broken('Failed to establish preempt channel', cause);
    }
  }

  /** Tells whether the destination has refused the channel so far. @throws MigrationError `CONNECTION_LOST` */
  checkOpen(): void {
    if (this.#closed !== undefined) {
      throw broken('Failed to establish preempt channel', this.#closed);
    }
  }

  /** Answers the requests that the sender holds, until none is left. */
  serve(): void {
    const output = this.#output;
    if (output === undefined || this.#isServing) return;
    this.#isServing = true;
    this.#serving = this.#serve(output).catch((cause) =>
      this.#options.onBroken(broken('The preempt channel broke', cause)),
    );
  }

  async #serve(output: OutputChannel): Promise<void> {
    const { sender, onAwaited } = this.#options;
    for (;;) {
      const chunk = sender.nextRequested();
      if (sender.hasRequests) onAwaited();
      if (chunk === undefined) break;
      await output.sendChunk(chunk);
    }
    this.#isServing = false; // a request begins anew from here on
    await output.flush(); // says what went wrong
  }

  /** Resolves when no answer is on its way any more, sent or failed. */
  settled(): Promise<void> {
    return this.#serving;
  }

  /** Says that nothing follows. @throws MigrationError `CONNECTION_LOST` */
  async end(): Promise<void> {
    const output = this.#output!;
    writeRamWord(output.frames, 0, RamFlag.eos);
    try {
      await output.flush();
    } catch (cause) {
      throw broken('The preempt channel broke', cause);
    }
  }

  /** Drops the channel. */
  stopWith(reason: Error | undefined): void {
    this.#stopped.abort(reason);
    this.#transport?.destroy(reason);
  }
}

function broken(what: string, cause: unknown): MigrationError {
  if (cause instanceof MigrationError) return cause; // this side gave up
  return new MigrationError('CONNECTION_LOST', what, {
    found: cause instanceof Error ? cause.message : String(cause),
    path: ['preempt channel'],
    likely:
      'The destination died, the network between the two failed, or postcopy-preempt is off there',
    cause,
  });
}
