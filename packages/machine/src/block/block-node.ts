import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';
import { DirtyBitmap } from './dirty-bitmap.ts';
import { Qcow2Image } from './qcow2-image.ts';

/** Formats, protocols and filters that there are. */
export const BLOCK_DRIVERS = [
  'qcow2',
  'raw',
  'file',
  'null-co',
  'copy-on-read',
  'mirror_top',
] as const;
export type BlockDriver = (typeof BLOCK_DRIVERS)[number];

/** What {@link BlockNode} takes. */
export interface BlockNodeInit {
  readonly nodeName: string;
  readonly driver: BlockDriver;
  readonly readOnly: boolean;
  /** Where the bytes of a `file` node are. */
  readonly storage?: { readonly filename: string; readonly file: BlockFile };
  /** Size of a `null-co` node. */
  readonly sizeBytes?: number;
  /** What a format or filter is over. */
  readonly child?: BlockNode;
  /** What a `qcow2` image reads where it holds nothing. */
  readonly backing?: BlockNode;
  /** Where a mirror writes to besides. */
  readonly mirrorTarget?: BlockNode;
  /** Another host may still write the image: nothing but its size is to be used before {@link BlockNode.activate}. */
  readonly inactive: boolean;
}

/**
 * A node of the block graph: an image, what it lies in, or a filter; with its dirty bitmaps.
 *
 * @see BlockDriverState in QEMU's block.c
 */
export class BlockNode {
  readonly #init: BlockNodeInit;
  #inactive: boolean;
  #image: Qcow2Image | undefined;
  /** Newest first, as QEMU lists and sends them. */
  readonly #bitmaps: DirtyBitmap[] = [];

  /** @throws MachineError `IMAGE_INVALID`, `IMAGE_UNSUPPORTED` */
  constructor(init: BlockNodeInit) {
    this.#init = init;
    this.#inactive = init.inactive;
    if (init.driver === 'qcow2') this.#open();
    if (!init.inactive) this.#loadBitmaps();
  }

  get nodeName(): string {
    return this.#init.nodeName;
  }
  get driver(): BlockDriver {
    return this.#init.driver;
  }
  get readOnly(): boolean {
    return this.#init.readOnly;
  }
  get child(): BlockNode | undefined {
    return this.#init.child;
  }
  get backing(): BlockNode | undefined {
    return this.#init.backing;
  }
  /** Name of the file that it lies in. */
  get filename(): string {
    return this.#init.storage?.filename ?? this.child?.filename ?? `${this.driver}://`;
  }
  get backingFilename(): string | undefined {
    return this.#image?.header.backingFile;
  }
  get clusterBytes(): number | undefined {
    return this.#image?.clusterBytes;
  }
  get bitmaps(): readonly DirtyBitmap[] {
    return this.#bitmaps;
  }
  /** What a filter passes everything on to; undefined for all others. */
  get filtered(): BlockNode | undefined {
    return this.isFilter ? this.child : undefined;
  }
  get isInactive(): boolean {
    return this.#inactive;
  }
  get isFilter(): boolean {
    return this.driver === 'copy-on-read' || this.driver === 'mirror_top';
  }
  get sizeBytes(): number {
    const { sizeBytes, storage, child } = this.#init;
    return this.#image?.sizeBytes ?? sizeBytes ?? storage?.file.lengthBytes ?? child!.sizeBytes;
  }

  /** Fills `into` from `offset` on. @throws MachineError `BLOCK_IO` */
  read(offset: number, into: Uint8Array): void {
    this.#checkRange(offset, into.length);
    if (this.#image !== undefined) this.#image.read(offset, into);
    else if (this.#init.storage !== undefined) this.#init.storage.file.read(offset, into);
    else if (this.child === undefined) into.fill(0);
    else {
      this.child.read(offset, into);
      if (this.driver === 'copy-on-read') this.child.#copyUp(offset, into);
    }
  }

  /** Writes `bytes` from `offset` on, and records it in the bitmaps. @throws MachineError `BLOCK_IO` */
  write(offset: number, bytes: Uint8Array): void {
    if (this.readOnly) throw new MachineError('BLOCK_IO', 'Block node is read-only');
    if (this.#inactive) {
      throw new MachineError(
        'BLOCK_IO',
        `Node '${this.nodeName}' is inactive: another host has its guest`,
      );
    }
    this.#checkRange(offset, bytes.length);
    if (this.#image !== undefined) this.#image.write(offset, bytes);
    else if (this.#init.storage !== undefined) this.#init.storage.file.write(offset, bytes);
    else this.child?.write(offset, bytes);
    this.#record(offset, bytes.length);
    this.#init.mirrorTarget?.write(offset, bytes);
  }

  #record(offset: number, length: number): void {
    for (const bitmap of this.#bitmaps) bitmap.written(offset, length);
  }

  /** Keeps what was read from a backing file; no bitmap records it, since the disk is the same as before. */
  #copyUp(offset: number, bytes: Uint8Array): void {
    const image = this.#image;
    if (image === undefined || this.readOnly) {
      if (this.isFilter) this.child!.#copyUp(offset, bytes);
      return;
    }
    for (let at = offset; at < offset + bytes.length; ) {
      const end = Math.min(
        offset + bytes.length,
        at - (at % image.clusterBytes) + image.clusterBytes,
      );
      if (!image.isAllocated(at)) image.write(at, bytes.subarray(at - offset, end - offset));
      at = end;
    }
  }

  #checkRange(offset: number, length: number): void {
    if (offset + length <= this.sizeBytes) return;
    throw new MachineError(
      'BLOCK_IO',
      `The request lies behind the end of node '${this.nodeName}'`,
      {
        expected: `at most ${this.sizeBytes} bytes`,
        found: `${length} bytes at ${offset}`,
      },
    );
  }

  /** @throws MachineError `BITMAP_INVALID`, in QEMU's words */
  bitmap(name: string): DirtyBitmap {
    const bitmap = this.findBitmap(name);
    if (bitmap !== undefined) return bitmap;
    throw new MachineError('BITMAP_INVALID', `Dirty bitmap '${name}' not found`);
  }

  findBitmap(name: string): DirtyBitmap | undefined {
    return this.#bitmaps.find((bitmap) => bitmap.name === name);
  }

  /** Adds a bitmap that records. @throws MachineError `BITMAP_INVALID`, in QEMU's words */
  createBitmap(name: string, granularityBytes: number = this.#defaultGranularity): DirtyBitmap {
    if (name === '') throw new MachineError('BITMAP_INVALID', 'Bitmap name cannot be empty');
    if (this.findBitmap(name) !== undefined) {
      throw new MachineError('BITMAP_INVALID', `Bitmap already exists: ${name}`);
    }
    const bitmap = new DirtyBitmap(name, this.sizeBytes, granularityBytes);
    this.#bitmaps.unshift(bitmap);
    return bitmap;
  }

  /** @see bdrv_get_default_bitmap_granularity in QEMU's block/dirty-bitmap.c */
  get #defaultGranularity(): number {
    return Math.min(Math.max(this.clusterBytes ?? 65_536, 4096), 65_536);
  }

  /** Refuses to keep one more bitmap in the image. @throws MachineError `BITMAP_INVALID`, `IMAGE_UNSUPPORTED` */
  checkCanPersist(): void {
    if (this.#image === undefined || this.readOnly) {
      throw new MachineError(
        'BITMAP_INVALID',
        `Can't store persistent bitmaps to ${this.nodeName}`,
      );
    }
    this.#image.bitmaps.checkStorable(
      this.#bitmaps.filter(({ persistent }) => persistent).length + 1,
    );
  }

  /** Removes a bitmap, also from the image. */
  removeBitmap(bitmap: DirtyBitmap): void {
    if (bitmap.persistent && bitmap.name !== undefined) this.#image?.bitmaps.remove(bitmap.name);
    this.#bitmaps.splice(this.#bitmaps.indexOf(bitmap), 1);
  }

  /** Takes the image over from another host. @throws MachineError `IMAGE_INVALID` */
  activate(): void {
    if (!this.#inactive) return;
    this.#inactive = false;
    if (this.driver === 'qcow2') this.#open();
    this.#loadBitmaps();
    for (const bitmap of this.#bitmaps) bitmap.skipStore = false;
  }

  /** Leaves the image to another host, with all its bitmaps stored but those that went there themselves. */
  inactivate(): void {
    if (this.#inactive) return;
    const stored = this.#storeBitmaps();
    for (const bitmap of stored) this.#bitmaps.splice(this.#bitmaps.indexOf(bitmap), 1);
    this.#init.storage?.file.flush();
    this.#inactive = true;
  }

  flush(): void {
    this.#init.storage?.file.flush();
    this.child?.flush();
  }

  /** Stores the bitmaps that are to be kept, and lets go of the file. */
  close(): void {
    if (!this.#inactive) this.#storeBitmaps();
    this.#init.storage?.file.close();
  }

  #open(): void {
    const { child, backing } = this.#init;
    this.#image = new Qcow2Image(child!.asFile());
    if (backing === undefined) return;
    this.#image.readBacking = (offset, into) => {
      // A shorter disk below reads as zeros behind its end.
      const there = Math.max(0, Math.min(into.length, backing.sizeBytes - offset));
      if (there > 0) backing.read(offset, into.subarray(0, there));
      into.fill(0, there);
    };
  }

  /** What a format lies in: a file, which it may grow, or a node of fixed size. */
  asFile(): BlockFile {
    const node = this;
    const file = this.#init.storage?.file;
    return {
      get lengthBytes() {
        return node.sizeBytes;
      },
      read: (offset, into) => {
        if (file !== undefined) return file.read(offset, into);
        const there = Math.max(0, Math.min(into.length, node.sizeBytes - offset));
        node.read(offset, into.subarray(0, there));
        into.fill(0, there);
      },
      write: (offset, bytes) => {
        if (file === undefined) return node.write(offset, bytes);
        file.write(offset, bytes);
        node.#record(offset, bytes.length);
      },
      flush: () => node.flush(),
      close: () => {},
    };
  }

  #loadBitmaps(): void {
    const image = this.#image;
    if (image === undefined) return;
    for (const bitmap of image.bitmaps.load()) {
      // One that came with the guest is newer than the image's.
      if (bitmap.name !== undefined && this.findBitmap(bitmap.name) !== undefined) continue;
      bitmap.readOnly = this.readOnly;
      this.#bitmaps.unshift(bitmap);
    }
    if (!this.readOnly) image.bitmaps.markInUse();
  }

  #storeBitmaps(): readonly DirtyBitmap[] {
    const stored = this.#bitmaps.filter(({ persistent, skipStore }) => persistent && !skipStore);
    if (!this.readOnly) this.#image?.bitmaps.store(stored);
    return stored;
  }
}
