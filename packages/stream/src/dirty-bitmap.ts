import { type ByteReader, type ByteWriter, counted, need, type Parser } from '@wherry/bytes';
import { StreamError } from './stream-error.ts';

/** The section of dirty bitmaps. */
export const BITMAP_SECTION = { idstr: 'dirty-bitmap', instanceId: 0, version: 1 } as const;

const Flag = {
  eos: 0x01,
  zeroes: 0x02,
  bitmapName: 0x04,
  nodeName: 0x08,
  start: 0x10,
  complete: 0x20,
  bits: 0x40,
  extraFlags: 0x80,
} as const;
const StartFlag = { enabled: 1, persistent: 2, ignored: 4 } as const;
const START_FLAGS = StartFlag.enabled | StartFlag.persistent | StartFlag.ignored;
const SECTOR_BYTES = 512;
/** Bytes of bits that a chunk carries, and that a reader takes at most. */
export const BITMAP_CHUNK_BYTES = 1024;
const MAX_CHUNK_BYTES = 10 * BITMAP_CHUNK_BYTES;
/** To this the length of a chunk's bits is rounded up. */
const ALIGN_BYTES = 32;

/** Says which bitmap a chunk is about. */
interface BitmapNames {
  readonly node: string;
  readonly bitmap: string;
}

/** One chunk of a section of dirty bitmaps; offsets and lengths are bytes of the disk. */
export type BitmapChunk = { readonly offset: number } & (
  | (BitmapNames & {
      readonly kind: 'start';
      readonly granularityBytes: number;
      readonly enabled: boolean;
      readonly persistent: boolean;
    })
  | (BitmapNames & {
      readonly kind: 'bits';
      readonly diskOffset: number;
      readonly diskBytes: number;
      /** LSB first; undefined where no bit is set. Belongs to the caller. */
      readonly bits: Uint8Array | undefined;
    })
  | (BitmapNames & { readonly kind: 'complete' })
  | { readonly kind: 'eos' }
);

/** Gives the bytes of a chunk's bits: whole 64-bit words, rounded up to what QEMU sends. */
export function bitmapChunkBytes(
  diskBytes: number,
  granularityBytes: number,
): { readonly least: number; readonly sent: number } {
  const least = Math.ceil(Math.ceil(diskBytes / granularityBytes) / 64) * 8;
  return { least, sent: Math.ceil(least / ALIGN_BYTES) * ALIGN_BYTES };
}

/**
 * Writes the chunks of dirty bitmaps: a name is left out where it is that of the chunk before, also across
 * sections.
 *
 * @see send_bitmap_header and its callers in QEMU's migration/block-dirty-bitmap.c
 */
export class BitmapChunkWriter {
  #node: string | undefined;
  #bitmap: string | undefined;

  start(
    writer: ByteWriter,
    names: BitmapNames,
    granularityBytes: number,
    state: { readonly enabled: boolean; readonly persistent: boolean },
  ): void {
    this.#head(writer, names, Flag.start);
    writer.u32(granularityBytes);
    writer.u8(
      (state.enabled ? StartFlag.enabled : 0) | (state.persistent ? StartFlag.persistent : 0),
    );
  }

  /** @param bits as many bytes as {@link bitmapChunkBytes} says are sent; undefined where none is set */
  bits(
    writer: ByteWriter,
    names: BitmapNames,
    diskOffset: number,
    diskBytes: number,
    bits: Uint8Array | undefined,
  ): void {
    this.#head(writer, names, bits === undefined ? Flag.bits | Flag.zeroes : Flag.bits);
    writer.u64(BigInt(diskOffset / SECTOR_BYTES)).u32(Math.ceil(diskBytes / SECTOR_BYTES));
    if (bits !== undefined) writer.u64(BigInt(bits.length)).raw(bits);
  }

  complete(writer: ByteWriter, names: BitmapNames): void {
    this.#head(writer, names, Flag.complete);
  }

  /** Has the next chunk name its bitmap, as when what was sent may be lost; a reader knows the last node for ever. */
  renameBitmap(): void {
    this.#bitmap = undefined;
  }

  /** The end of a section. */
  eos(writer: ByteWriter): void {
    writer.u8(Flag.eos);
  }

  #head(writer: ByteWriter, { node, bitmap }: BitmapNames, flags: number): void {
    const isNewNode = node !== this.#node;
    const isNewBitmap = isNewNode || bitmap !== this.#bitmap;
    writer.u8(flags | (isNewNode ? Flag.nodeName : 0) | (isNewBitmap ? Flag.bitmapName : 0));
    if (isNewNode) writer.counted(node);
    if (isNewBitmap) writer.counted(bitmap);
    this.#node = node;
    this.#bitmap = bitmap;
  }
}

/** Reads the chunks of dirty bitmaps. @see dirty_bitmap_load in QEMU's migration/block-dirty-bitmap.c */
export class BitmapChunkReader {
  #node: string | undefined;
  #bitmap: string | undefined;

  /** Reads one chunk. @throws StreamError `LIVE_SECTION_INVALID` */
  *read(reader: ByteReader): Parser<BitmapChunk> {
    yield* need(reader, 1);
    const { offset } = reader;
    const flags = reader.u8();
    if ((flags & Flag.extraFlags) !== 0) {
      throw invalid('flags below 0x80', `0x${flags.toString(16)}`, offset);
    }
    if (flags === Flag.eos) return { kind: 'eos', offset };
    if ((flags & Flag.nodeName) !== 0) this.#node = yield* counted(reader);
    if ((flags & Flag.bitmapName) !== 0) this.#bitmap = yield* counted(reader);
    const [node, bitmap] = [this.#node, this.#bitmap];
    if (node === undefined || bitmap === undefined) {
      throw invalid('the names of a node and a bitmap', 'none so far', offset);
    }
    const names = { node, bitmap, offset };
    switch (flags & (Flag.start | Flag.complete | Flag.bits | Flag.eos)) {
      case Flag.start:
        return { ...names, kind: 'start', ...(yield* readStart(reader)) };
      case Flag.complete:
        return { ...names, kind: 'complete' };
      case Flag.bits:
        return {
          ...names,
          kind: 'bits',
          ...(yield* readBits(reader, (flags & Flag.zeroes) !== 0)),
        };
      default:
        throw invalid('a start, bits, completion or the end', `0x${flags.toString(16)}`, offset);
    }
  }
}

function* readStart(reader: ByteReader): Parser<{
  readonly granularityBytes: number;
  readonly enabled: boolean;
  readonly persistent: boolean;
}> {
  yield* need(reader, 5);
  const granularityBytes = reader.u32();
  const { offset } = reader;
  const flags = reader.u8();
  if ((flags & ~START_FLAGS) !== 0)
    throw invalid('flags below 8', `0x${flags.toString(16)}`, offset);
  return {
    granularityBytes,
    enabled: (flags & StartFlag.enabled) !== 0,
    persistent: (flags & StartFlag.persistent) !== 0,
  };
}

function* readBits(
  reader: ByteReader,
  isZero: boolean,
): Parser<{
  readonly diskOffset: number;
  readonly diskBytes: number;
  readonly bits: Uint8Array | undefined;
}> {
  yield* need(reader, 12);
  const { offset } = reader;
  const diskOffset = reader.size() * SECTOR_BYTES;
  if (!Number.isSafeInteger(diskOffset)) throw invalid('less than 2^44 sectors', 'more', offset);
  const diskBytes = reader.u32() * SECTOR_BYTES;
  if (isZero) return { diskOffset, diskBytes, bits: undefined };
  yield* need(reader, 8);
  const sizeOffset = reader.offset;
  const size = reader.size();
  if (size > MAX_CHUNK_BYTES)
    throw invalid(`at most ${MAX_CHUNK_BYTES} bytes`, `${size}`, sizeOffset);
  yield* need(reader, size);
  return { diskOffset, diskBytes, bits: reader.copy(size) };
}

function invalid(expected: string, found: string, offset: number): StreamError {
  return new StreamError('LIVE_SECTION_INVALID', 'A section of dirty-bitmap is not usable', {
    expected,
    found,
    offset,
    path: [BITMAP_SECTION.idstr],
    likely: 'The stream is damaged before this point, or a newer release wrote it',
  });
}
