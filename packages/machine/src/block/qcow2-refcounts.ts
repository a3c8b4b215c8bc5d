import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';
import { imageInvalid, type Qcow2Header, writeQcow2Header } from './qcow2-header.ts';

const BLOCK_MASK = 0xffff_ffff_ffff_fe00n;

/**
 * Which clusters of an image are in use, and by how many: allocates and frees them. Knows which hold
 * tables, so that no entry, however wrong, has a table overwritten.
 *
 * @see QEMU's block/qcow2-refcount.c
 */
export class Qcow2Refcounts {
  readonly #file: BlockFile;
  readonly #header: Qcow2Header;
  readonly #clusterBytes: number;
  readonly #bits: number;
  readonly #perBlock: number;
  /** The refcount table. */
  #table: BigUint64Array;
  /** The block that was used last, written through. */
  #block = { offset: 0, bytes: new Uint8Array() };
  /** What holds each cluster that is no guest data. */
  readonly #tables = new Map<number, string>();
  /** No cluster before it is free. */
  #firstFree = 1;

  /** @throws MachineError `IMAGE_INVALID` when a refcount block lies elsewhere than in clusters of its own */
  constructor(file: BlockFile, header: Qcow2Header) {
    this.#file = file;
    this.#header = header;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#bits = 2 ** header.refcountOrder;
    this.#perBlock = (this.#clusterBytes * 8) / this.#bits;
    this.claim(0, 1, 'header');
    this.claim(
      header.refcountTableOffset,
      header.refcountTableClusters * this.#clusterBytes,
      'refcount table',
    );
    const bytes = new Uint8Array(header.refcountTableClusters * this.#clusterBytes);
    file.read(header.refcountTableOffset, bytes);
    const view = new DataView(bytes.buffer);
    this.#table = BigUint64Array.from(
      { length: bytes.length / 8 },
      (_, i) => view.getBigUint64(i * 8) & BLOCK_MASK,
    );
    for (const offset of this.#table) {
      if (offset !== 0n) this.claim(Number(offset), this.#clusterBytes, 'refcount block');
    }
  }

  /**
   * Says that a range holds a table.
   *
   * @throws MachineError `IMAGE_INVALID` when it is not aligned, lies outside of the file or over another table
   */
  claim(offset: number, bytes: number, what: string): void {
    const fail = (problem: string, expected: string): never => {
      throw imageInvalid(problem, { expected, found: `${offset}`, path: ['qcow2', what] });
    };
    if (offset % this.#clusterBytes !== 0)
      fail(`The ${what} is not aligned to a cluster`, `a multiple of ${this.#clusterBytes}`);
    if (offset + bytes > this.#file.lengthBytes)
      fail(`The ${what} lies outside of the file`, `less than ${this.#file.lengthBytes}`);
    const first = offset / this.#clusterBytes;
    for (let cluster = first; cluster < first + Math.ceil(bytes / this.#clusterBytes); cluster++) {
      const other = this.#tables.get(cluster);
      if (other !== undefined) fail(`The ${what} lies over the ${other}`, 'clusters of its own');
      this.#tables.set(cluster, what);
    }
  }

  /** Says that a range holds no table any more. */
  unclaim(offset: number, bytes: number): void {
    const first = offset / this.#clusterBytes;
    for (let cluster = first; cluster < first + Math.ceil(bytes / this.#clusterBytes); cluster++) {
      this.#tables.delete(cluster);
    }
  }

  /** Refuses a cluster of data that is a table's. @throws MachineError `IMAGE_INVALID` */
  checkData(offset: number, what: string): void {
    const table = this.#tables.get(Math.floor(offset / this.#clusterBytes));
    if (offset % this.#clusterBytes === 0 && offset < this.#file.lengthBytes && table === undefined)
      return;
    throw imageInvalid(
      table === undefined
        ? `The ${what} lies outside of the file or not at a cluster`
        : `The ${what} lies over the ${table}`,
      {
        expected: `a cluster of its own below ${this.#file.lengthBytes}`,
        found: `${offset}`,
        path: ['qcow2', what],
      },
    );
  }

  /** How many users a cluster has. */
  get(cluster: number): number {
    const block = this.#blockOf(cluster);
    if (block === undefined) return 0;
    const index = cluster % this.#perBlock;
    const { bytes } = block;
    const at = (index * this.#bits) / 8;
    if (this.#bits < 8) {
      return (bytes[Math.floor(at)]! >> ((index * this.#bits) % 8)) & (2 ** this.#bits - 1);
    }
    let value = 0;
    for (let i = 0; i < this.#bits / 8; i++) value = value * 256 + bytes[at + i]!;
    return value;
  }

  #set(cluster: number, value: number): void {
    const block = this.#blockOf(cluster)!;
    const index = cluster % this.#perBlock;
    const at = Math.floor((index * this.#bits) / 8);
    if (this.#bits < 8) {
      const shift = (index * this.#bits) % 8;
      const mask = (2 ** this.#bits - 1) << shift;
      block.bytes[at] = (block.bytes[at]! & ~mask) | (value << shift);
    } else {
      let rest = value;
      for (let i = this.#bits / 8 - 1; i >= 0; i--) {
        block.bytes[at + i] = rest % 256;
        rest = Math.floor(rest / 256);
      }
    }
    this.#file.write(block.offset + at, block.bytes.subarray(at, at + Math.max(1, this.#bits / 8)));
  }

  #blockOf(cluster: number): { offset: number; bytes: Uint8Array } | undefined {
    const offset = Number(this.#table[Math.floor(cluster / this.#perBlock)] ?? 0n);
    if (offset === 0) return undefined;
    if (this.#block.offset !== offset) {
      const bytes = new Uint8Array(this.#clusterBytes);
      this.#file.read(offset, bytes);
      this.#block = { offset, bytes };
    }
    return this.#block;
  }

  /**
   * Takes clusters that lie side by side; what is in them is undefined.
   *
   * @returns offset of the first
   * @throws MachineError `IMAGE_INVALID` when a free cluster turns out to be a table's
   */
  allocate(clusters: number): number {
    let start = this.#firstFree;
    for (let at = start; at < start + clusters; at++) {
      const block = Math.floor(at / this.#perBlock);
      if (this.get(at) !== 0) {
        start = at + 1;
        if (at === this.#firstFree) this.#firstFree = start;
      } else if (this.#tables.has(at)) {
        throw imageInvalid('A cluster counts as free and holds a table', {
          expected: 'a refcount of at least 1',
          found: '0',
          offset: at * this.#clusterBytes,
          path: ['qcow2', this.#tables.get(at)!],
          likely: 'Its refcounts are wrong: `qemu-img check -r all` repairs them',
        });
      } else if ((this.#table[block] ?? 0n) === 0n) {
        this.#addBlock(block, at);
        start = at + 1;
      }
    }
    for (let at = start; at < start + clusters; at++) this.#set(at, 1);
    const end = (start + clusters) * this.#clusterBytes;
    if (end > this.#file.lengthBytes) this.#file.write(end - 1, new Uint8Array(1));
    return start * this.#clusterBytes;
  }

  /** Takes a cluster from an owner; the last one's is free. */
  release(offset: number, clusters = 1): void {
    const first = offset / this.#clusterBytes;
    for (let cluster = first; cluster < first + clusters; cluster++) {
      const count = this.get(cluster);
      if (count === 0) {
        throw imageInvalid('A cluster is used and counts as free', {
          expected: 'a refcount of at least 1',
          found: '0',
          offset: cluster * this.#clusterBytes,
          likely: 'Its refcounts are wrong: `qemu-img check -r all` repairs them',
        });
      }
      this.#set(cluster, count - 1);
      if (count === 1) this.#firstFree = Math.min(this.#firstFree, cluster);
    }
  }

  /** Makes the block of a part of the file without one, in a free cluster of that very part, which it then counts itself. */
  #addBlock(index: number, cluster: number): void {
    if (index >= this.#table.length) this.#growTable(index);
    if (this.#table[index] !== 0n) return;
    this.#newBlock(index, cluster);
    this.#writeEntry(index);
  }

  #newBlock(index: number, cluster: number): void {
    const offset = cluster * this.#clusterBytes;
    this.#file.write(offset, new Uint8Array(this.#clusterBytes));
    this.claim(offset, this.#clusterBytes, 'refcount block');
    this.#table[index] = BigInt(offset);
    // A block that lies in another block's part is counted there.
    this.#set(cluster, 1);
  }

  #writeEntry(index: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, this.#table[index]!);
    this.#file.write(this.#header.refcountTableOffset + index * 8, bytes);
  }

  /** Moves the table to the end of the file, with room for twice as much. */
  #growTable(index: number): void {
    const { refcountTableOffset: oldOffset, refcountTableClusters: oldClusters } = this.#header;
    const clusters = Math.max(oldClusters * 2, Math.ceil(((index + 1) * 8) / this.#clusterBytes));
    if (clusters * this.#clusterBytes > 8 * 1024 * 1024) {
      throw new MachineError('BLOCK_IO', 'The image cannot grow so far with clusters so small', {
        path: ['qcow2', 'refcount table'],
        likely: 'Use larger clusters: `qemu-img create -o cluster_size=64K`',
      });
    }
    const larger = new BigUint64Array((clusters * this.#clusterBytes) / 8);
    larger.set(this.#table);
    this.#table = larger;
    const first = Math.ceil(this.#file.lengthBytes / this.#clusterBytes);
    let end = first;
    /** Counts the next cluster at the end, which may need a block: the cluster itself becomes that one. */
    const take = (): number => {
      const part = Math.floor(end / this.#perBlock);
      if (this.#table[part] === 0n) this.#newBlock(part, end++);
      this.#set(end, 1);
      return end++;
    };
    let start = take();
    // The table's clusters lie side by side: a block in between has it begin behind.
    for (let have = 1; have < clusters; have++) {
      const next = take();
      if (next !== start + have) {
        for (let cluster = start; cluster < start + have; cluster++) this.#set(cluster, 0);
        start = next;
        have = 0;
      }
    }
    const bytes = new Uint8Array(clusters * this.#clusterBytes);
    const view = new DataView(bytes.buffer);
    for (const [i, offset] of this.#table.entries()) view.setBigUint64(i * 8, offset);
    const offset = start * this.#clusterBytes;
    this.#file.write(offset, bytes);
    this.claim(offset, bytes.length, 'refcount table');
    this.#header.refcountTableOffset = offset;
    this.#header.refcountTableClusters = clusters;
    writeQcow2Header(this.#file, this.#header);
    this.unclaim(oldOffset, oldClusters * this.#clusterBytes);
    this.release(oldOffset, oldClusters);
  }
}
