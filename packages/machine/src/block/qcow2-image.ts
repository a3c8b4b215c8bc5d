import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';
import { Qcow2Bitmaps } from './qcow2-bitmaps.ts';
import {
  COMPRESSED,
  COPIED,
  imageInvalid,
  OFFSET_MASK,
  type Qcow2Header,
  readQcow2Header,
  writeQcow2Header,
} from './qcow2-header.ts';
import { Qcow2Refcounts } from './qcow2-refcounts.ts';

/** Version 3: the cluster reads as zeros, whatever it holds. */
const ZERO = 1n;

/** What {@link createQcow2} takes. */
export interface Qcow2Options {
  readonly sizeBytes: number;
  /** A power of two from 512 to 2 MiB; default 64 KiB. */
  readonly clusterBytes?: number;
  /** Default 3; bitmaps need it. */
  readonly version?: 2 | 3;
  readonly backingFile?: string;
  readonly backingFormat?: string;
}

/** Reads the disk below an image: where the image holds nothing. */
export type ReadBacking = (offset: number, into: Uint8Array) => void;

/** Where a guest cluster's contents are. */
type Place =
  | { readonly kind: 'data'; readonly offset: number; readonly isOurs: boolean }
  | { readonly kind: 'zero'; readonly offset: number; readonly isOurs: boolean }
  | { readonly kind: 'absent' };

/**
 * A qcow2 image, read and written in place: no encryption, no external data file, no subclusters;
 * compressed clusters are refused when they are touched.
 *
 * Writes go to clusters that nobody else uses; a shared one (an internal snapshot's) is copied first.
 * Data is written before the table that names it, so that a crash leaks clusters at worst.
 *
 * @see docs/interop/qcow2.rst in QEMU
 */
export class Qcow2Image {
  readonly header: Qcow2Header;
  readonly clusterBytes: number;
  readonly #file: BlockFile;
  readonly #refcounts: Qcow2Refcounts;
  readonly #l1: BigUint64Array;
  readonly #perTable: number;
  /** The bitmaps that are kept in it. */
  readonly bitmaps: Qcow2Bitmaps;
  /** Reads what the image does not hold; zeros unless set. */
  readBacking: ReadBacking = (_, into) => void into.fill(0);

  /** Opens an image. @throws MachineError `IMAGE_INVALID`, `IMAGE_UNSUPPORTED` */
  constructor(file: BlockFile) {
    this.#file = file;
    this.header = readQcow2Header(file);
    this.clusterBytes = 2 ** this.header.clusterBits;
    this.#perTable = this.clusterBytes / 8;
    this.#refcounts = new Qcow2Refcounts(file, this.header);
    const { l1Entries, l1Offset } = this.header;
    const bytes = new Uint8Array(l1Entries * 8);
    if (l1Entries > 0) this.#refcounts.claim(l1Offset, bytes.length, 'L1 table');
    file.read(l1Offset, bytes);
    const view = new DataView(bytes.buffer);
    this.#l1 = BigUint64Array.from({ length: l1Entries }, (_, i) => view.getBigUint64(i * 8));
    for (const [index, entry] of this.#l1.entries()) {
      const offset = Number(entry & OFFSET_MASK);
      if (offset === 0) continue;
      if ((entry & ~(OFFSET_MASK | COPIED)) !== 0n) {
        throw imageInvalid('An L1 entry has reserved bits set', {
          found: `0x${entry.toString(16)}`,
          offset: l1Offset + index * 8,
          path: ['qcow2', 'L1 table'],
        });
      }
      this.#refcounts.claim(offset, this.clusterBytes, 'L2 table');
    }
    this.bitmaps = new Qcow2Bitmaps(file, this.header, this.#refcounts);
  }

  get sizeBytes(): number {
    return this.header.sizeBytes;
  }

  /** Fills `into` from `offset` of the disk on. @throws MachineError */
  read(offset: number, into: Uint8Array): void {
    for (const [at, within, length] of this.#clusters(offset, into.length)) {
      const piece = into.subarray(at - offset, at - offset + length);
      const place = this.#place(at);
      if (place.kind === 'data') this.#file.read(place.offset + within, piece);
      else if (place.kind === 'zero') piece.fill(0);
      else this.readBacking(at, piece);
    }
  }

  /** Writes `bytes` from `offset` of the disk on. @throws MachineError */
  write(offset: number, bytes: Uint8Array): void {
    for (const [at, within, length] of this.#clusters(offset, bytes.length)) {
      const piece = bytes.subarray(at - offset, at - offset + length);
      const place = this.#place(at);
      if (place.kind === 'data' && place.isOurs) {
        this.#file.write(place.offset + within, piece);
        continue;
      }
      const contents = new Uint8Array(this.clusterBytes);
      // The last cluster may reach beyond the disk's end.
      const there = Math.min(this.clusterBytes, this.sizeBytes - (at - within));
      if (length < there) this.read(at - within, contents.subarray(0, there));
      contents.set(piece, within);
      const isReused = place.kind === 'zero' && place.offset !== 0 && place.isOurs;
      const target = isReused ? place.offset : this.#refcounts.allocate(1);
      this.#file.write(target, contents);
      this.#setPlace(at, BigInt(target) | COPIED);
      if (!isReused && place.kind !== 'absent' && place.offset !== 0)
        this.#refcounts.release(place.offset);
    }
  }

  /** Tells whether the image itself says what a byte of the disk is, rather than what is below it. */
  isAllocated(offset: number): boolean {
    return this.#place(offset).kind !== 'absent';
  }

  /** Cuts a range of the disk at clusters: where, how far into its cluster, how long. */
  *#clusters(offset: number, length: number): Generator<readonly [number, number, number]> {
    for (let at = offset; at < offset + length; ) {
      const within = at % this.clusterBytes;
      const piece = Math.min(this.clusterBytes - within, offset + length - at);
      yield [at, within, piece];
      at += piece;
    }
  }

  #place(at: number): Place {
    const cluster = Math.floor(at / this.clusterBytes);
    const table = Number((this.#l1[Math.floor(cluster / this.#perTable)] ?? 0n) & OFFSET_MASK);
    if (table === 0) return { kind: 'absent' };
    const entryAt = table + (cluster % this.#perTable) * 8;
    const entry = this.#readEntry(entryAt);
    if ((entry & COMPRESSED) !== 0n) {
      throw new MachineError('IMAGE_UNSUPPORTED', 'A cluster is compressed', {
        offset: entryAt,
        path: ['qcow2', 'L2 table', `disk offset ${at}`],
        likely: 'Convert the image with `qemu-img convert -O qcow2`, which uncompresses it',
      });
    }
    const offset = Number(entry & OFFSET_MASK);
    const isOurs = (entry & COPIED) !== 0n;
    const isZero = (entry & ZERO) !== 0n && this.header.version === 3;
    if (offset !== 0) this.#refcounts.checkData(offset, `cluster of disk offset ${at}`);
    if (isZero) return { kind: 'zero', offset, isOurs };
    return offset === 0 ? { kind: 'absent' } : { kind: 'data', offset, isOurs };
  }

  #setPlace(at: number, entry: bigint): void {
    const cluster = Math.floor(at / this.clusterBytes);
    const table = this.#tableForWriting(Math.floor(cluster / this.#perTable));
    this.#writeEntry(table + (cluster % this.#perTable) * 8, entry);
  }

  /** An L2 table that nobody else uses: the one that is there, a copy of it, or a new one. */
  #tableForWriting(index: number): number {
    const entry = this.#l1[index]!;
    const old = Number(entry & OFFSET_MASK);
    if (old !== 0 && (entry & COPIED) !== 0n) return old;
    const contents = new Uint8Array(this.clusterBytes);
    if (old !== 0) this.#file.read(old, contents);
    const offset = this.#refcounts.allocate(1);
    this.#file.write(offset, contents);
    this.#refcounts.claim(offset, this.clusterBytes, 'L2 table');
    this.#l1[index] = BigInt(offset) | COPIED;
    this.#writeEntry(this.header.l1Offset + index * 8, this.#l1[index]!);
    if (old !== 0) this.#refcounts.release(old); // a snapshot's from now on, still a table
    return offset;
  }

  #readEntry(offset: number): bigint {
    const bytes = new Uint8Array(8);
    this.#file.read(offset, bytes);
    return new DataView(bytes.buffer).getBigUint64(0);
  }

  #writeEntry(offset: number, entry: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, entry);
    this.#file.write(offset, bytes);
  }
}

/** Writes an empty image into an empty file. @throws MachineError `IMAGE_INVALID` for options out of range */
export function createQcow2(file: BlockFile, options: Qcow2Options): void {
  const { sizeBytes, clusterBytes = 65_536, version = 3, backingFile, backingFormat } = options;
  const clusterBits = Math.log2(clusterBytes);
  const l1Entries = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8)));
  const header: Qcow2Header = {
    ...{ version, clusterBits, sizeBytes, refcountOrder: 4, snapshots: 0, snapshotsOffset: 0 },
    ...{ l1Entries: 0, l1Offset: 0, refcountTableOffset: clusterBytes, refcountTableClusters: 1 },
    ...{ bitmaps: undefined, compatibleFeatures: 0n, rest: new Uint8Array(), otherExtensions: [] },
    ...(backingFile === undefined ? {} : { backingFile }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
  };
  // The first refcount block counts header, refcount table and itself.
  const table = new Uint8Array(clusterBytes);
  new DataView(table.buffer).setBigUint64(0, BigInt(2 * clusterBytes));
  const block = new Uint8Array(clusterBytes);
  block.set([0, 1, 0, 1, 0, 1]);
  file.write(clusterBytes, table);
  file.write(2 * clusterBytes, block);
  const refcounts = new Qcow2Refcounts(file, header);
  if (l1Entries > 0) {
    const clusters = Math.ceil((l1Entries * 8) / clusterBytes);
    header.l1Offset = refcounts.allocate(clusters);
    file.write(header.l1Offset, new Uint8Array(clusters * clusterBytes));
  }
  header.l1Entries = l1Entries;
  writeQcow2Header(file, header);
  readQcow2Header(file);
}
