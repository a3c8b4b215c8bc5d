import {
  closeSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { dirname, resolve } from 'node:path';
import type { BlockFile, BlockFiles } from '@wherry/machine';

/** Disk images in this machine's files. */
export const blockFiles: BlockFiles = {
  resolve(filename, relativeTo) {
    return realpathSync(
      relativeTo === undefined ? filename : resolve(dirname(relativeTo), filename),
    );
  },
  open(path, readOnly) {
    return new NodeBlockFile(openSync(path, readOnly ? 'r' : 'r+'));
  },
};

class NodeBlockFile implements BlockFile {
  readonly #fd: number;
  #length: number;

  constructor(fd: number) {
    this.#fd = fd;
    this.#length = fstatSync(fd).size;
  }

  get lengthBytes(): number {
    return this.#length;
  }

  read(offset: number, into: Uint8Array): void {
    let have = 0;
    while (have < into.length) {
      const count = readSync(this.#fd, into, have, into.length - have, offset + have);
      if (count === 0) break;
      have += count;
    }
    into.fill(0, have);
  }

  write(offset: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, offset + done);
    }
    this.#length = Math.max(this.#length, offset + bytes.length);
  }

  flush(): void {
    fsyncSync(this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
