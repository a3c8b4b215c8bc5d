import type { PacketCounts, PageList } from '@wherry/page-engine';
import type { MultifdHead } from '@wherry/stream';

/** How the content of packets is compressed. @see MultiFDCompression in QEMU's qapi/migration.json */
export const MULTIFD_COMPRESSIONS = ['none', 'zlib', 'zstd'] as const;
export type MultifdCompression = (typeof MULTIFD_COMPRESSIONS)[number];

/** What a channel was given, besides the pages themselves. */
export interface MultifdSent extends PacketCounts {
  readonly bytes: number;
}

/** What came through a channel up to a SYNC, or to its end. */
export interface MultifdReceived extends PacketCounts {
  /** Whether the source has ended the channel: no SYNC came. */
  readonly ended: boolean;
}

/** Pages for a channel to send: of a guest memory, or of a guest in a file. */
export interface SendList {
  /** Counts target pages. */
  readonly pages: number;
}

/**
 * A source's multifd channel, wherever its socket and thread are. Calls are served in their order; a
 * failure rejects them all with a MigrationError that names the channel.
 */
export interface MultifdSendPort<List extends SendList = PageList> {
  /** Sends the pages of a list in packets; the first is `packetNum`. Resolves when the list is free. */
  send(list: List, packetNum: number): Promise<MultifdSent>;
  /** Sends a SYNC packet. @returns its bytes */
  sync(packetNum: number): Promise<number>;
  /** Ends the connection after what was sent; resolves when the channel uses nothing any more. */
  end(): Promise<void>;
  /** Drops the connection: what is under way rejects; resolves when the channel uses nothing any more. */
  destroy(reason: Error): Promise<void>;
}

/** A destination's multifd channel, wherever its socket and thread are. */
export interface MultifdReceivePort {
  /**
   * Places the pages that come, to the next SYNC: what is behind it stays unread until the next call.
   *
   * @throws MigrationError `MULTIFD_INVALID`, `CONNECTION_LOST`, naming the channel
   */
  receive(): Promise<MultifdReceived>;
  /** Drops the connection; resolves when the channel uses nothing any more. */
  destroy(reason: Error): Promise<void>;
}

/** Compresses the content of one channel's packets in one context. */
export interface PacketCompressor {
  /** Compresses content so that all of it can be read from what was given so far; it must not change meanwhile. */
  compress(content: Uint8Array): Promise<Uint8Array>;
  close(): void;
}

/** Reads what a {@link PacketCompressor} made, in one context. */
export interface PacketDecompressor {
  /**
   * Reads one packet's content.
   *
   * @returns the bytes that came out, of which `into` got as many as it holds; reading ends soon behind that
   * @throws Error when the data are damaged
   */
  decompress(bytes: Uint8Array, into: Uint8Array): Promise<number>;
  close(): void;
}

/** Where one channel's packets come from: `PacketPages` of a guest memory is one. */
export interface PacketSource<List extends SendList> {
  /** Counts the target pages that a packet has room for. */
  readonly pagesPerPacket: number;
  /** Name of the RAM block whose pages were put into the packet. */
  readonly blockName: string;
  /** The packet's head: 320 bytes of fields, then a be64 offset for each page that there is room for. */
  readonly head: Uint8Array;
  /** Gives where a head without pages is to be put. */
  startHead(): Uint8Array;
  /** Names the pages of a list from `from` on in a head whose other bytes are zero. */
  fill(list: List, from: number, findZeroPages: boolean): PacketCounts;
  /** Views the content of the packet. @param copied whether it must stand still */
  content(copied: boolean): Uint8Array;
}

/** A RAM block, as far as a packet needs it. */
interface PacketBlock {
  readonly lengthBytes: number;
}

/** Where the pages of one channel's packets go: `PacketPages` of a guest memory is one. */
export interface PacketTarget {
  /** Gives where the next packet's head of 1344 bytes is to be read into. */
  startHead(): Uint8Array;
  block(name: string): PacketBlock | undefined;
  readonly blockNames: readonly string[];
  /** @returns the first of the head's offsets that is no page of the block, if there is one */
  checkOffsets(block: PacketBlock, pages: number): bigint | undefined;
  /** Gives where the content of that many pages is to be read into. */
  room(normalPages: number): Uint8Array;
  /** Takes the pages of the packet, whose content has been read. */
  place(head: MultifdHead): void;
}
