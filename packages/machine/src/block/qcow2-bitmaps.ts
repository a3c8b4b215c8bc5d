import { ByteReader, ByteWriter } from '@wherry/bytes';
import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { imageInvalid, OFFSET_MASK, type Qcow2Header, writeQcow2Header } from './qcow2-header.ts';
import type { Qcow2Refcounts } from './qcow2-refcounts.ts';

const Flag = { inUse: 1, auto: 2, extraDataCompatible: 4 } as const;
const FLAGS = Flag.inUse | Flag.auto | Flag.extraDataCompatible;
const DIRTY_TRACKING = 1;
const ENTRY_BYTES = 24;
/** @see QCOW2_MAX_BITMAPS and the BME_MAX_… constants in QEMU's block/qcow2-bitmap.c */
const MAX_BITMAPS = 65_535;
const MAX_DIRECTORY_BYTES = 64 * 1024 * 1024;
const MAX_NAME_BYTES = 1023;
const GRANULARITY_BITS = { least: 9, most: 31 };
/** Bytes of set bits that an image may have read into memory. */
const MAX_LOADED_BYTES = 512 * 1024 * 1024;
/** Entries in the tables of all bitmaps together. */
const MAX_TABLE_ENTRIES = 2 ** 21;
/** A bitmap table entry without a cluster: all bits are set. */
const ALL_ONES = 1n;

/** One bitmap's entry in the directory. */
interface DirectoryEntry {
  /** Where its flags are in the file. */
  readonly flagsOffset: number;
  flags: number;
  readonly name: string;
  readonly granularityBytes: number;
  readonly tableOffset: number;
  readonly table: BigUint64Array;
}

/**
 * The bitmaps that a qcow2 image keeps, in its bitmaps extension.
 *
 * @see QEMU's block/qcow2-bitmap.c
 */
export class Qcow2Bitmaps {
  readonly #file: BlockFile;
  readonly #header: Qcow2Header;
  readonly #refcounts: Qcow2Refcounts;
  readonly #clusterBytes: number;
  #entries: readonly DirectoryEntry[];

  /** @throws MachineError `IMAGE_INVALID`, `IMAGE_UNSUPPORTED` */
  constructor(file: BlockFile, header: Qcow2Header, refcounts: Qcow2Refcounts) {
    this.#file = file;
    this.#header = header;
    this.#refcounts = refcounts;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#entries = this.#readDirectory();
  }

  load(): DirtyBitmap[] {
    let loadedBytes = 0;
    return this.#entries.map(({ name, flags, granularityBytes, table }) => {
      const bitmap = new DirtyBitmap(name, this.#header.sizeBytes, granularityBytes);
      bitmap.persistent = true;
      bitmap.enabled = (flags & Flag.auto) !== 0;
      if ((flags & Flag.inUse) !== 0) {
        bitmap.inconsistent = true;
        bitmap.enabled = false;
        return bitmap;
      }
      for (const [index, entry] of table.entries()) {
        if (entry === 0n) continue;
        loadedBytes += this.#clusterBytes;
        if (loadedBytes > MAX_LOADED_BYTES) {
          throw this.#invalid(
            'Its bitmaps take too much memory',
            `at most ${MAX_LOADED_BYTES} bytes`,
            'more',
            name,
          );
        }
        const bytes = new Uint8Array(this.#clusterBytes);
        if (entry === ALL_ONES) bytes.fill(0xff);
        else this.#file.read(Number(entry), bytes);
        bitmap.setBytes(index * this.#clusterBytes, bytes.length, bytes);
      }
      return bitmap;
    });
  }

  /** Says in the image that its bitmaps change from now on: they are inconsistent until they are stored. */
  markInUse(): void {
    for (const entry of this.#entries) {
      entry.flags |= Flag.inUse;
      this.#file.write(entry.flagsOffset, new ByteWriter(4).u32(entry.flags).finish());
    }
    this.#file.flush();
  }

  /**
   * Stores bitmaps, in place of those of the same names; others stay, as do those that have gone to another
   * host or were inconsistent before.
   *
   * @throws MachineError `BITMAP_INVALID`, `IMAGE_UNSUPPORTED`
   */
  store(bitmaps: readonly DirtyBitmap[]): void {
    const stored = bitmaps.filter(({ inconsistent, skipStore }) => !inconsistent && !skipStore);
    if (stored.length === 0) return;
    const names = new Set(stored.map(({ name }) => name));
    this.#rewrite(
      this.#entries.filter(({ name }) => !names.has(name)),
      stored,
    );
  }

  /** Removes a bitmap from the image; nothing where it is not in there. */
  remove(name: string): void {
    const kept = this.#entries.filter((entry) => entry.name !== name);
    if (kept.length < this.#entries.length) this.#rewrite(kept, []);
  }

  /** Refuses what {@link Qcow2Bitmaps.store} could not store. @throws MachineError `BITMAP_INVALID`, `IMAGE_UNSUPPORTED` */
  checkStorable(count: number): void {
    if (this.#header.version < 3) {
      throw new MachineError('IMAGE_UNSUPPORTED', 'Cannot store dirty bitmaps in qcow2 v2 files', {
        likely: 'Convert the image: `qemu-img amend -o compat=1.1`',
      });
    }
    if (count > MAX_BITMAPS) {
      throw new MachineError(
        'BITMAP_INVALID',
        'Maximum number of persistent bitmaps is already reached',
      );
    }
  }

  #rewrite(kept: readonly DirectoryEntry[], stored: readonly DirtyBitmap[]): void {
    const count = kept.length + stored.length;
    this.checkStorable(count);
    const directory = new ByteWriter();
    for (const entry of kept) writeEntry(directory, entry);
    for (const bitmap of stored) writeEntry(directory, this.#storeBitmap(bitmap));
    const old = this.#header.bitmaps;
    this.#header.bitmaps = undefined;
    if (count > 0) {
      const directoryBytes = directory.length;
      const directoryOffset = this.#allocate(directoryBytes);
      this.#file.write(directoryOffset, directory.finish());
      this.#header.bitmaps = { count, directoryOffset, directoryBytes };
    }
    this.#file.flush();
    writeQcow2Header(this.#file, this.#header);
    for (const entry of this.#entries) {
      const isKept = kept.includes(entry);
      for (const cluster of entry.table) {
        if (cluster > ALL_ONES) this.#drop(Number(cluster), this.#clusterBytes, isKept);
      }
      this.#drop(entry.tableOffset, entry.table.length * 8, isKept);
    }
    if (old !== undefined) this.#drop(old.directoryOffset, old.directoryBytes, false);
    this.#entries = this.#readDirectory(); // which claims anew what is in use
  }

  #storeBitmap(bitmap: DirtyBitmap): Omit<DirectoryEntry, 'flagsOffset'> {
    const { name = '', enabled, granularityBytes, lengthBytes } = bitmap;
    const table = new BigUint64Array(Math.ceil(lengthBytes / this.#clusterBytes));
    for (let index = 0; index < table.length; index++) {
      const bytes = bitmap.bytesAt(index * this.#clusterBytes, this.#clusterBytes);
      if (bytes === undefined) continue;
      const offset = this.#refcounts.allocate(1);
      this.#file.write(offset, bytes);
      table[index] = BigInt(offset);
    }
    const tableOffset = this.#allocate(table.length * 8);
    const bytes = new ByteWriter(table.length * 8);
    for (const entry of table) bytes.u64(entry);
    this.#file.write(tableOffset, bytes.finish());
    return { name, flags: enabled ? Flag.auto : 0, granularityBytes, tableOffset, table };
  }

  #allocate(bytes: number): number {
    return this.#refcounts.allocate(Math.max(1, Math.ceil(bytes / this.#clusterBytes)));
  }

  #drop(offset: number, bytes: number, isKept: boolean): void {
    this.#refcounts.unclaim(offset, bytes);
    if (!isKept) this.#refcounts.release(offset, Math.ceil(bytes / this.#clusterBytes));
  }

  #readDirectory(): DirectoryEntry[] {
    const extension = this.#header.bitmaps;
    if (extension === undefined) return [];
    const { count, directoryOffset, directoryBytes } = extension;
    if (count === 0 || count > MAX_BITMAPS) {
      throw this.#invalid('A wrong number of bitmaps', `1 to ${MAX_BITMAPS}`, `${count}`);
    }
    if (directoryBytes < count * ENTRY_BYTES || directoryBytes > MAX_DIRECTORY_BYTES) {
      throw this.#invalid(
        'A wrong size of the bitmap directory',
        `${count * ENTRY_BYTES} to ${MAX_DIRECTORY_BYTES} bytes`,
        `${directoryBytes}`,
      );
    }
    this.#refcounts.claim(directoryOffset, directoryBytes, 'bitmap directory');
    const bytes = new Uint8Array(directoryBytes);
    this.#file.read(directoryOffset, bytes);
    const reader = ByteReader.over(bytes, directoryOffset);
    const entries: DirectoryEntry[] = [];
    let room = MAX_TABLE_ENTRIES;
    for (let i = 0; i < count; i++) {
      const entry = this.#readEntry(reader, room);
      entries.push(entry);
      room -= entry.table.length;
    }
    const names = new Set(entries.map(({ name }) => name));
    if (names.size < count)
      throw this.#invalid(
        'Two bitmaps have one name',
        'names of their own',
        `${count - names.size} twice`,
      );
    return entries;
  }

  #readEntry(reader: ByteReader, room: number): DirectoryEntry {
    const { offset } = reader;
    if (reader.available < ENTRY_BYTES)
      throw this.#invalid(
        'The bitmap directory ends too early',
        `${ENTRY_BYTES} bytes`,
        `${reader.available}`,
      );
    const tableOffset = reader.size();
    const tableEntries = reader.u32();
    const flags = reader.u32();
    const type = reader.u8();
    const granularityBits = reader.u8();
    const nameBytes = reader.u16();
    const extraBytes = reader.u32();
    const padded = Math.ceil((extraBytes + nameBytes) / 8) * 8;
    if (padded > reader.available)
      throw this.#invalid(
        'The bitmap directory ends too early',
        `${padded} bytes`,
        `${reader.available}`,
      );
    if (nameBytes === 0 || nameBytes > MAX_NAME_BYTES)
      throw this.#invalid(
        'A bitmap has a wrong name',
        `1 to ${MAX_NAME_BYTES} bytes`,
        `${nameBytes}`,
      );
    if (extraBytes > 0) {
      throw new MachineError('IMAGE_UNSUPPORTED', 'A bitmap has data that is not known here', {
        offset,
        path: ['qcow2', 'bitmap directory'],
        likely: 'A newer release made it: remove the bitmap with `qemu-img bitmap --remove`',
      });
    }
    const name = reader.text(nameBytes);
    reader.skip(padded - nameBytes);
    if ((flags & ~FLAGS) !== 0 || type !== DIRTY_TRACKING) {
      throw this.#invalid(
        'A bitmap is of an unknown kind',
        `type ${DIRTY_TRACKING}, flags below 8`,
        `type ${type}, flags 0x${flags.toString(16)}`,
        name,
      );
    }
    const { least, most } = GRANULARITY_BITS;
    if (granularityBits < least || granularityBits > most) {
      throw this.#invalid(
        'A bitmap has a wrong granularity',
        `${least} to ${most} bits`,
        `${granularityBits}`,
        name,
      );
    }
    const granularityBytes = 2 ** granularityBits;
    const needed = Math.ceil(
      Math.ceil(Math.ceil(this.#header.sizeBytes / granularityBytes) / 8) / this.#clusterBytes,
    );
    // One in use may be of a time when the disk had another size: nothing of it is read.
    if (tableEntries !== needed && (flags & Flag.inUse) === 0) {
      throw this.#invalid(
        'A bitmap’s table does not fit the disk',
        `${needed} entries`,
        `${tableEntries}`,
        name,
      );
    }
    if (tableEntries > room) {
      throw this.#invalid(
        'Its bitmap tables are too large',
        `at most ${MAX_TABLE_ENTRIES} entries`,
        'more',
        name,
      );
    }
    this.#refcounts.claim(tableOffset, tableEntries * 8, `table of bitmap '${name}'`);
    const bytes = new Uint8Array(tableEntries * 8);
    this.#file.read(tableOffset, bytes);
    const view = new DataView(bytes.buffer);
    const table = BigUint64Array.from({ length: tableEntries }, (_, i) => view.getBigUint64(i * 8));
    for (const entry of table) {
      if (entry <= ALL_ONES) continue;
      if ((entry & ~OFFSET_MASK) !== 0n) {
        throw this.#invalid(
          'A bitmap table entry has reserved bits set',
          'none',
          `0x${entry.toString(16)}`,
          name,
        );
      }
      this.#refcounts.claim(Number(entry), 1, `data of bitmap '${name}'`);
    }
    return { flagsOffset: offset + 12, flags, name, granularityBytes, tableOffset, table };
  }

  #invalid(what: string, expected: string, found: string, name?: string): MachineError {
    return imageInvalid(what, {
      ...{ expected, found },
      path: ['qcow2', name === undefined ? 'bitmap directory' : `bitmap '${name}'`],
      likely:
        'The image is damaged: `qemu-img check` tells how far; `qemu-img bitmap --remove` drops a bitmap',
    });
  }
}

function writeEntry(directory: ByteWriter, entry: Omit<DirectoryEntry, 'flagsOffset'>): void {
  const name = new TextEncoder().encode(entry.name);
  directory.u64(BigInt(entry.tableOffset)).u32(entry.table.length).u32(entry.flags);
  directory.u8(DIRTY_TRACKING).u8(Math.log2(entry.granularityBytes));
  directory
    .u16(name.length)
    .u32(0)
    .raw(name)
    .zeros(-(ENTRY_BYTES + name.length) & 7);
}
