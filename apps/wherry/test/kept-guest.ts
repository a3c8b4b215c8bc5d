import { createHash } from 'node:crypto';
import { closeSync, fstatSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ByteReader, runParser } from '@wherry/bytes';
import { type RamBlockModel, type RamSink, StreamWalk } from '@wherry/snapshot';
import { applyXbzrle } from '@wherry/stream';
import { MappedRamWriter } from '../src/ram/mapped-ram-writer.ts';

/** What a guest is, however it is kept. */
export interface GuestContents {
  readonly machineType: string | undefined;
  readonly capabilities: readonly string[];
  /** A digest of each block. */
  readonly ram: Readonly<Record<string, string>>;
  /** Name and bytes of each device section, in order. */
  readonly devices: readonly (readonly [idstr: string, body: string])[];
  readonly liveSections: readonly string[];
  readonly vmdesc: string | undefined;
}

/** Reads all that a stream or a mapped-ram file holds. */
export function contentsOf(bytes: Uint8Array): GuestContents {
  const { ram, walk } = ramOf(bytes);
  const { configuration, devices, liveSections, vmdesc } = walk.model;
  const digest = (block: Uint8Array): string => createHash('sha256').update(block).digest('hex');
  return {
    machineType: configuration?.machineType,
    capabilities: (configuration?.capabilities ?? []).filter((name) => name !== 'mapped-ram'),
    ram: Object.fromEntries([...ram].map(([name, block]) => [name, digest(block)])),
    devices: devices.map(({ idstr, body }) => [idstr, Buffer.from(body!).toString('hex')]),
    liveSections: liveSections.map(({ idstr, bodyBytes }) => `${idstr} ${bodyBytes}`),
    vmdesc: vmdesc?.text,
  };
}

/** Reads the bytes of each RAM block of a stream or a mapped-ram file. */
export function ramOf(bytes: Uint8Array): { ram: Map<string, Uint8Array>; walk: StreamWalk } {
  const ram = new Map<string, Uint8Array>();
  const put = ({ name }: RamBlockModel, offset: number, page: Uint8Array): void => {
    ram.get(name)!.set(page, offset);
  };
  const sink: RamSink = {
    begin: ({ name, usedBytes }) => void ram.set(name, new Uint8Array(usedBytes)),
    page: put,
    zero: (block, offset, lengthBytes) => put(block, offset, new Uint8Array(lengthBytes)),
    xbzrle: ({ name }, offset, lengthBytes, encoded) => {
      const page = ram.get(name)!.subarray(offset, offset + lengthBytes);
      applyXbzrle(page, encoded, lengthBytes, { offset: 0, path: [] });
    },
    compressed: () => {
      throw new Error('none of these streams has compressed pages');
    },
  };
  const walk = new StreamWalk({ ramSink: sink });
  const reader = ByteReader.over(bytes);
  runParser(walk.walkFile(reader), reader);
  return { ram, walk };
}

/** A guest as a {@link MappedRamWriter} keeps it, in a temporary file. */
export class KeptGuest extends MappedRamWriter implements Disposable {
  readonly #fd: number;
  readonly #directory: string;
  isFinished = false;

  static create(): KeptGuest {
    const directory = mkdtempSync(join(tmpdir(), 'wherry-kept-'));
    return new KeptGuest(directory, openSync(join(directory, 'guest'), 'wx+'));
  }

  private constructor(directory: string, fd: number) {
    super(fd);
    this.#fd = fd;
    this.#directory = directory;
  }

  override async finish(): Promise<void> {
    await super.finish();
    this.isFinished = true;
  }

  get lengthBytes(): number {
    return fstatSync(this.#fd).size;
  }

  get diskBytes(): number {
    return fstatSync(this.#fd).blocks * 512;
  }

  get bytes(): Uint8Array {
    return readFileSync(join(this.#directory, 'guest'));
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
    rmSync(this.#directory, { recursive: true });
  }
}
