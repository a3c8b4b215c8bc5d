import { fdatasync, ftruncateSync } from 'node:fs';
import { promisify } from 'node:util';
import { ByteWriter } from '@wherry/bytes';
import type { RamBlockModel, RamSink } from '@wherry/snapshot';
import {
  applyXbzrle,
  type Configuration,
  type MappedRamPlace,
  mappedBitmapBytes,
  placeMappedBlock,
  RAM_SECTION,
  RamFlag,
  StreamError,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeMappedHeader,
  writeRamWord,
  writeSectionHead,
} from '@wherry/stream';
import { BatchedWrites } from './batched-writes.ts';
import { expandPage } from './expand-page.ts';

const sync = promisify(fdatasync);
/** A guest stands still while the last of it is synced: what came before is on its way to the disk by then. */
const SYNC_EVERY_BYTES = 128 * 1024 * 1024;
/** Above any host's memory: a damaged length must not have us keep bitmaps of it. */
const MAX_TOTAL_BYTES = 8 * 2 ** 40;
const MAX_BLOCKS = 4096;

/** A RAM block as pages name it. */
type NamedBlock = Pick<RamBlockModel, 'name'>;

interface Block {
  readonly usedBytes: number;
  readonly place: MappedRamPlace;
  /** Pages that are in the file, as the file has it; a page that is zero is not. */
  readonly present: Uint8Array;
  /** Pages that came, zero or not. */
  readonly received: Uint8Array;
}

/**
 * Writes a guest to a mapped-ram file: each page has its place, whenever and however often it comes;
 * device sections follow in the order in which they are appended.
 *
 * The file is sparse: zero pages and pages that never came take no room. It loads with `-incoming
 * file:PATH` and mapped-ram on, from QEMU 9.0 on.
 *
 * @see mapped_ram_setup_ramblock and ram_save_file_bmap in QEMU's migration/ram.c
 */
export class MappedRamWriter implements RamSink {
  readonly #fd: number;
  #pageBytes = 4096;
  readonly #writes = new BatchedWrites();
  readonly #blocks = new Map<string, Block>();
  /** Where what is appended goes. */
  #end = 0;
  /** Where the last whole section ended. */
  #wholeEnd = 0;
  #totalBytes = 0;
  #unsyncedBytes = 0;
  #syncing: Promise<void> | undefined;
  #syncFailure: unknown;
  #ram: { readonly sectionId: number; readonly listOffset: number } | undefined;

  /** @param fd an empty file, open for reading and writing; the caller's */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Begins the file with header and configuration. */
  start(configuration: Configuration | undefined, pageBytes: number): void {
    this.#pageBytes = pageBytes;
    const writer = new ByteWriter();
    writeHeader(writer);
    if (configuration !== undefined) {
      const others = configuration.capabilities?.filter((name) => name !== 'mapped-ram') ?? [];
      writeConfiguration(writer, { ...configuration, capabilities: [...others, 'mapped-ram'] });
    }
    this.append(writer.bytes);
  }

  /** Appends bytes behind what is there: sections, the end, the vmdesc. */
  append(bytes: Uint8Array): void {
    this.#writes.write(this.#fd, bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Hears that what was appended is a whole section. */
  endSection(): void {
    this.#wholeEnd = this.#end;
  }

  /** Forgets the part of a section that was appended since. */
  dropPart(): void {
    this.#end = this.#wholeEnd;
  }

  /** Begins the `ram` section. */
  beginRam(sectionId: number): void {
    const writer = new ByteWriter();
    writeSectionHead(writer, { kind: 'start', sectionId, ...RAM_SECTION });
    this.#ram = { sectionId, listOffset: this.#end + writer.length };
    writeRamWord(writer, 0, RamFlag.memSize); // the total is known at its end
    this.append(writer.bytes);
  }

  begin({ name, usedBytes, gpa }: RamBlockModel): void {
    if (this.#blocks.has(name)) return; // a connection that goes on with a postcopy has no list
    this.#totalBytes += usedBytes;
    if (this.#totalBytes > MAX_TOTAL_BYTES || this.#blocks.size === MAX_BLOCKS) {
      throw new StreamError('RAM_LIST_INVALID', 'The RAM blocks are too large or too many', {
        expected: `at most ${MAX_BLOCKS} blocks with 8 TiB in all`,
        found: `${name} with ${usedBytes} bytes`,
        path: ['ram', name],
        likely: 'The stream is damaged before this point',
      });
    }
    const writer = new ByteWriter().counted(name).u64(BigInt(usedBytes));
    if (gpa !== undefined) writer.u64(BigInt(gpa));
    const place = placeMappedBlock(this.#end + writer.length, usedBytes, this.#pageBytes);
    writeMappedHeader(writer, place);
    this.append(writer.bytes);
    this.#end = place.pagesOffset + usedBytes;
    const bytes = mappedBitmapBytes(usedBytes, this.#pageBytes);
    const [present, received] = [new Uint8Array(bytes), new Uint8Array(bytes)];
    this.#blocks.set(name, { usedBytes, place, present, received });
  }

  page(model: NamedBlock, offset: number, bytes: Uint8Array, at?: number): void {
    const block = this.#blockAt(model, offset, bytes.length, at);
    this.#writes.write(this.#fd, bytes, block.place.pagesOffset + offset);
    this.#mark(block, offset, bytes.length, true);
    this.#unsyncedBytes += bytes.length;
    if (this.#unsyncedBytes >= SYNC_EVERY_BYTES) this.#syncBehind();
  }

  zero(model: NamedBlock, offset: number, lengthBytes: number, at?: number): void {
    this.#mark(this.#blockAt(model, offset, lengthBytes, at), offset, lengthBytes, false);
  }

  xbzrle(
    model: RamBlockModel,
    offset: number,
    lengthBytes: number,
    encoded: Uint8Array,
    at: number,
  ): void {
    const page = new Uint8Array(lengthBytes);
    const { present, place } = this.#blockAt(model, offset, lengthBytes, at);
    if (isSet(present, offset / this.#pageBytes)) {
      this.#writes.read(this.#fd, page, place.pagesOffset + offset);
    }
    applyXbzrle(page, encoded, lengthBytes, { offset: at, path: ['ram', model.name] });
    this.page(model, offset, page, at);
  }

  compressed(
    model: RamBlockModel,
    offset: number,
    lengthBytes: number,
    packed: Uint8Array,
    at: number,
  ): void {
    this.page(model, offset, expandPage(model, lengthBytes, packed, at), at);
  }

  /** Ends the `ram` section: what is appended then goes behind the pages, which may still come. */
  endRam(): void {
    if (this.#ram === undefined) return;
    const { sectionId, listOffset } = this.#ram;
    const total = new ByteWriter();
    writeRamWord(total, this.#totalBytes, RamFlag.memSize);
    this.#writes.write(this.#fd, total.bytes, listOffset);
    const writer = new ByteWriter();
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, sectionId);
    writeSectionHead(writer, { kind: 'end', sectionId });
    writeRamWord(writer, 0, RamFlag.eos);
    writeFooter(writer, sectionId);
    this.append(writer.bytes);
    this.endSection();
  }

  /** Forgets that pages came: they come again. */
  discard(name: string, start: number, lengthBytes: number): void {
    const block = this.#blocks.get(name);
    if (block === undefined) return;
    const end = Math.min(block.usedBytes, start + lengthBytes);
    for (let at = start; at < end; at += this.#pageBytes) {
      clear(block.received, at / this.#pageBytes);
      clear(block.present, at / this.#pageBytes);
    }
  }

  /** Names of the blocks that were listed. */
  get blockNames(): readonly string[] {
    return [...this.#blocks.keys()];
  }

  /** Gives the length of a block, if it was listed. */
  usedBytes(name: string): number | undefined {
    return this.#blocks.get(name)?.usedBytes;
  }

  /** Gives a bit for each page of a block that came, least significant first; a view. */
  received(name: string): Uint8Array | undefined {
    return this.#blocks.get(name)?.received;
  }

  /** Writes what is left, the bitmaps too, and waits until the file is safe. */
  async finish(): Promise<void> {
    for (const { place, present } of this.#blocks.values()) {
      this.#writes.write(this.#fd, present, place.bitmapOffset);
    }
    this.#writes.flush();
    ftruncateSync(this.#fd, this.#end);
    await this.#syncing;
    if (this.#syncFailure !== undefined) throw this.#syncFailure;
    await sync(this.#fd);
  }

  /** Has the disk catch up, beside what goes on. */
  #syncBehind(): void {
    this.#unsyncedBytes = 0;
    this.#syncing ??= sync(this.#fd)
      .catch((error: unknown) => {
        this.#syncFailure ??= error; // the system tells of it once
      })
      .finally(() => {
        this.#syncing = undefined;
      });
  }

  /** Finds a page's block. @throws StreamError when there is no such page */
  #blockAt({ name }: NamedBlock, offset: number, lengthBytes: number, at?: number): Block {
    const block = this.#blocks.get(name);
    if (block === undefined) {
      throw new StreamError('RAM_BLOCK_UNKNOWN', 'A page belongs to no listed RAM block', {
        expected: [...this.#blocks.keys()].join(', '),
        found: JSON.stringify(name),
        ...(at !== undefined && { offset: at }),
        path: ['ram'],
        likely: 'The connection goes on with another migration than the one that broke',
      });
    }
    if (offset % this.#pageBytes === 0 && offset + lengthBytes <= block.usedBytes) return block;
    throw new StreamError('RAM_RECORD_INVALID', 'A page is not where its block has pages', {
      expected: `a multiple of ${this.#pageBytes} below ${block.usedBytes}`,
      found: `${lengthBytes} bytes at ${offset}`,
      ...(at !== undefined && { offset: at }),
      path: ['ram', name],
      likely:
        'The guest has pages of less than 4 KiB, which its stream does not say; or the stream is damaged',
    });
  }

  #mark(block: Block, offset: number, lengthBytes: number, isPresent: boolean): void {
    const end = (offset + lengthBytes) / this.#pageBytes;
    for (let page = offset / this.#pageBytes; page < end; page++) {
      set(block.received, page);
      if (isPresent) set(block.present, page);
      else clear(block.present, page);
    }
  }
}

function isSet(bits: Uint8Array, index: number): boolean {
  return (bits[index >> 3]! & (1 << (index & 7))) !== 0;
}

function set(bits: Uint8Array, index: number): void {
  bits[index >> 3]! |= 1 << (index & 7);
}

function clear(bits: Uint8Array, index: number): void {
  bits[index >> 3]! &= ~(1 << (index & 7));
}
