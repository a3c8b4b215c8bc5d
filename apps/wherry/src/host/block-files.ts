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

  constructor(fd: number) {
    this.#fd = fd;
  }

  get lengthBytes(): number {
    return fstatSync(this.#fd).size; // another host may have written it
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
  }

  flush(): void {
    fsyncSync(this.#fd);
  }

  close(): void {
    closeSync(this.#fd);
  }
}
