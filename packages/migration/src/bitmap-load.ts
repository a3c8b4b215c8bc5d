import type { ByteReader, Parser } from '@wherry/bytes';
import { type BitmapChunk, BitmapChunkReader, bitmapChunkBytes } from '@wherry/stream';
import type { BitmapAlias, BitmapMapping, NodeAlias } from './bitmap-mapping.ts';
import { type BitmapPort, type BlockNodePort, type BlockPort, belowFilters } from './block-port.ts';
import { MigrationError } from './migration-error.ts';

/** Bitmaps in one stream: far more than anybody has. */
const MAX_BITMAPS = 65_536;

/** What {@link BitmapLoad} needs. */
interface BitmapLoadOptions {
  readonly guest: { readonly disks?: BlockPort };
  readonly bitmapMapping?: BitmapMapping | undefined;
  /** Is told why bitmaps do not arrive, which fails no migration. */
  readonly onWarning?: (message: string) => void;
}

/** A bitmap that has begun to arrive. */
interface Incoming {
  readonly node: BlockNodePort;
  readonly port: BitmapPort;
  readonly enabled: boolean;
  isComplete: boolean;
}

/**
 * Loads dirty bitmaps. One that cannot arrive drops all that have not, with a warning: the guest arrives
 * without them, since a backup can always begin anew.
 *
 * A bitmap that records does so from the guest's start on, also while its bits are still to come: in a
 * successor, which it takes in when it is complete.
 *
 * @see dirty_bitmap_load in QEMU's migration/block-dirty-bitmap.c
 */
export class BitmapLoad {
  readonly #options: BitmapLoadOptions;
  readonly #chunks = new BitmapChunkReader();
  readonly #incoming = new Map<string, Incoming>();
  #isCancelled = false;
  #isGuestStarted = false;

  constructor(options: BitmapLoadOptions) {
    this.#options = options;
  }

  /** Reads the body of one section. @throws StreamError, MigrationError `BITMAP_INVALID` when a bitmap is there already */
  *loadBody(reader: ByteReader): Parser<void> {
    for (;;) {
      const chunk = yield* this.#chunks.read(reader);
      if (chunk.kind === 'eos') return;
      if (this.#isCancelled) continue;
      const key = JSON.stringify([chunk.node, chunk.bitmap]);
      if (chunk.kind === 'start') this.#start(key, chunk);
      else {
        const incoming = this.#incoming.get(key);
        if (incoming === undefined) {
          this.cancel(`unknown dirty bitmap '${chunk.bitmap}' for block device '${chunk.node}'`);
        } else if (incoming.isComplete)
          continue; // comes again in a recovery, and records already
        else if (chunk.kind === 'bits') this.#bits(incoming, chunk);
        else this.#complete(incoming);
      }
    }
  }

  /** Has the bitmaps record: the guest is about to write. */
  beforeStart(): void {
    this.#isGuestStarted = true;
    for (const { port, enabled, isComplete } of this.#incoming.values()) {
      if (!enabled) continue;
      if (isComplete) port.enabled = true;
      else port.enableSuccessor();
    }
  }

  /** Drops the bitmaps that have not arrived, and all that may follow. */
  cancel(reason: string): void {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    const dropped: string[] = [];
    for (const { node, port, isComplete } of this.#incoming.values()) {
      if (isComplete && this.#isGuestStarted) continue;
      port.reclaimSuccessor();
      node.removeBitmap(port);
      dropped.push(`'${port.name}' on node '${node.nodeName}'`);
    }
    this.#incoming.clear();
    const which = dropped.length === 0 ? 'no bitmap of the rest arrives' : dropped.join(', ');
    this.#options.onWarning?.(`Dirty bitmaps are dropped, ${which}: ${reason}`);
  }

  /** Drops all: the guest does not arrive. */
  fail(): void {
    if (this.#incoming.size > 0) this.cancel('the migration failed');
  }

  /** Drops what has not arrived by the end of the stream. */
  finish(): void {
    const isMissing = [...this.#incoming.values()].some(({ isComplete }) => !isComplete);
    if (isMissing) this.cancel('the stream ended before they were complete');
  }

  #start(key: string, chunk: BitmapChunk & { kind: 'start' }): void {
    const names = this.#namesHere(chunk.node, chunk.bitmap);
    if (typeof names === 'string') {
      this.cancel(names);
      return;
    }
    const { node, alias } = names;
    const name = alias?.name ?? chunk.bitmap;
    if (this.#incoming.has(key) || node.bitmaps.some((known) => known.name === name)) {
      throw this.#invalid(
        `Bitmap with the same name ('${name}') already exists on destination`,
        chunk,
        'Remove it there, or leave one of the two out by block-bitmap-mapping',
      );
    }
    if (this.#incoming.size === MAX_BITMAPS) {
      throw this.#invalid(
        `There are more than ${MAX_BITMAPS} bitmaps`,
        chunk,
        'The stream is damaged',
      );
    }
    let port: BitmapPort;
    try {
      port = node.createBitmap(name, chunk.granularityBytes);
    } catch (cause) {
      throw this.#invalid(
        (cause as Error).message,
        chunk,
        'The stream is damaged, or a newer release wrote it',
        cause,
      );
    }
    port.persistent = alias?.transform?.persistent ?? chunk.persistent;
    port.enabled = false;
    if (chunk.enabled) port.createSuccessor();
    else port.busy = true;
    this.#incoming.set(key, { node, port, enabled: chunk.enabled, isComplete: false });
  }

  #bits({ node, port }: Incoming, chunk: BitmapChunk & { kind: 'bits' }): void {
    const { diskOffset, diskBytes, bits } = chunk;
    const { granularityBytes, name } = port;
    const { least, sent } = bitmapChunkBytes(diskBytes, granularityBytes);
    const isFitting =
      diskOffset % (granularityBytes * 64) === 0 &&
      diskOffset < node.sizeBytes &&
      diskOffset + diskBytes < node.sizeBytes + granularityBytes * 64 &&
      (bits === undefined || (bits.length >= least && bits.length <= sent));
    if (!isFitting) {
      this.cancel(
        `Migrated bitmap granularity doesn't match the destination bitmap '${name}' granularity, or the disks differ in size`,
      );
      return;
    }
    port.setBytes(diskOffset / granularityBytes / 8, least, bits);
  }

  #complete(incoming: Incoming): void {
    incoming.isComplete = true;
    incoming.port.reclaimSuccessor();
  }

  /** Finds where a bitmap belongs; a text says why nowhere. */
  #namesHere(
    nodeAlias: string,
    bitmapAlias: string,
  ): { readonly node: BlockNodePort; readonly alias: BitmapAlias | undefined } | string {
    const { bitmapMapping: mapping } = this.#options;
    let nodeName = nodeAlias;
    let mapped: NodeAlias | undefined;
    if (mapping !== undefined) {
      mapped = mapping.find(({ alias }) => alias === nodeAlias);
      if (mapped === undefined) return `Unknown node alias '${nodeAlias}'`;
      nodeName = mapped['node-name'];
    }
    const { nodes = [], backends = [] } = this.#options.guest.disks ?? {};
    const device =
      mapping === undefined && backends.find(({ name }) => name !== '' && name === nodeName);
    const node = device
      ? belowFilters(device.root)
      : nodes.find((known) => known.nodeName === nodeName);
    if (node === undefined) return `Cannot find device='${nodeName}' nor node-name='${nodeName}'`;
    const alias = mapped?.bitmaps.find((known) => known.alias === bitmapAlias);
    if (mapped !== undefined && alias === undefined) {
      return `Unknown bitmap alias '${bitmapAlias}' on node '${nodeName}' (alias '${nodeAlias}')`;
    }
    return { node, alias };
  }

  #invalid(
    what: string,
    { node, bitmap, offset }: BitmapChunk & { kind: 'start' },
    likely: string,
    cause?: unknown,
  ): MigrationError {
    return new MigrationError('BITMAP_INVALID', what, {
      ...{ offset, likely, cause },
      path: ['dirty-bitmap', node, bitmap],
    });
  }
}
