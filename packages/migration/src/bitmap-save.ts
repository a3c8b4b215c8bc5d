import {
  BITMAP_CHUNK_BYTES,
  BITMAP_SECTION,
  BitmapChunkWriter,
  bitmapChunkBytes,
  writeFooter,
  writeSectionHead,
} from '@wherry/stream';
import type { BitmapMapping } from './bitmap-mapping.ts';
import {
  type BitmapPort,
  type BlockNodePort,
  type BlockPort,
  belowFilters,
  hasNamedBitmaps,
} from './block-port.ts';
import type { Capabilities } from './capabilities.ts';
import type { OutputChannel } from './channels.ts';
import { MigrationError } from './migration-error.ts';
import type { Parameters } from './parameters.ts';
import { BITMAP_SECTION_ID } from './source-frames.ts';
import type { SourceOptions } from './source-options.ts';

const SECTOR_BYTES = 512;
const MAX_NAME_BYTES = 255;
/** How much is gathered before it goes out. */
const FLUSH_BYTES = 1024 * 1024;

/** A bitmap that migrates, by the names that the stream has for it. */
interface OutgoingBitmap {
  readonly node: string;
  readonly bitmap: string;
  /** Size of the disk in bytes, in whole sectors. */
  readonly diskBytes: number;
  readonly port: BitmapPort;
  readonly enabled: boolean;
  readonly persistent: boolean;
}

/**
 * Finds the bitmaps that migrate and the names by which they do.
 *
 * Without a mapping a bitmap goes by the name of the device above its node, looking through filters that have none
 * themselves, and otherwise by its node's name, if the user gave one. With a mapping those that it names go
 * by their aliases, and no others.
 *
 * @param onDropped is told, in a sentence, of each bitmap that a mapping leaves out
 * @throws MigrationError `BITMAP_INVALID` when one cannot be named or used: all of them are told
 * @see init_dirty_bitmap_migration in QEMU's migration/block-dirty-bitmap.c
 */
export function outgoingBitmaps(
  blocks: BlockPort,
  mapping: BitmapMapping | undefined,
  onDropped: (message: string) => void = () => {},
): OutgoingBitmap[] {
  const names = new Map<BlockNodePort, string>();
  if (mapping === undefined) {
    for (const { name, root } of blocks.backends) {
      const node = belowFilters(root);
      if (name !== '' && !node.isFilter) names.set(node, name);
    }
  }
  const nodes = new Set([...names.keys(), ...blocks.nodes]);
  const problems: string[] = [];
  const found = [...nodes].filter(hasNamedBitmaps).flatMap((node) => {
    const { nodeName } = node;
    const mapped = mapping?.find((known) => known['node-name'] === nodeName);
    const name = mapped?.alias ?? names.get(node) ?? nodeName;
    const bitmaps = node.bitmaps.filter((port) => port.name !== undefined);
    if (mapping !== undefined && mapped === undefined) {
      for (const port of bitmaps)
        onDropped(
          `Bitmap '${port.name}' on node '${nodeName}' stays behind: block-bitmap-mapping does not name the node`,
        );
      return [];
    }
    if (name.startsWith('#')) {
      for (const port of bitmaps)
        problems.push(
          `Bitmap '${port.name}' in a node with auto-generated name '${name}' can't be migrated`,
        );
      return [];
    }
    return bitmaps.flatMap((port): OutgoingBitmap[] => {
      const own = port.name ?? '';
      const alias = mapped?.bitmaps.find((known) => known.name === own);
      if (mapped !== undefined && alias === undefined) {
        onDropped(
          `Bitmap '${own}' on node '${nodeName}' stays behind: block-bitmap-mapping does not name it`,
        );
        return [];
      }
      problems.push(...unusable(port, alias?.alias ?? own, name));
      const { enabled } = port;
      const persistent = alias?.transform?.persistent ?? port.persistent;
      const diskBytes = Math.ceil(node.sizeBytes / SECTOR_BYTES) * SECTOR_BYTES;
      return [{ node: name, bitmap: alias?.alias ?? own, diskBytes, port, enabled, persistent }];
    });
  });
  if (problems.length === 0) return found;
  throw new MigrationError('BITMAP_INVALID', problems.join('; '), {
    path: [BITMAP_SECTION.idstr],
    likely:
      'Give the node a name of its own (node-name=…), name node and bitmap in block-bitmap-mapping, remove the bitmap, or turn dirty-bitmaps off',
  });
}

/** Refuses bitmaps that cannot migrate, before anything is begun. @throws MigrationError `BITMAP_INVALID` */
export function checkBitmaps(
  blocks: BlockPort,
  capabilities: Capabilities,
  parameters: Parameters,
): void {
  if (capabilities.has('dirty-bitmaps'))
    outgoingBitmaps(blocks, parameters['block-bitmap-mapping']);
}

/** @see bdrv_dirty_bitmap_check in QEMU's block/dirty-bitmap.c */
function unusable(port: BitmapPort, name: string, node: string): string[] {
  if (port.busy) {
    return [`Bitmap '${port.name}' is currently in use by another operation and cannot be used`];
  }
  if (port.readOnly) return [`Bitmap '${port.name}' is readonly and cannot be modified`];
  if (port.inconsistent) return [`Bitmap '${port.name}' is inconsistent and cannot be used`];
  if (new TextEncoder().encode(name).length > MAX_NAME_BYTES) {
    return [
      `Cannot migrate bitmap '${name}' on node '${node}': Name is longer than ${MAX_NAME_BYTES} bytes`,
    ];
  }
  return [];
}

/** Sends dirty bitmaps: that they exist while the guest runs, and their bits once it stands still. */
export class BitmapSave {
  readonly #bitmaps: readonly OutgoingBitmap[];
  readonly #chunks = new BitmapChunkWriter();
  #isAhead = false;

  /**
   * Begins where the migration is to bring bitmaps along, and the guest has some.
   *
   * @throws MigrationError `BITMAP_INVALID`
   */
  static begin({
    guest,
    capabilities,
    parameters,
    onWarning,
  }: SourceOptions): BitmapSave | undefined {
    if (guest.disks === undefined || !capabilities.has('dirty-bitmaps')) return undefined;
    const mapping = parameters()['block-bitmap-mapping'];
    const bitmaps = outgoingBitmaps(guest.disks, mapping, onWarning);
    return bitmaps.length === 0 ? undefined : new BitmapSave(bitmaps);
  }

  /** Takes hold of the bitmaps: nobody else may change them until {@link BitmapSave.release}. */
  private constructor(bitmaps: readonly OutgoingBitmap[]) {
    this.#bitmaps = bitmaps;
    for (const { port } of bitmaps) port.busy = true;
  }

  /** Writes the START section. */
  start({ frames }: OutputChannel): void {
    writeSectionHead(frames, { kind: 'start', sectionId: BITMAP_SECTION_ID, ...BITMAP_SECTION });
    for (const bitmap of this.#bitmaps) {
      this.#chunks.start(frames, bitmap, bitmap.port.granularityBytes, bitmap);
    }
    this.#chunks.eos(frames);
    writeFooter(frames, BITMAP_SECTION_ID);
  }

  /** Says that the images here do not keep them any more. */
  handOver(): void {
    for (const { port } of this.#bitmaps) port.skipStore = true;
  }

  /**
   * Sends the bits ahead of the guest where they cannot follow it in postcopy: QEMU 7.2 and 10.0 die of a node's
   * name that comes when their guest runs, and only those of a single node need no further name.
   */
  async endAhead(output: OutputChannel): Promise<void> {
    if (new Set(this.#bitmaps.map(({ node }) => node)).size < 2) return;
    await this.end(output);
    this.#isAhead = true;
  }

  /** Sends the END section, with all bits, again after a recovery. @throws MigrationError of the connection */
  async end(output: OutputChannel): Promise<void> {
    if (this.#isAhead) return;
    const { frames } = output;
    const chunks = this.#chunks;
    chunks.renameBitmap();
    writeSectionHead(frames, { kind: 'end', sectionId: BITMAP_SECTION_ID });
    for (const bitmap of this.#bitmaps) {
      const { port, diskBytes } = bitmap;
      const stepBytes = BITMAP_CHUNK_BYTES * 8 * port.granularityBytes;
      for (let at = 0, byte = 0; at < diskBytes; at += stepBytes, byte += BITMAP_CHUNK_BYTES) {
        const length = Math.min(stepBytes, diskBytes - at);
        const { sent } = bitmapChunkBytes(length, port.granularityBytes);
        chunks.bits(frames, bitmap, at, length, port.bytesAt(byte, sent));
        if (frames.length > FLUSH_BYTES) await output.flush();
      }
    }
    for (const bitmap of this.#bitmaps) chunks.complete(frames, bitmap);
    chunks.eos(frames);
    writeFooter(frames, BITMAP_SECTION_ID);
    await output.flush();
  }

  /** Lets go of the bitmaps. */
  release(): void {
    for (const { port } of this.#bitmaps) port.busy = false;
  }
}
