import { type FileHandle, open } from 'node:fs/promises';
import type { SharedRam } from '@wherry/migration';
import type { GuestRam, RamBlock } from '@wherry/page-engine';
import { CliError } from '../cli-error.ts';

/** Bytes that are read or written at once. */
const PIECE_BYTES = 8 * 1024 * 1024;

/**
 * Keeps RAM blocks in files that another host can open. WebAssembly memory cannot be a mapping of a file,
 * so the blocks are copied when the guest stands still: into the files at the source, out of them at the
 * destination.
 */
export class SharedRamFiles implements SharedRam {
  readonly #files: ReadonlyMap<RamBlock, FileHandle>;

  private constructor(files: ReadonlyMap<RamBlock, FileHandle>) {
    this.#files = files;
  }

  /**
   * Opens the files of blocks, and makes those that are not there.
   *
   * @param paths by the name of a block
   * @throws CliError for a file that cannot be opened, or is shorter than its block
   * @see file_ram_alloc in QEMU's system/physmem.c
   */
  static async open(ram: GuestRam, paths: ReadonlyMap<string, string>): Promise<SharedRamFiles> {
    const files = new Map<RamBlock, FileHandle>();
    const shared = new SharedRamFiles(files);
    try {
      for (const [name, path] of paths) {
        const block = ram.block(name)!;
        const file = await open(path, 'a+').then(async (made) => {
          await made.close(); // it is there now, and `a` would ignore offsets
          return open(path, 'r+');
        });
        files.set(block, file);
        const { size } = await file.stat();
        if (size === 0) await file.truncate(block.lengthBytes);
        else if (size < block.lengthBytes) {
          const [is, needed] = [size, block.lengthBytes].map((bytes) => bytes.toString(16));
          throw new Error(`backing store size 0x${is} does not match 'size' option 0x${needed}`);
        }
      }
    } catch (error) {
      await shared.close();
      throw new CliError(`--ram: ${(error as Error).message}`, 2);
    }
    return shared;
  }

  get blocks(): ReadonlySet<RamBlock> {
    return new Set(this.#files.keys());
  }

  async save(): Promise<void> {
    for (const [block, file] of this.#files) {
      for (const { at, bytes } of pieces(block)) {
        for (let done = 0; done < bytes.length; ) {
          done += (await file.write(bytes, done, bytes.length - done, at + done)).bytesWritten;
        }
      }
    }
  }

  async load(): Promise<void> {
    for (const [block, file] of this.#files) {
      for (const { at, bytes } of pieces(block)) {
        for (let done = 0; done < bytes.length; ) {
          const { bytesRead } = await file.read(bytes, done, bytes.length - done, at + done);
          if (bytesRead === 0) {
            throw new Error(`the file of RAM block ${block.name} ends at byte ${at + done}`);
          }
          done += bytesRead;
        }
      }
    }
  }

  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close();
  }
}

/** Cuts a block's memory. */
function* pieces(block: RamBlock): Generator<{ readonly at: number; readonly bytes: Uint8Array }> {
  let at = 0;
  for (const { bytes } of block.fillable(0, block.pageCount)) {
    for (let from = 0; from < bytes.length; from += PIECE_BYTES) {
      const piece = bytes.subarray(from, from + PIECE_BYTES);
      yield { at, bytes: piece };
      at += piece.length;
    }
  }
}
