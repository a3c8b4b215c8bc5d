import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import {
  RamFlag,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamList,
  writeRamWord,
  writeSectionHead,
  writeVmdesc,
} from '@wherry/stream';
import type { WalkOptions } from '../src/walk-options.ts';
import { StreamWalk } from '../src/walk-stream.ts';

/** A stream as it is put together for a test. */
export class SyntheticStream {
  readonly writer: ByteWriter = new ByteWriter();

  /** Header and configuration. */
  begin(capabilities: readonly string[] = []): this {
    writeHeader(this.writer);
    writeConfiguration(this.writer, { machineType: 'pc-q35-5.2', capabilities });
    return this;
  }

  /** Header, configuration, return path, and the page sizes of postcopy. */
  beginPostcopy(pageSizesSummary = 0x1000n): this {
    this.begin();
    writeCommand(this.writer, { name: 'open-return-path' });
    writeCommand(this.writer, { name: 'ping', value: 1 });
    const ram = { pageSizesSummary, targetPageBytes: 0x1000n };
    writeCommand(this.writer, { name: 'postcopy-advise', ram });
    return this;
  }

  /** The START of `ram`, section 2, with its list. */
  ramStart(blocks: readonly { name: string; usedBytes: number; pageBytes?: number }[]): this {
    const { writer } = this;
    const head = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };
    writeSectionHead(writer, { kind: 'start', ...head });
    writeRamList(writer, blocks);
    return this.ramEnd();
  }

  /** A PART or END of `ram` with the records that `write` adds before the EOS. */
  ramPart(kind: 'part' | 'end', write: (writer: ByteWriter) => void = () => {}): this {
    writeSectionHead(this.writer, { kind, sectionId: 2 });
    write(this.writer);
    return this.ramEnd();
  }

  private ramEnd(): this {
    writeRamWord(this.writer, 0, RamFlag.eos);
    writeFooter(this.writer, 2);
    return this;
  }

  /** A FULL section. */
  device(idstr: string, sectionId: number, body: Uint8Array, instanceId = 0): this {
    writeSectionHead(this.writer, { kind: 'full', sectionId, idstr, instanceId, version: 3 });
    this.writer.raw(body);
    writeFooter(this.writer, sectionId);
    return this;
  }

  /** The end, with the vmdesc if there is one. */
  end(vmdesc?: object): Uint8Array<ArrayBuffer> {
    this.writer.u8(0);
    if (vmdesc !== undefined) writeVmdesc(this.writer, JSON.stringify(vmdesc));
    return this.writer.finish();
  }
}

/** Writes a record of each kind: page, zero and xbzrle, with the block's name and without. */
export function someRecords(writer: ByteWriter): void {
  writeRamWord(writer, 0, RamFlag.page);
  writer.counted('pc.ram').raw(new Uint8Array(4096).fill(7));
  writeRamWord(writer, 0x1000, RamFlag.page | RamFlag.continue);
  writer.raw(new Uint8Array(4096).fill(0x7e));
  writeRamWord(writer, 0x2000, RamFlag.zero | RamFlag.continue);
  writer.u8(0);
  writeRamWord(writer, 0x1000, RamFlag.xbzrle | RamFlag.continue);
  writer
    .u8(1)
    .u16(3)
    .raw(Uint8Array.of(0, 1, 9));
  writeRamWord(writer, 0, RamFlag.zero);
  writer.counted('rom').u8(0);
}

/** A whole precopy stream of one device with a struct, an array and a subsection, and its vmdesc. */
export function smallStream(): Uint8Array<ArrayBuffer> {
  const body = new ByteWriter();
  body.u32(0xdeadbeef).u64(0xffff_ffff_ffff_ffffn);
  body.u16(0).u16(5).u8(1);
  body.u8(5).counted('toy/more').u32(1).u8(0x7e);
  return new SyntheticStream()
    .begin()
    .ramStart([
      { name: 'pc.ram', usedBytes: 0x4000 },
      { name: 'rom', usedBytes: 0x1000 },
    ])
    .ramPart('part', someRecords)
    .ramPart('part')
    .ramPart('end')
    .device('toy', 9, body.finish())
    .end(smallVmdesc);
}

const smallVmdesc = {
  page_size: 4096,
  devices: [
    {
      name: 'toy',
      instance_id: 0,
      vmsd_name: 'toy',
      version: 3,
      fields: [
        { name: 'id', type: 'uint32', size: 4 },
        { name: 'when', type: 'uint64', size: 8 },
        { name: 'counts', array_len: 2, type: 'uint16', size: 2 },
        {
          name: 'inner',
          type: 'struct',
          struct: {
            vmsd_name: 'inner',
            version: 1,
            fields: [{ name: 'on', type: 'bool', size: 1 }],
          },
          size: 1,
        },
      ],
      subsections: [
        {
          vmsd_name: 'toy/more',
          version: 1,
          fields: [{ name: 'level', type: 'uint8', size: 1 }],
        },
      ],
    },
  ],
};

/** Walks a whole stream at once. */
export function walk(bytes: Uint8Array, options: WalkOptions = {}): StreamWalk {
  const streamWalk = new StreamWalk(options);
  const reader = ByteReader.over(bytes);
  runParser(streamWalk.walk(reader), reader);
  return streamWalk;
}

/** Walks a stream that arrives in pieces of these sizes, in a storage of fixed size. */
export function walkInPieces(
  bytes: Uint8Array,
  sizes: Iterable<number>,
  storageBytes = 1024,
  options: WalkOptions = {},
): StreamWalk {
  const streamWalk = new StreamWalk(options);
  const reader = new ByteReader({ storage: new Uint8Array(storageBytes) });
  const parser = streamWalk.walk(reader);
  const nextSize = sizes[Symbol.iterator]();
  let at = 0;
  while (parser.next().done !== true) {
    const room = reader.space();
    const size = Math.min(nextSize.next().value ?? 1, room.length, bytes.length - at);
    if (size === 0) reader.finish();
    room.set(bytes.subarray(at, at + size));
    reader.commit(size);
    at += size;
  }
  return streamWalk;
}
