import { inflateSync } from 'node:zlib';
import { ByteReader, runParser } from '@wherry/bytes';
import { findVmdesc, type RamSink, StreamWalk } from '@wherry/snapshot';
import { applyXbzrle } from '@wherry/stream';

/** Puts the RAM blocks of a stream together in memory. */
export function ramOf(stream: Uint8Array, isFooterless = false): ReadonlyMap<string, Uint8Array> {
  const blocks = new Map<string, Uint8Array>();
  const ramSink: RamSink = {
    begin: ({ name, usedBytes }) => void blocks.set(name, new Uint8Array(usedBytes)),
    page: ({ name }, offset, bytes) => blocks.get(name)!.set(bytes, offset),
    zero: ({ name }, offset, length) => void blocks.get(name)!.fill(0, offset, offset + length),
    xbzrle: ({ name }, offset, length, encoded, at) => {
      const page = blocks.get(name)!.subarray(offset, offset + length);
      applyXbzrle(page, encoded, length, { offset: at, path: [name] });
    },
    compressed: ({ name }, offset, _, packed) => blocks.get(name)!.set(inflateSync(packed), offset),
  };
  const vmdesc = isFooterless ? findVmdesc(stream, 0) : undefined;
  const reader = ByteReader.over(stream);
  runParser(new StreamWalk({ ramSink, vmdesc }).walkFile(reader), reader);
  return blocks;
}
