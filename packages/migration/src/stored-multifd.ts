import { RamFlag, writeRamWord } from '@wherry/stream';
import type { OutputChannel } from './channels.ts';
import { defaultParameters, flushesAfterEachSection } from './machine-defaults.ts';
import { MigrationError } from './migration-error.ts';
import type { MultifdSendPort, MultifdSent } from './multifd-port.ts';
import { MultifdSource } from './multifd-source.ts';
import type { Parameters } from './parameters.ts';
import type { StoredGuestPort } from './stored-guest-port.ts';
import type { StoredList, StoredPages } from './stored-pages.ts';

/** Pages in a list, at most: those of one packet. */
const LIST_PAGES = 128;
/** How long a destination may take to answer once it has its channels. */
export const BEGIN_MS = 10_000;

/** The channels through which the pages of a guest in a file go. */
export interface StoredChannels {
  /** In the order of their ids, owned by the source from now on. */
  readonly ports: readonly MultifdSendPort<StoredList>[];
  /** Where zero pages go: through the main channel with `legacy`; default as the machine type has it. */
  readonly zeroPageDetection?: Parameters['zero-page-detection'] | undefined;
}

/**
 * Sends the pages of a guest in a file through channels, and marks in the main stream where the
 * destination has to wait for them.
 */
export class StoredMultifd {
  readonly #pages: StoredPages;
  readonly #channels: MultifdSource<StoredList>;
  readonly #output: OutputChannel;
  readonly #hasZeroRecords: boolean;
  readonly #frames = { multifdFlush: (): void => this.#flush() };

  constructor(
    { configuration }: Pick<StoredGuestPort, 'configuration'>,
    pages: StoredPages,
    { ports: channels, zeroPageDetection }: StoredChannels,
    output: OutputChannel,
  ) {
    // A guest without a configuration is of a machine type before 2.4.
    const machineType = configuration?.machineType ?? 'pc-2.3';
    this.#pages = pages;
    this.#output = output;
    this.#hasZeroRecords =
      (zeroPageDetection ?? defaultParameters(machineType)['zero-page-detection']) === 'legacy';
    this.#channels = new MultifdSource({
      channels,
      flushAfterEachSection: flushesAfterEachSection(machineType),
      onListFree: () => {},
      onSent: () => {},
    });
  }

  /** What went through the channels. */
  get sent(): MultifdSent {
    return this.#channels.sent;
  }

  /** Marks the section with the list of RAM blocks. @throws MigrationError when a channel broke */
  async start(): Promise<void> {
    await this.#channels.sync();
    if (this.#channels.marksRounds) this.#flush();
  }

  /** Sends one list, and the zero pages before its end as records where they go there. @throws MigrationError */
  async sendNext(): Promise<void> {
    await this.#channels.ready();
    const { list, chunk } = this.#pages.nextList(LIST_PAGES, this.#hasZeroRecords);
    if (list !== undefined) this.#channels.send(list);
    if (chunk !== undefined) await this.#output.sendChunk(chunk);
    if (this.#pages.owedPages === 0) await this.#channels.endRound(this.#frames);
  }

  /** Ends a section of RAM, before its end mark. */
  endSection(isLast: boolean): Promise<void> {
    return this.#channels.endSection(this.#frames, isLast);
  }

  /** Ends the channels, behind what was sent. */
  end(): Promise<void> {
    return this.#channels.end();
  }

  /** Drops the channels. */
  destroy(reason: Error): Promise<void> {
    return this.#channels.destroy(reason);
  }

  #flush(): void {
    writeRamWord(this.#output.frames, 0, RamFlag.multifdFlush);
  }
}

/** Says that a destination has not answered within {@link BEGIN_MS}. */
export function noBegin(): MigrationError {
  return new MigrationError('MULTIFD_INVALID', 'The destination does not begin', {
    expected: `an answer within ${BEGIN_MS / 1000} s`,
    path: ['return path'],
    likely: 'It waits for more connections: set multifd-channels there as here',
  });
}
