import type { ByteReader, Parser } from '@wherry/bytes';
import { RamFlag, SectionType } from '@wherry/stream';
import type { RamBlockModel } from './stream-model.ts';

/** Sizes of target pages, the usual ones first; QEMU's smallest is 1 KiB. */
const PAGE_SIZES = [4096, 8192, 16384, 65536, 32768, 2048, 1024] as const;
/** Taken where nothing tells: nearly all machines have it. */
const USUAL_PAGE_BYTES = 4096;

const decoder = new TextDecoder();

/**
 * Finds the target page size from the first page of a stream that does not state it: it is the size
 * behind which another record stands. The reader is at the page's first byte.
 *
 * A machine whose page size cannot vary never states it (sparc64, alpha: 8 KiB; old Arm boards: 1 KiB).
 */
export function* deducePageBytes(
  reader: ByteReader,
  blocks: ReadonlyMap<string, RamBlockModel>,
  block: RamBlockModel,
): Parser<number> {
  for (const pageBytes of PAGE_SIZES) {
    if (yield* isRecordAt(reader, pageBytes, pageBytes, blocks, block)) return pageBytes;
  }
  return USUAL_PAGE_BYTES;
}

function* isRecordAt(
  reader: ByteReader,
  at: number,
  pageBytes: number,
  blocks: ReadonlyMap<string, RamBlockModel>,
  block: RamBlockModel,
): Parser<boolean> {
  if (!(yield* ahead(reader, at + 9))) return false;
  const low = reader.peekU32(at + 4);
  const flags = low & 0x3ff;
  const pageOffset = reader.peekU32(at) * 2 ** 32 + (low - flags);
  switch (flags & ~RamFlag.continue) {
    case RamFlag.eos: {
      const next = reader.peekU8(at + 8);
      const isItem = next <= SectionType.full || next === SectionType.command;
      return pageOffset === 0 && (isItem || next === SectionType.footer);
    }
    case RamFlag.multifdFlush:
      return pageOffset === 0 && (yield* isRecordAt(reader, at + 8, pageBytes, blocks, block));
    case RamFlag.page:
    case RamFlag.zero:
    case RamFlag.xbzrle:
    case RamFlag.compressPage: {
      if (pageOffset % pageBytes !== 0) return false;
      if ((flags & RamFlag.continue) !== 0) return pageOffset < block.usedBytes;
      const length = reader.peekU8(at + 8);
      if (!(yield* ahead(reader, at + 9 + length))) return false;
      const start = reader.start + at + 9;
      const name = decoder.decode(reader.storage.slice(start, start + length));
      return pageOffset < (blocks.get(name)?.usedBytes ?? 0);
    }
    default:
      return false;
  }
}

/** Waits for bytes without consuming them. @returns false where the input or the reader's room ends before */
function* ahead(reader: ByteReader, count: number): Parser<boolean> {
  if (count > reader.capacityBytes) return false;
  while (reader.available < count) {
    if (reader.ended) return false;
    yield count;
  }
  return true;
}
