import { inflateSync } from 'node:zlib';
import { ByteReader, runParser } from '@wherry/bytes';
import { type Clock, StoredSource } from '@wherry/migration';
import { findVmdesc, RamIndex, type RandomAccess, StoredGuest, StreamWalk } from '@wherry/snapshot';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../fixtures.ts';
import { ramOf } from '../ram-of.ts';
import { walkStream } from '../walk-stream.ts';

const withoutFooters = ['no-footers', 'machine-2.2'];
const incomplete = ['multifd', 'ignore-shared', 'recovery'];

function access(bytes: Uint8Array): RandomAccess {
  return {
    sizeBytes: bytes.length,
    read: (into, offset) => {
      const piece = bytes.subarray(offset, offset + into.length);
      into.set(piece);
      return piece.length;
    },
  };
}

function open(bytes: Uint8Array, name: string): StoredGuest {
  const file = access(bytes);
  const ramSink = new RamIndex(file, {
    scratch: () => {
      const room = new Uint8Array(2 ** 24);
      return { ...access(room), write: (piece, offset) => room.set(piece, offset) };
    },
    inflate: (packed, maxOutputLength) => inflateSync(packed, { maxOutputLength }),
  });
  const vmdesc = withoutFooters.includes(name) ? findVmdesc(bytes, 0) : undefined;
  const walk = new StreamWalk({ ramSink, vmdesc });
  const reader = ByteReader.over(bytes);
  runParser(walk.walkFile(reader), reader);
  return new StoredGuest(walk.model, ramSink, file);
}

/** Writes a guest as a stream with each page once. */
async function streamOf(guest: StoredGuest): Promise<Uint8Array> {
  const pieces: Buffer[] = [];
  const clock: Clock = { now: () => 0, sleep: async () => {}, yield: async () => {} };
  const source = new StoredSource({
    guest,
    transport: {
      read: async () => 0,
      write: async (bytes) => void pieces.push(Buffer.from(bytes)),
      end: async () => {},
      destroy: () => {},
    },
    clock,
    returnPath: false,
    postcopy: false,
  });
  expect(await source.run()).toBe('completed');
  return Buffer.concat(pieces);
}

describe('a recorded guest out of its file', () => {
  test.each(
    listFixtures().filter(({ case: name }) => ![...incomplete, 'machine-2.2'].includes(name)),
  )('$release/$case: all its pages once, all its sections', async ({ release, case: name }) => {
    const { stream } = loadFixture(release, name);
    const guest = open(stream, name);
    const again = await streamOf(guest);
    const isFooterless = name === 'no-footers';
    const [found, expected] = [ramOf(again, isFooterless), ramOf(stream, isFooterless)];
    expect([...found.keys()]).toEqual([...expected.keys()]);
    for (const [block, bytes] of expected) {
      expect(Buffer.compare(found.get(block)!, bytes), block).toBe(0);
    }
    const [before, after] = [walkStream(stream), walkStream(again)];
    const bodies = ({ devices }: typeof before) =>
      devices.map(({ idstr, instanceId, version, body }) => ({
        ...{ idstr, instanceId, version },
        body: Buffer.from(body!).toString('latin1'),
      }));
    expect(bodies(after)).toEqual(bodies(before));
    expect(after.liveSections).toEqual(before.liveSections);
    expect(after.vmdesc?.value).toEqual(before.vmdesc?.value);
    expect(after.configuration?.machineType).toBe(before.configuration?.machineType);
    for (const { usedBytes, pages } of after.ram!.blocks) {
      expect(pages.page + pages.zero).toBe(usedBytes / guest.targetPageBytes);
    }
  });

  test.each(listFixtures().filter(({ case: name }) => incomplete.includes(name)))(
    '$release/$case is not whole',
    ({ release, case: name }) => {
      const { stream } = loadFixture(release, name);
      expect(() => open(stream, name)).toThrow(
        expect.objectContaining({ code: 'GUEST_INCOMPLETE' }),
      );
    },
  );
});
