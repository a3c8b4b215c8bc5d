import { createHash } from 'node:crypto';
import { closeSync, existsSync, ftruncateSync, mkdirSync, openSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import type { RamBlockModel, RamSink, StreamModel } from '@wherry/snapshot';
import { applyXbzrle } from '@wherry/stream';
import { CliError } from '../cli-error.ts';
import { BatchedWrites } from '../ram/batched-writes.ts';
import { expandPage } from '../ram/expand-page.ts';
import { WrittenRanges } from './written-ranges.ts';

const PIECE_BYTES = 1024 * 1024;
/** A process may open some 1000 files; a guest has a few blocks. */
const MAX_BLOCKS = 256;
/** Above any host's memory: a damaged length must not fill the disk's tables, nor be hashed for days. */
const MAX_TOTAL_BYTES = 64 * 2 ** 40;

interface BlockFile {
  readonly path: string;
  readonly fd: number;
  readonly written: WrittenRanges;
}

/**
 * Writes RAM blocks to sparse files in a directory as a stream is walked.
 *
 * A file is called NAME.partial until the stream was read whole: what a broken stream brought stays under
 * that name.
 */
export class RamFiles implements RamSink {
  readonly #directory: string;
  readonly #replace: boolean;
  readonly #files = new Map<string, BlockFile>();
  readonly #writes: BatchedWrites = new BatchedWrites((fd, cause) => {
    const file = [...this.#files.values()].find((known) => known.fd === fd);
    return new CliError(`Cannot write ${partial(file?.path ?? '')}: ${messageOf(cause)}`, 1);
  });
  readonly #zeros: Buffer = Buffer.alloc(PIECE_BYTES);
  #totalBytes = 0;
  /** Names of the files that hold the blocks, by block, once they are finished. */
  readonly names: Map<string, string> = new Map();

  /** @param replace whether files that are there are replaced */
  constructor(directory: string, replace: boolean) {
    this.#directory = directory;
    this.#replace = replace;
  }

  begin(block: RamBlockModel): void {
    this.#writes.flush();
    const { name, usedBytes } = block;
    const known = this.#files.get(name);
    if (known !== undefined)
      closeSync(known.fd); // the same stream is walked once more
    else this.#totalBytes += usedBytes;
    if (this.#files.size >= MAX_BLOCKS || this.#totalBytes > MAX_TOTAL_BYTES) {
      throw new CliError(
        `The stream has more or larger RAM blocks than --ram writes (${MAX_BLOCKS} blocks, 64 TiB in all): it is likely damaged`,
        1,
      );
    }
    const path = join(this.#directory, fileNameOf(name));
    if (!this.#replace && known === undefined) {
      for (const existing of [path, partial(path)]) {
        if (!existsSync(existing)) continue;
        throw new CliError(
          `${existing} exists: name another directory, or replace it with --force`,
          2,
        );
      }
    }
    try {
      mkdirSync(this.#directory, { recursive: true });
      const fd = openSync(partial(path), 'w+');
      ftruncateSync(fd, usedBytes);
      this.#files.set(name, { path, fd, written: new WrittenRanges() });
    } catch (cause) {
      throw new CliError(`Cannot write ${partial(path)}: ${messageOf(cause)}`, 1);
    }
  }

  page(block: RamBlockModel, offset: number, bytes: Uint8Array): void {
    this.#write(this.#fileOf(block), offset, bytes);
  }

  zero(block: RamBlockModel, offset: number, lengthBytes: number): void {
    const file = this.#fileOf(block);
    // What was never written is a hole, and stays one.
    for (const [start, end] of file.written.within(offset, offset + lengthBytes)) {
      for (let at = start; at < end; at += PIECE_BYTES) {
        this.#write(file, at, this.#zeros.subarray(0, Math.min(PIECE_BYTES, end - at)));
      }
    }
  }

  xbzrle(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    encoded: Uint8Array,
    at: number,
  ): void {
    const file = this.#fileOf(block);
    const page = Buffer.alloc(lengthBytes);
    this.#writes.read(file.fd, page, offset);
    applyXbzrle(page, encoded, lengthBytes, { offset: at, path: ['ram', block.name] });
    this.#write(file, offset, page);
  }

  compressed(
    block: RamBlockModel,
    offset: number,
    lengthBytes: number,
    packed: Uint8Array,
    at: number,
  ): void {
    const page = expandPage(block, lengthBytes, packed, at);
    this.#write(this.#fileOf(block), offset, page);
  }

  /**
   * Ends the files: hashes them into the model and, when the stream is whole, gives them their names.
   *
   * @param model undefined when nothing is to be reported
   */
  finish(model: StreamModel | undefined, isWhole: boolean): void {
    this.#writes.flush();
    for (const block of model?.ram?.blocks ?? []) {
      const file = this.#files.get(block.name);
      if (file === undefined) continue;
      if (isWhole) ftruncateSync(file.fd, block.usedBytes); // a block without a list grows with its pages
      block.sha256 = this.#hash(file, block.usedBytes);
    }
    for (const [name, { fd, path }] of this.#files) {
      closeSync(fd);
      if (isWhole) renameSync(partial(path), path);
      this.names.set(name, isWhole ? path : partial(path));
    }
    this.#files.clear();
  }

  #fileOf(block: RamBlockModel): BlockFile {
    if (!this.#files.has(block.name)) this.begin(block);
    return this.#files.get(block.name)!;
  }

  #write(file: BlockFile, offset: number, bytes: Uint8Array): void {
    file.written.add(offset, offset + bytes.length);
    this.#writes.write(file.fd, bytes, offset);
  }

  #hash({ fd, written }: BlockFile, lengthBytes: number): string {
    const hash = createHash('sha256');
    const piece = new Uint8Array(PIECE_BYTES);
    let at = 0;
    const zerosUpTo = (end: number): void => {
      for (; at < end; at += PIECE_BYTES) {
        hash.update(this.#zeros.subarray(0, Math.min(PIECE_BYTES, end - at)));
      }
      at = end;
    };
    for (const [start, end] of written.within(0, lengthBytes)) {
      zerosUpTo(start);
      while (at < end) {
        const count = this.#writes.read(fd, piece.subarray(0, end - at), at);
        if (count === 0) break;
        hash.update(piece.subarray(0, count));
        at += count;
      }
    }
    zerosUpTo(lengthBytes);
    return hash.digest('hex');
  }
}

/** Makes a file's name of a block's: what is no plain character, and a leading dot, is %-encoded. */
export function fileNameOf(block: string): string {
  return encodeURIComponent(block.toWellFormed())
    .replace(/%40/g, '@')
    .replace(/%3A/g, ':')
    .replace(/[*'()!~]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/^\./, '%2E');
}

function partial(path: string): string {
  return `${path}.partial`;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
