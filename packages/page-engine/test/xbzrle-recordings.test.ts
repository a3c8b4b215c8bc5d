import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, it } from 'vitest';
import { GuestRam, RamReceiver, XbzrleCodec } from '../src/index.ts';
import { FLAG_CONTINUE, FLAG_EOS, FLAG_PAGE, FLAG_XBZRLE, FLAG_ZERO } from './migrate.ts';

const FIXTURES = new URL('../../../conformance/fixtures/', import.meta.url);
const FLAG_MEM_SIZE = 0x04;
/** The head of the `ram` section's START behind its id: name, instance 0, version 4. */
const RAM_START = Buffer.from('\x03ram\0\0\0\0\0\0\0\x04', 'latin1');
const SECTION_PART = 0x02;
const SECTION_END = 0x03;

interface Recording {
  readonly bytes: Buffer;
  readonly guest: { readonly rangeStart: number; readonly rangeEnd: number };
  readonly lastPass: number;
  readonly statistics: Readonly<Record<'pages' | 'overflow', number>>;
}

function load(release: string): Recording {
  const file = (name: string): Buffer => readFileSync(new URL(`${release}/${name}`, FIXTURES));
  const meta = JSON.parse(file('xbzrle.json').toString());
  const bytes = gunzipSync(file('xbzrle.qevm.gz'));
  return { bytes, guest: meta.guest, lastPass: meta.lastPass, statistics: meta.xbzrle };
}

/** Reads a list of RAM blocks. @returns where it ends */
function readBlocks(bytes: Buffer, from: number) {
  let left = Number(bytes.readBigUInt64BE(from)) - FLAG_MEM_SIZE;
  const blocks = [];
  let at = from + 8;
  while (left > 0) {
    const nameEnd = at + 1 + bytes[at]!;
    const name = bytes.toString('latin1', at + 1, nameEnd);
    const lengthBytes = Number(bytes.readBigUInt64BE(nameEnd));
    blocks.push({ name, lengthBytes, hostPageBytes: 4096 });
    left -= lengthBytes;
    at = nameEnd + 8;
  }
  return { blocks, end: at };
}

/** Yields the places of the page records, and skips what stands between them. */
function* pageRecords(bytes: Buffer, from: number): Generator<readonly [number, number]> {
  for (let at = from; ; ) {
    const word = bytes.readBigUInt64BE(at);
    const flags = Number(word & 0xfffn);
    if (flags === FLAG_EOS) {
      at += 8 + 5; // and the section's footer
      if (bytes[at] !== SECTION_PART && bytes[at] !== SECTION_END) return;
      at += 5;
      continue;
    }
    const body = at + ((flags & FLAG_CONTINUE) === 0 ? 9 + bytes[at + 8]! : 8);
    const kind = flags & ~FLAG_CONTINUE;
    expect([FLAG_ZERO, FLAG_PAGE, FLAG_XBZRLE]).toContain(kind);
    const end =
      kind === FLAG_ZERO
        ? body + 1
        : kind === FLAG_PAGE
          ? body + 4096
          : body + 3 + bytes.readUInt16BE(body + 1);
    yield [at, end];
    at = end;
  }
}

describe.each(['5.2', '7.2', '10.0', '11.1'])('a recording of QEMU %s with XBZRLE', (release) => {
  const { bytes, guest, lastPass, statistics } = load(release);
  const { blocks, end } = readBlocks(bytes, bytes.indexOf(RAM_START) + RAM_START.length);
  let codec: XbzrleCodec;
  beforeAll(async () => {
    codec = await XbzrleCodec.create();
  });

  it('is decoded to what the guest wrote, and encoded to the same bytes', async () => {
    const ram = await GuestRam.create(blocks);
    const receiver = new RamReceiver(ram);
    for (const [at, to] of pageRecords(bytes, end)) {
      const record = bytes.subarray(at, to);
      const word = record.readBigUInt64BE(0);
      const isXbzrle = (word & BigInt(FLAG_XBZRLE)) !== 0n;
      const offset = Number(word & ~0xfffn);
      const named = (word & BigInt(FLAG_CONTINUE)) === 0n;
      const block = named
        ? ram.block(record.toString('latin1', 9, 9 + record[8]!))!
        : receiver.currentBlock!;
      const before = isXbzrle ? block.read(offset, 4096) : undefined;
      receiver.input.bytes.set(record);
      const result = receiver.decode(0, record.length);
      expect(result).toMatchObject({ status: 'need-more', consumed: record.length });
      if (before === undefined) continue;
      const data = record.subarray(named ? 12 + record[8]! : 11);
      const encoded = codec.encode(before, block.read(offset, 4096))!;
      expect(Buffer.compare(encoded, data)).toBe(0);
    }
    // Pages that QEMU found unchanged count there too, and are not sent.
    const { xbzrlePages } = receiver.counters;
    expect(xbzrlePages).toBeGreaterThan(100);
    expect(xbzrlePages).toBeLessThanOrEqual(statistics.pages - statistics.overflow);

    // Each line of the guest's range: the pass that wrote it, then its own address again and again.
    const { rangeStart, rangeEnd } = guest;
    const range = ram.block('pc.ram')!.read(rangeStart, rangeEnd - rangeStart);
    const words = new Uint32Array(range.buffer);
    const passes = new Set<number>();
    for (let line = 0; line < words.length; line += 64) {
      passes.add(words[line]! - lastPass);
      const own = words.subarray(line + 1, line + 64);
      expect(own.every((word) => word === rangeStart + line * 4)).toBe(true);
    }
    // It may have been stopped within the pass behind the last that it printed.
    expect([[0], [0, 1]]).toContainEqual([...passes].sort());
  });
});
