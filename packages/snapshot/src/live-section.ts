import { type ByteReader, need, type Parser, skip } from '@wherry/bytes';
import { dirtyBitmapFormat } from './dirty-bitmaps.ts';
import type { LiveFormat } from './live-format.ts';
import { liveInvalid } from './live-invalid.ts';
import type { LiveSectionModel, StreamModel } from './stream-model.ts';

/** Finds how a live section is read; undefined where its format is not known. */
export function liveFormatOf(live: LiveSectionModel, model: StreamModel): LiveFormat | undefined {
  switch (live.idstr) {
    case 'dirty-bitmap':
      return dirtyBitmapFormat(model);
    case 'block':
      return (reader) => readBlock(reader, live);
    case 'spapr/htab':
      return (reader, kind) => readHtab(reader, live, kind);
    case 's390-storage_attributes':
      return (reader) => readStorageAttributes(reader, live);
    default:
      return live.idstr.endsWith('/vfio') ? (reader) => readVfio(reader, live) : undefined;
  }
}

const BLOCK_BYTES = 1024 * 1024;
const HPTE_BYTES = 16;

/** @see block_load in QEMU's migration/block.c, which 9.1 removed */
function* readBlock(reader: ByteReader, live: LiveSectionModel): Parser<boolean> {
  for (;;) {
    yield* need(reader, 8);
    const { offset } = reader;
    const low = reader.peekU32(4);
    reader.skip(8);
    if ((low & 0x02) !== 0) return true;
    if ((low & 0x04) !== 0) {
      add(live, 'progress records', 1);
    } else if ((low & 0x01) !== 0) {
      yield* need(reader, 1);
      const nameBytes = reader.u8();
      yield* skip(reader, nameBytes);
      const isZero = (low & 0x08) !== 0;
      if (!isZero) yield* skip(reader, BLOCK_BYTES);
      add(live, isZero ? 'zero blocks' : 'blocks', 1);
    } else {
      throw liveInvalid(
        live.idstr,
        'a block, progress or the end',
        `flags 0x${(low & 0x1ff).toString(16)}`,
        offset,
      );
    }
  }
}

/** @see htab_load in QEMU's hw/ppc/spapr.c */
function* readHtab(
  reader: ByteReader,
  live: LiveSectionModel,
  kind: 'start' | 'part' | 'end',
): Parser<boolean> {
  yield* need(reader, 4);
  const { offset } = reader;
  const shift = reader.u32();
  if (shift === 0xffff_ffff) return true; // the guest has no hash table of its own
  if (shift !== 0) {
    if (kind !== 'start') throw liveInvalid(live.idstr, '0 before the entries', `${shift}`, offset);
    live.summary = { ...live.summary, 'size in bits': shift };
    return true;
  }
  for (;;) {
    yield* need(reader, 8);
    const index = reader.u32();
    const [valid, invalidEntries] = [reader.u16(), reader.u16()];
    if (index === 0 && valid === 0 && invalidEntries === 0) return true;
    add(live, 'valid entries', valid);
    add(live, 'invalid entries', invalidEntries);
    yield* skip(reader, valid * HPTE_BYTES);
  }
}

/** @see cmma_load in QEMU's hw/s390x/s390-stattrib.c */
function* readStorageAttributes(reader: ByteReader, live: LiveSectionModel): Parser<boolean> {
  for (;;) {
    yield* need(reader, 8);
    const { offset } = reader;
    const flags = reader.peekU32(4) & 0xfff;
    reader.skip(8);
    switch (flags) {
      case 0x01:
        return true;
      case 0x08:
        break;
      case 0x02: {
        yield* need(reader, 8);
        const pages = reader.size();
        add(live, 'pages', pages);
        yield* skip(reader, pages);
        break;
      }
      default:
        throw liveInvalid(
          live.idstr,
          'attributes (2), done (8) or the end (1)',
          flags === 4 ? '4: the source could not read them' : `0x${flags.toString(16)}`,
          offset,
        );
    }
  }
}

const VFIO_TAG = 0xffff_ffff_ef10_0000n;

/** @see vfio_load_state in QEMU's hw/vfio/migration.c */
function* readVfio(reader: ByteReader, live: LiveSectionModel): Parser<boolean> {
  for (;;) {
    yield* need(reader, 8);
    const tag = (BigInt(reader.peekU32(0)) << 32n) | BigInt(reader.peekU32(4));
    switch (tag - VFIO_TAG) {
      case 1n: // the end
        reader.skip(8);
        return true;
      case 3n: // setup
      case 5n: // initial data sent
      case 6n: // ready to load the configuration
        reader.skip(8);
        break;
      case 4n: {
        yield* need(reader, 16);
        reader.skip(8);
        const count = reader.size();
        add(live, 'data records', 1);
        add(live, 'data bytes', count);
        yield* skip(reader, count);
        break;
      }
      default: // the configuration of the device: its format is the device's own
        return false;
    }
  }
}

function add(live: LiveSectionModel, what: string, count: number): void {
  live.summary ??= {};
  live.summary[what] = Number(live.summary[what] ?? 0) + count;
}
