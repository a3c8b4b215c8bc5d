/** Flag bits of a multifd packet. @see MULTIFD_FLAG_* in QEMU's migration/multifd.h */
export const MultifdFlag = {
  sync: 0x01,
  zlib: 0x02,
  zstd: 0x04,
  deviceState: 0x40,
  /** The bits that say how the content is compressed. */
  compression: 0x3e,
} as const;

/** Begins every packet of a channel; the main stream begins with `QEVM`. */
export const MULTIFD_MAGIC = 0x11223344;
/** Version of the packets. */
export const MULTIFD_VERSION = 1;
/** Bytes of the packet that begins a channel. */
export const MULTIFD_INIT_BYTES = 64;

const UUID_BYTES = 16;
const UUID = 8;
const ID = 24;
const NAME = 64;
const NAME_BYTES = 256;

/** The packet that begins a channel. */
export interface MultifdInit {
  readonly magic: number;
  readonly version: number;
  /** The source guest's UUID in text; zeroes where it has none. */
  readonly uuid: string;
  readonly id: number;
}

/** The fields of a packet's head; be64 offsets of its pages follow, the content behind them. */
export interface MultifdHead {
  readonly magic: number;
  readonly version: number;
  readonly flags: number;
  /** Pages that the head has room for; 0 in a SYNC packet. */
  readonly pagesAlloc: number;
  readonly normalPages: number;
  /** Bytes of content. */
  readonly contentBytes: number;
  readonly packetNum: bigint;
  readonly zeroPages: number;
  /** RAM block of all its pages; empty in a SYNC packet. */
  readonly block: string;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Writes a UUID's 16 bytes as text. */
function formatUuid(bytes: Uint8Array): string {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/**
 * Encodes the packet that begins a channel, 64 bytes.
 *
 * @param uuid 32 hexadecimal digits, with dashes or without
 * @see MultiFDInit_t in QEMU's migration/multifd.c
 */
export function encodeMultifdInit(id: number, uuid: string): Uint8Array {
  const bytes = new Uint8Array(MULTIFD_INIT_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MULTIFD_MAGIC);
  view.setUint32(4, MULTIFD_VERSION);
  const digits = uuid.replaceAll('-', '');
  for (let i = 0; i < UUID_BYTES; i++) {
    bytes[UUID + i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  }
  bytes[ID] = id;
  return bytes;
}

/** Decodes the packet that begins a channel; nothing is checked. */
export function decodeMultifdInit(bytes: Uint8Array): MultifdInit {
  const view = viewOf(bytes);
  return {
    magic: view.getUint32(0),
    version: view.getUint32(4),
    uuid: formatUuid(bytes.subarray(UUID, UUID + UUID_BYTES)),
    id: bytes[ID]!,
  };
}

/**
 * Writes the fields of a packet's head over its first 320 bytes, which were zero.
 *
 * @see MultiFDPacket_t in QEMU's migration/multifd.h
 */
export function putMultifdHead(
  bytes: Uint8Array,
  head: Omit<MultifdHead, 'magic' | 'version'>,
): void {
  const view = viewOf(bytes);
  view.setUint32(0, MULTIFD_MAGIC);
  view.setUint32(4, MULTIFD_VERSION);
  view.setUint32(8, head.flags);
  view.setUint32(12, head.pagesAlloc);
  view.setUint32(16, head.normalPages);
  view.setUint32(20, head.contentBytes);
  view.setBigUint64(24, head.packetNum);
  view.setUint32(32, head.zeroPages);
  bytes.set(new TextEncoder().encode(head.block), NAME);
}

/** Reads the fields of a packet's head; nothing is checked. */
export function getMultifdHead(bytes: Uint8Array): MultifdHead {
  const view = viewOf(bytes);
  const name = bytes.slice(NAME, NAME + NAME_BYTES); // the text decoder takes no shared memory
  const end = name.indexOf(0);
  return {
    magic: view.getUint32(0),
    version: view.getUint32(4),
    flags: view.getUint32(8),
    pagesAlloc: view.getUint32(12),
    normalPages: view.getUint32(16),
    contentBytes: view.getUint32(20),
    packetNum: view.getBigUint64(24),
    zeroPages: view.getUint32(32),
    // QEMU ends the name at byte 255 at the latest.
    block: new TextDecoder().decode(name.subarray(0, end === -1 ? NAME_BYTES - 1 : end)),
  };
}
