import { MachineError } from '../machine-error.ts';

/**
 * The bytes of an image. Synchronous, so that an update of an image's tables cannot be interleaved with
 * another one: Node has such files, browsers have OPFS's, and {@link MemoryFile} is everywhere.
 */
export interface BlockFile {
  readonly lengthBytes: number;
  /** Fills `into`; bytes behind the end are zero. */
  read(offset: number, into: Uint8Array): void;
  /** Writes all of `bytes`; the file grows, with zeros where nothing was written. */
  write(offset: number, bytes: Uint8Array): void;
  /** Makes what was written durable. */
  flush(): void;
  close(): void;
}

/** An image in memory. */
export class MemoryFile implements BlockFile {
  #bytes: Uint8Array<ArrayBuffer>;
  #length: number;

  /** @param bytes copied */
  constructor(bytes: Uint8Array = new Uint8Array()) {
    this.#bytes = new Uint8Array(bytes);
    this.#length = bytes.length;
  }

  get lengthBytes(): number {
    return this.#length;
  }

  /** Copies what is in it. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  read(offset: number, into: Uint8Array): void {
    const there = this.#bytes.subarray(
      Math.min(offset, this.#length),
      Math.min(offset + into.length, this.#length),
    );
    into.set(there);
    into.fill(0, there.length);
  }

  /** @throws MachineError `BLOCK_IO` when no memory has so much room */
  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (end > this.#bytes.length) {
      let larger: Uint8Array<ArrayBuffer>;
      try {
        larger = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      } catch (cause) {
        throw new MachineError('BLOCK_IO', 'An image in memory cannot grow so far', {
          found: `${end} bytes`,
          cause,
        });
      }
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, offset);
    this.#length = Math.max(this.#length, end);
  }

  flush(): void {}
  close(): void {}
}
