import { PAGES_PER_PACKET, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import {
  decodeMultifdInit,
  getMultifdHead,
  MULTIFD_INIT_BYTES,
  MULTIFD_MAGIC,
  MULTIFD_VERSION,
  MultifdFlag,
  type MultifdHead,
} from '@wherry/stream';
import { MigrationError } from './migration-error.ts';
import type {
  MultifdCompression,
  MultifdReceived,
  MultifdReceivePort,
  PacketDecompressor,
  PacketTarget,
} from './multifd-port.ts';
import { COMPRESSION_FLAGS, channelLost } from './multifd-send.ts';
import type { Transport } from './transport.ts';

/** Content never grows to this by compression. @see zbuff_len in QEMU's migration/multifd-zlib.c */
const MAX_COMPRESSED_BYTES = 2 * PAGES_PER_PACKET * TARGET_PAGE_BYTES;

/** What belongs to a channel's first packet on this side. */
export interface MultifdExpected {
  /** This guest's UUID; zeroes where it has none. */
  readonly uuid: string;
  readonly channels: number;
}

/**
 * Checks the packet that begins a channel.
 *
 * @returns the channel's id
 * @throws MigrationError `MULTIFD_INVALID`
 * @see multifd_recv_initial_packet in QEMU's migration/multifd.c
 */
export function checkMultifdInit(bytes: Uint8Array, expected: MultifdExpected): number {
  const { magic, version, uuid, id } = decodeMultifdInit(bytes);
  const refuse = (what: string, likely: string): never => {
    throw new MigrationError('MULTIFD_INVALID', what, {
      path: ['multifd', 'initial packet'],
      likely,
    });
  };
  checkMagic(magic, version, refuse);
  if (uuid !== expected.uuid) {
    refuse(
      `multifd: received uuid '${uuid}' and expected uuid '${expected.uuid}' for channel ${id}`,
      'The channel belongs to another guest’s migration, or the two sides were started with other UUIDs',
    );
  }
  if (id >= expected.channels) {
    refuse(
      `multifd: received channel id ${id} is greater than number of channels ${expected.channels}`,
      'Set multifd-channels alike on both sides',
    );
  }
  return id;
}

function checkMagic(
  magic: number,
  version: number,
  refuse: (what: string, likely: string) => never,
): void {
  if (magic !== MULTIFD_MAGIC) {
    refuse(
      `multifd: received packet magic ${magic.toString(16)} expected ${MULTIFD_MAGIC.toString(16)}`,
      'The stream is corrupt, or the connection is no multifd channel',
    );
  }
  if (version !== MULTIFD_VERSION) {
    refuse(
      `multifd: received packet version ${version} expected ${MULTIFD_VERSION}`,
      'The source is of a release that this side does not know',
    );
  }
}

/** What a {@link MultifdReceiveChannel} needs. */
export interface MultifdReceiveOptions {
  readonly pages: PacketTarget;
  readonly id: number;
  /** The connection behind its first packet, owned by the channel from now on. */
  readonly transport: Transport;
  readonly compression: MultifdCompression;
  /** Where there is compression; owned by the channel from now on. */
  readonly decompressor?: PacketDecompressor | undefined;
}

/**
 * Places the pages that one connection brings, in packets.
 *
 * @see multifd_recv_thread in QEMU's migration/multifd.c
 */
export class MultifdReceiveChannel implements MultifdReceivePort {
  readonly #options: MultifdReceiveOptions;
  readonly #pages: PacketTarget;
  #offset = MULTIFD_INIT_BYTES;
  /** Where the packet that is read begins. */
  #packetOffset = 0;
  #compressed = new Uint8Array(0);
  #underWay: Promise<unknown> = Promise.resolve();

  constructor(options: MultifdReceiveOptions) {
    this.#options = options;
    this.#pages = options.pages;
  }

  receive(): Promise<MultifdReceived> {
    const received = this.#receive();
    this.#underWay = received;
    return received;
  }

  async destroy(reason: Error): Promise<void> {
    this.#options.transport.destroy(reason);
    await this.#underWay.catch(() => {});
    this.#options.decompressor?.close();
  }

  async #receive(): Promise<MultifdReceived> {
    const received = { ended: false, normalPages: 0, zeroPages: 0 };
    for (;;) {
      const bytes = this.#pages.startHead();
      this.#packetOffset = this.#offset;
      if (!(await this.#read(bytes, true))) return { ...received, ended: true };
      const head = getMultifdHead(bytes);
      this.#check(head);
      const { normalPages, zeroPages } = head;
      if (normalPages + zeroPages > 0) {
        this.#checkPages(head);
        await this.#readContent(head);
        this.#pages.place(head);
        received.normalPages += normalPages;
        received.zeroPages += zeroPages;
      }
      if ((head.flags & MultifdFlag.sync) !== 0) return received;
    }
  }

  /** @see multifd_ram_unfill_packet in QEMU's migration/multifd-nocomp.c */
  #check({ magic, version, flags, pagesAlloc, normalPages, zeroPages }: MultifdHead): void {
    checkMagic(magic, version, (what, likely) => this.#refuse(what, likely));
    const likely =
      'The stream is corrupt, or the source is of a release that this side does not know';
    if ((flags & MultifdFlag.deviceState) !== 0) {
      this.#refuse(
        'multifd: received device state',
        'No device here takes its state from a channel',
      );
    }
    if (pagesAlloc > PAGES_PER_PACKET) {
      this.#refuse(
        `multifd: received packet with ${pagesAlloc} pages, expected ${PAGES_PER_PACKET}`,
        'The source has another target page size, or the stream is corrupt',
      );
    }
    if (normalPages > pagesAlloc) {
      this.#refuse(
        `multifd: received packet with ${normalPages} non-zero pages, which exceeds maximum expected pages ${pagesAlloc}`,
        likely,
      );
    }
    if (zeroPages > pagesAlloc - normalPages) {
      this.#refuse(
        `multifd: received packet with ${zeroPages} zero pages, expected maximum ${pagesAlloc - normalPages}`,
        likely,
      );
    }
  }

  #checkPages({ flags, normalPages, zeroPages, block: name }: MultifdHead): void {
    const { id, compression } = this.#options;
    const [found, expected] = [flags & MultifdFlag.compression, COMPRESSION_FLAGS[compression]];
    if (found !== expected) {
      this.#refuse(
        `multifd ${id}: flags received ${found.toString(16)} flags expected ${expected.toString(16)}`,
        'Set multifd-compression alike on both sides',
      );
    }
    const block = this.#pages.block(name);
    if (block === undefined) {
      const names = this.#pages.blockNames.join(', ');
      this.#refuse(
        `multifd: unknown ram block ${name}`,
        `Give both sides the same memory options; here are ${names}`,
      );
    }
    const wrong = this.#pages.checkOffsets(block, normalPages + zeroPages);
    if (wrong === undefined) return;
    this.#refuse(
      wrong % BigInt(TARGET_PAGE_BYTES) === 0n
        ? `multifd: offset too long ${wrong} (max ${block.lengthBytes.toString(16)})`
        : `multifd: offset ${wrong} is no multiple of ${TARGET_PAGE_BYTES}`,
      'Its length differs on the source, or the stream is corrupt',
      name,
    );
  }

  async #readContent({ normalPages, contentBytes }: MultifdHead): Promise<void> {
    const { id, decompressor } = this.#options;
    const room = this.#pages.room(normalPages);
    if (normalPages === 0) return;
    if (decompressor === undefined) {
      await this.#read(room, false);
      return;
    }
    if (contentBytes === 0 || contentBytes > MAX_COMPRESSED_BYTES) {
      this.#refuse(
        `multifd ${id}: packet of ${contentBytes} compressed bytes, expected 1 to ${MAX_COMPRESSED_BYTES}`,
        'The stream is corrupt',
      );
    }
    if (this.#compressed.length < contentBytes) this.#compressed = new Uint8Array(contentBytes);
    const bytes = this.#compressed.subarray(0, contentBytes);
    await this.#read(bytes, false);
    let count: number;
    try {
      count = await decompressor.decompress(bytes, room);
    } catch (cause) {
      const found = cause instanceof Error ? cause.message : String(cause);
      return this.#refuse(`multifd ${id}: inflate failed: ${found}`, 'The stream is corrupt');
    }
    if (count === room.length) return;
    const came = count > room.length ? `more than ${room.length}` : `${count}`;
    this.#refuse(
      `multifd ${id}: packet size received ${came} size expected ${room.length}`,
      'The stream is corrupt, or made to exhaust this side',
    );
  }

  /** Fills `into`. @returns false when the connection ends before the first byte, and may */
  async #read(into: Uint8Array, mayEnd: boolean): Promise<boolean> {
    const { id, transport } = this.#options;
    for (let have = 0; have < into.length; ) {
      let count: number;
      try {
        count = await transport.read(into.subarray(have));
      } catch (cause) {
        throw cause instanceof MigrationError ? cause : channelLost(id, cause);
      }
      if (count === 0 && have === 0 && mayEnd) return false;
      if (count === 0) {
        this.#refuse(
          'multifd: unexpected end inside a packet',
          'The source died, gave up or lost this connection',
        );
      }
      have += count;
      this.#offset += count;
    }
    return true;
  }

  #refuse(what: string, likely: string, block?: string): never {
    throw new MigrationError('MULTIFD_INVALID', what, {
      offset: this.#packetOffset,
      path: ['multifd', `channel ${this.#options.id}`, ...(block === undefined ? [] : [block])],
      likely,
    });
  }
}
