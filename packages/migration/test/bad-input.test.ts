// What a hostile or broken source may send: one error each that says where and why, nothing written
// outside of the block, and a guest that runs on at the source or a postcopy that can be recovered.

import type { ByteWriter } from '@wherry/bytes';
import type { GuestRam } from '@wherry/page-engine';
import { type Command, RamFlag, readReturnPathMessage, writeRamWord } from '@wherry/stream';
import { describe, expect, it } from 'vitest';
import type { SourceFrames } from '../src/source-frames.ts';
import { receive } from './fed-destination.ts';

const PAGE = 4096;
const KIB = 1024;
const BLOCKS = [
  { name: 'ram', lengthBytes: 64 * KIB, hostPageBytes: PAGE },
  { name: 'canary', lengthBytes: 64 * KIB, hostPageBytes: PAGE },
  { name: 'huge', lengthBytes: 128 * KIB, hostPageBytes: 64 * KIB },
];
const SINGS = 0xa5;

const canary = (ram: GuestRam): Uint8Array[] => {
  const { memory, ptr, lengthBytes } = ram.reserved;
  return [ram.block('canary')!.view(0, 64 * KIB), new Uint8Array(memory.buffer, ptr, lengthBytes)];
};
const prepare = (ram: GuestRam): void => {
  for (const bytes of canary(ram)) bytes.fill(SINGS);
};

/** Sees that nothing was written but RAM of the blocks that were named. */
function expectUntouched(ram: GuestRam): void {
  for (const bytes of canary(ram)) expect(bytes.every((byte) => byte === SINGS)).toBe(true);
  const [bank] = ram.banks;
  const last = bank!.plan.segments.at(-1)!;
  const behind = bank!.bytes.subarray(last.ptr + last.pages * PAGE);
  expect(behind.every((byte) => byte === 0)).toBe(true);
}

/** A page record, of a page that is all one byte; `data` takes its place. */
function page(
  writer: ByteWriter,
  flags: number,
  offset: number,
  name?: string,
  data: Uint8Array = new Uint8Array(PAGE).fill(0x66),
): void {
  writeRamWord(writer, offset, flags);
  if (name !== undefined) writer.counted(name);
  writer.raw(data);
}

const begin = (frames: SourceFrames, ram: GuestRam): void => {
  frames.begin();
  frames.command({ name: 'open-return-path' });
  frames.command({
    name: 'postcopy-advise',
    ram: { pageSizesSummary: BigInt(PAGE + 64 * KIB), targetPageBytes: BigInt(PAGE) },
  });
  frames.setUp(ram, true);
};
const discard = (block: string, start: number, length: number): Command => ({
  name: 'postcopy-ram-discard',
  block,
  ranges: [{ start, length }],
});

type Bad = (writer: ByteWriter) => void;
const { page: PAGE_FLAG, zero: ZERO, xbzrle: XBZRLE, continue: CONTINUE } = RamFlag;

/** Wrong in precopy and in postcopy alike. */
const PAGES: [what: string, bad: Bad, why: RegExp][] = [
  [
    'a page behind the end of its block',
    (w) => page(w, PAGE_FLAG, 64 * KIB, 'ram'),
    /RAM block ram, offset 0x10000: beyond the block's end.*: expected an offset below 0x10000, found 0x10000/,
  ],
  [
    'a page far beyond its block',
    (w) => page(w, PAGE_FLAG, 2 ** 52, 'ram'),
    /expected an offset below 0x10000, found 0x10000000000000/,
  ],
  [
    'a page of a block that is not there',
    (w) => page(w, PAGE_FLAG, 0, 'rom'),
    /RAM block "rom", which this guest does not have.*: expected one of "ram", "canary", "huge", found "rom"/,
  ],
  [
    'a page of the block before, and there is none',
    (w) => page(w, PAGE_FLAG | CONTINUE, 0),
    /of the same block as before, and there was none before: expected a block name, found flags 0x28/,
  ],
  [
    'a zero page that is not zero',
    (w) => page(w, ZERO, PAGE, 'ram', Uint8Array.of(7)),
    /RAM block ram, offset 0x1000: .*: expected fill byte 0, found fill byte 7/,
  ],
  [
    'an unknown kind of record',
    (w) => page(w, 0x800, 0, 'ram'),
    /expected one kind of record, found flags 0x800/,
  ],
  [
    'a compressed page, which no release sends since 9.1',
    (w) => page(w, RamFlag.compressPage, 0, 'ram', Uint8Array.of(0, 0, 0, 9)),
    /expected pages as they are, zero pages, or XBZRLE before postcopy, found compress/,
  ],
];

const IN_PRECOPY: typeof PAGES = [
  [
    'XBZRLE of a page that is not here',
    (w) => page(w, XBZRLE, PAGE, 'ram', Uint8Array.of(1, 0, 3, 0, 1, 5)),
    /XBZRLE record of a page that never came.*: expected a page that is present, found page 1, missing/,
  ],
  [
    'XBZRLE longer than a page',
    (w) => page(w, XBZRLE, PAGE, 'ram', Uint8Array.of(1, 0x10, 1)),
    /expected at most 4096 bytes, found 4097 bytes/,
  ],
  [
    'XBZRLE that leaves its page',
    (w) => {
      page(w, ZERO, 15 * PAGE, 'ram', Uint8Array.of(0));
      const changes = [0xff, 0x1f, 2, 9, 9]; // leave 4095 bytes, then two
      page(w, XBZRLE | CONTINUE, 15 * PAGE, undefined, Uint8Array.of(1, 0, 5, ...changes));
    },
    /RAM block ram, offset 0xf000: XBZRLE data that fit no page/,
  ],
  [
    'a list of other RAM',
    (w) => {
      writeRamWord(w, 64 * KIB, RamFlag.memSize);
      w.counted('ram')
        .u64(32n * 1024n)
        .counted('x')
        .u64(64n * 1024n);
      w.u64(BigInt(RamFlag.eos));
    },
    /expected 1 to 32768 bytes \(what is left of the total\), found 65536/,
  ],
];

describe('a source that sends, in precopy,', () => {
  it.each([...PAGES, ...IN_PRECOPY])('%s: is told, and its guest runs on', async (_, bad, why) => {
    const { destination, guest, answers } = await receive(
      (frames, ram, writer) => {
        begin(frames, ram);
        frames.ramHead('part');
        bad(writer);
        frames.ramEnd();
        frames.end(false);
        writer.raw(new Uint8Array(8192)); // what follows makes no other error of it
      },
      BLOCKS,
      prepare,
    );
    expect(destination.error?.message).toMatch(why);
    expect(destination.error?.message).toMatch(/, at offset 0x[0-9a-f]+ \(\d+\), in ram/);
    expect([destination.status, guest.running]).toEqual(['failed', false]);
    expect(readReturnPathMessage(answers).next().value).toEqual({ name: 'shut', status: 1 });
    expectUntouched(guest.ram);
  });

  it.each<[string, Command, RegExp]>([
    ['beyond its block', discard('ram', 0, 128 * KIB), /RAM block ram: the block has 65536 bytes/],
    ['of no whole host page', discard('huge', PAGE, 64 * KIB), /its host pages have 65536 bytes/],
    ['of another block', discard('rom', 0, PAGE), /Failed to find block 'rom'/],
  ])('a discard %s: is told, and its guest runs on', async (_, command, why) => {
    const { destination, guest, answers } = await receive(
      (frames, ram) => {
        begin(frames, ram);
        frames.command(command);
        frames.end(false);
      },
      BLOCKS,
      prepare,
    );
    expect(destination.error?.message).toMatch(why);
    expect(destination.error?.message).toMatch(/at offset 0x.*, in command postcopy-ram-discard/);
    expect([destination.status, guest.running]).toEqual(['failed', false]);
    expect(readReturnPathMessage(answers).next().value).toEqual({ name: 'shut', status: 1 });
    expectUntouched(guest.ram);
  });
});

const IN_POSTCOPY: typeof PAGES = [
  [
    'a page that is here',
    (w) => {
      page(w, PAGE_FLAG, 0, 'ram');
      page(w, PAGE_FLAG | CONTINUE, 0);
    },
    /RAM block ram, offset 0x0: sent in postcopy, but already here.*: expected a page that is missing, found page 0, present/,
  ],
  [
    'a page of another block inside a host page',
    (w) => {
      page(w, PAGE_FLAG, 0, 'huge');
      page(w, PAGE_FLAG, PAGE, 'ram');
    },
    /expected page 1 of RAM block huge, found page 1 of RAM block ram/,
  ],
  [
    'XBZRLE',
    (w) => page(w, XBZRLE, 0, 'ram', Uint8Array.of(1, 0, 3, 0, 1, 5)),
    /expected pages as they are, zero pages, or XBZRLE before postcopy, found xbzrle/,
  ],
  ['the end before all pages', () => {}, /expected 16 pages, found 0, at offset 0x/],
];

describe('a source that sends, in postcopy,', () => {
  it.each([...PAGES, ...IN_POSTCOPY])('%s: pauses, and is recovered', async (_, bad, why) => {
    const { destination, guest, again } = await receive(
      (frames, ram, writer) => {
        begin(frames, ram);
        for (const { name, lengthBytes } of BLOCKS) frames.command(discard(name, 0, lengthBytes));
        frames.command({ name: 'postcopy-listen' });
        frames.command({ name: 'postcopy-run' });
        frames.ramHead('part');
        bad(writer);
        frames.ramEnd();
        frames.end(false);
      },
      BLOCKS,
      prepare,
    );
    expect(destination.error?.message).toMatch(why);
    expect(destination.error?.message).toMatch(/, at offset 0x[0-9a-f]+ \(\d+\), in ram/);
    expect([destination.status, guest.running]).toEqual(['postcopy-paused', true]);
    expectUntouched(guest.ram);
    await again((frames, writer) => {
      for (const { name } of BLOCKS) frames.command({ name: 'recv-bitmap', block: name });
      frames.command({ name: 'postcopy-resume' });
      frames.ramHead('part');
      for (const block of guest.ram.blocks) {
        for (let index = 0; index < block.pageCount; index++) {
          if (block.isReceived(index)) continue;
          page(writer, ZERO, index * PAGE, block.name, Uint8Array.of(0));
        }
      }
      frames.ramEnd();
      frames.end(false);
    });
    expect(destination.error).toBeUndefined();
    expect(destination.status).toBe('completed');
  });
});
