/** A dirty bitmap as a migration sees it: one bit for each granule of a disk. */
export interface BitmapPort {
  /** Undefined for one that belongs to an operation. */
  readonly name: string | undefined;
  readonly granularityBytes: number;
  readonly lengthBytes: number;
  readonly inconsistent: boolean;
  readonly readOnly: boolean;
  /** Whether writes are recorded. */
  enabled: boolean;
  /** Whether it is kept in its image. */
  persistent: boolean;
  /** Whether others have to leave it alone. */
  busy: boolean;
  /** It goes to another host, which keeps it: it is not stored in the image here. */
  skipStore: boolean;
  /** Copies bytes of bits, LSB first; undefined where none is set. */
  bytesAt(at: number, length: number): Uint8Array | undefined;
  /** Replaces bytes of bits; undefined clears them. */
  setBytes(at: number, length: number, bytes?: Uint8Array): void;
  /** Has another bitmap, which is off yet, record in this one's place: this one is busy. */
  createSuccessor(): void;
  enableSuccessor(): void;
  /** Takes in what a successor recorded, and is not busy any more. */
  reclaimSuccessor(): void;
}

/** A node of the block graph as a migration sees it. */
export interface BlockNodePort {
  /** Begins with `#` where the user gave none. */
  readonly nodeName: string;
  readonly isFilter: boolean;
  /** What a filter passes everything on to. */
  readonly filtered: BlockNodePort | undefined;
  readonly sizeBytes: number;
  /** Newest first. */
  readonly bitmaps: readonly BitmapPort[];
  /** Adds a bitmap that records. @throws Error that says why it cannot be */
  createBitmap(name: string, granularityBytes: number): BitmapPort;
  removeBitmap(bitmap: BitmapPort): void;
}

/** The guest's disks as a migration sees them. */
export interface BlockPort {
  /** All nodes, oldest first. */
  readonly nodes: readonly BlockNodePort[];
  /** The devices' ends; a name is empty where the user gave none. */
  readonly backends: readonly { readonly name: string; readonly root: BlockNodePort }[];
  /** Takes the images over from another host. */
  activate(): void;
  /** Leaves the images to another host. */
  inactivate(): void;
}

/** Goes through the filters that have no bitmaps of their own. */
export function belowFilters(node: BlockNodePort): BlockNodePort {
  let below = node;
  while (below.isFilter && below.filtered !== undefined && !hasNamedBitmaps(below)) {
    below = below.filtered;
  }
  return below;
}

export function hasNamedBitmaps({ bitmaps }: BlockNodePort): boolean {
  return bitmaps.some(({ name }) => name !== undefined);
}
