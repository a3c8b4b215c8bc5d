import type { PageList } from '@wherry/page-engine';
import { encodeMultifdInit, MultifdFlag, putMultifdHead } from '@wherry/stream';
import { MigrationError } from './migration-error.ts';
import type {
  MultifdCompression,
  MultifdSendPort,
  MultifdSent,
  PacketCompressor,
  PacketSource,
  SendList,
} from './multifd-port.ts';
import type { Transport } from './transport.ts';

/** The bits of a packet's flags for each compression. */
export const COMPRESSION_FLAGS: Readonly<Record<MultifdCompression, number>> = {
  none: 0,
  zlib: MultifdFlag.zlib,
  zstd: MultifdFlag.zstd,
};

/** Says that a channel's connection broke. */
export function channelLost(id: number, cause: unknown): MigrationError {
  return new MigrationError('CONNECTION_LOST', `multifd channel ${id}: the connection broke`, {
    found: cause instanceof Error ? cause.message : String(cause),
    likely:
      'The other side gave up (its own error message says why) or died, or the network between the two failed',
    cause,
  });
}

/** What a {@link MultifdSendChannel} needs. */
export interface MultifdSendOptions<List extends SendList = PageList> {
  readonly pages: PacketSource<List>;
  readonly id: number;
  /** A connection to the destination's address, owned by the channel from now on. */
  readonly transport: Transport;
  /** The guest's UUID; zeroes where it has none. */
  readonly uuid: string;
  /** Whether pages are looked at for zeroes here: `zero-page-detection=multifd`. */
  readonly findZeroPages: boolean;
  readonly compression: MultifdCompression;
  /** Where there is compression; owned by the channel from now on. */
  readonly compressor?: PacketCompressor | undefined;
}

/**
 * Sends pages through one connection, in packets. What the calls say goes out in their order.
 *
 * @see multifd_send_thread in QEMU's migration/multifd.c
 */
export class MultifdSendChannel<List extends SendList = PageList> implements MultifdSendPort<List> {
  readonly #options: MultifdSendOptions<List>;
  readonly #pages: PacketSource<List>;
  #underWay: Promise<unknown>;

  /** Begins the channel: its first packet is on its way. */
  constructor(options: MultifdSendOptions<List>) {
    this.#options = options;
    this.#pages = options.pages;
    this.#underWay = this.#write(encodeMultifdInit(options.id, options.uuid));
    this.#underWay.catch(() => {}); // the next call reports it
  }

  send(list: List, packetNum: number): Promise<MultifdSent> {
    return this.#inOrder(async () => {
      const sent = { bytes: 0, normalPages: 0, zeroPages: 0 };
      const { pagesPerPacket } = this.#pages;
      for (let from = 0; from < list.pages; from += pagesPerPacket) {
        const packet = await this.#sendPacket(list, from, packetNum + from / pagesPerPacket);
        sent.bytes += packet.bytes;
        sent.normalPages += packet.normalPages;
        sent.zeroPages += packet.zeroPages;
      }
      return sent;
    });
  }

  sync(packetNum: number): Promise<number> {
    return this.#inOrder(async () => {
      const head = this.#pages.startHead().fill(0);
      putMultifdHead(head, {
        flags: MultifdFlag.sync,
        pagesAlloc: 0,
        normalPages: 0,
        contentBytes: 0,
        packetNum: BigInt(packetNum),
        zeroPages: 0,
        block: '',
      });
      await this.#write(head);
      return head.length;
    });
  }

  async end(): Promise<void> {
    await this.#inOrder(() => this.#options.transport.end()).catch(() => {});
    this.#options.transport.destroy();
    this.#options.compressor?.close();
  }

  async destroy(reason: Error): Promise<void> {
    this.#options.transport.destroy(reason);
    await this.#underWay.catch(() => {});
    this.#options.compressor?.close();
  }

  async #sendPacket(list: List, from: number, packetNum: number): Promise<MultifdSent> {
    const { compression, compressor, findZeroPages } = this.#options;
    const { normalPages, zeroPages } = this.#pages.fill(list, from, findZeroPages);
    let content = new Uint8Array(0);
    if (normalPages > 0) {
      content = this.#pages.content(compressor !== undefined) as Uint8Array<ArrayBuffer>;
      if (compressor !== undefined) {
        content = (await compressor.compress(content)) as Uint8Array<ArrayBuffer>;
      }
    }
    const { head, blockName: block, pagesPerPacket: pagesAlloc } = this.#pages;
    putMultifdHead(head, {
      flags: COMPRESSION_FLAGS[compression],
      pagesAlloc,
      normalPages,
      contentBytes: content.length,
      packetNum: BigInt(packetNum),
      zeroPages,
      block,
    });
    await this.#write(head);
    if (content.length > 0) await this.#write(content);
    return { bytes: head.length + content.length, normalPages, zeroPages };
  }

  #inOrder<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#underWay.then(run);
    this.#underWay = result;
    result.catch(() => {}); // its caller sees it, and so does the next call
    return result;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    try {
      await this.#options.transport.write(bytes);
    } catch (cause) {
      throw cause instanceof MigrationError ? cause : channelLost(this.#options.id, cause);
    }
  }
}
