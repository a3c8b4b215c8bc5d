import {
  type MultifdCompression,
  MultifdDestination,
  MultifdReceiveChannel,
  type MultifdReceived,
  type MultifdReceivePort,
  type Transport,
} from '@wherry/migration';
import { decodeMultifdInit, MULTIFD_INIT_BYTES } from '@wherry/stream';
import { createPacketDecompressor } from '@wherry/transport';
import type { MappedRamWriter } from '../ram/mapped-ram-writer.ts';
import { KeptPackets } from './kept-packets.ts';
import { ReceiveError } from './receive-error.ts';

/** The multifd channels of a migration, as many as the source opens. */
export class MultifdChannels {
  readonly count: number;
  readonly #compression: MultifdCompression;
  readonly #writer: MappedRamWriter;
  readonly #transports: Transport[] = [];
  readonly #channels: PromiseWithResolvers<MultifdReceivePort>[];

  constructor(count: number, compression: MultifdCompression, writer: MappedRamWriter) {
    this.count = count;
    this.#compression = compression;
    this.#writer = writer;
    this.#channels = Array.from({ length: count }, () => Promise.withResolvers());
  }

  /**
   * Takes a connection that began as a channel does.
   *
   * @param first the 4 bytes that were read of it
   * @throws ReceiveError `CHANNEL_INVALID`; what reading throws
   */
  async take(transport: Transport, first: Uint8Array): Promise<void> {
    this.#transports.push(transport);
    const bytes = new Uint8Array(MULTIFD_INIT_BYTES);
    bytes.set(first);
    for (let have = first.length; have < bytes.length; ) {
      const count = await transport.read(bytes.subarray(have));
      if (count === 0) throw channelInvalid('64 bytes to begin with', `${have} and the end`);
      have += count;
    }
    const { id } = decodeMultifdInit(bytes);
    const slot = this.#channels[id];
    if (slot === undefined) {
      throw channelInvalid(
        `${this.count} channels`,
        `one with id ${id}`,
        'Say with --multifd how many multifd-channels the source has',
      );
    }
    const compression = this.#compression;
    const decompressor = compression === 'none' ? undefined : createPacketDecompressor(compression);
    const pages = new KeptPackets(this.#writer);
    slot.resolve(new MultifdReceiveChannel({ pages, id, transport, compression, decompressor }));
  }

  /** Begins to receive. @param onFailure hears at once what broke a channel */
  start(flushAfterEachSection: boolean, onFailure: (error: Error) => void): MultifdDestination {
    const channels = this.#channels.map(({ promise }): MultifdReceivePort => {
      promise.catch(() => {});
      return {
        receive: async (): Promise<MultifdReceived> => (await promise).receive(),
        destroy: async (reason) => (await promise).destroy(reason),
      };
    });
    return new MultifdDestination({ channels, flushAfterEachSection, onFailure });
  }

  /** Drops all connections. */
  destroy(): void {
    for (const transport of this.#transports) transport.destroy();
  }
}

function channelInvalid(expected: string, found: string, likely?: string): ReceiveError {
  return new ReceiveError('CHANNEL_INVALID', 'A multifd channel does not fit', {
    expected,
    found,
    likely: likely ?? 'The source died, or lost this connection',
  });
}
