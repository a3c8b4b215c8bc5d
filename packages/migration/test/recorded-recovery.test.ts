import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import {
  RAM_SECTION,
  RamFlag,
  type ReturnPathMessage,
  readReturnPathMessage,
  writeFooter,
  writeRamList,
  writeRamWord,
  writeSectionHead,
} from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { expect, it } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import { DestinationMigration, type Transport } from '../src/index.ts';
import { SourceFrames } from '../src/source-frames.ts';
import { VirtualClock } from './virtual-clock.ts';

const MACHINE = 'pc-q35-5.2';

function readMessages(bytes: Uint8Array): ReturnPathMessage[] {
  const reader = ByteReader.over(bytes);
  const messages: ReturnPathMessage[] = [];
  while (reader.available > 0) messages.push(runParser(readReturnPathMessage(reader), reader));
  return messages;
}

/** A connection that gives recorded bytes, then its end. */
function replay(bytes: Uint8Array, answers: ByteWriter): Transport {
  let rest = bytes;
  return {
    async read(into) {
      const count = Math.min(rest.length, into.length);
      into.set(rest.subarray(0, count));
      rest = rest.subarray(count);
      return count;
    },
    write: async (written) => void answers.raw(written),
    end: async () => {},
    destroy() {},
  };
}

it.each(['5.2', '7.2', '10.0', '11.1'])('recovers from what QEMU %s sends', async (release) => {
  const { stream, returnPath } = loadFixture(release, 'recovery');
  const recorded = readMessages(returnPath!);
  const bitmaps = recorded.filter((message) => message.name === 'recv-bitmap');
  expect(bitmaps.length).toBeGreaterThan(3);
  // A bitmap is of whole words: the blocks may have been shorter, what they lack is never sent.
  const ram = await GuestRam.create(
    bitmaps.map(({ block, bitmap }) => ({
      name: block,
      lengthBytes: bitmap.length * 8 * 4096,
      hostPageBytes: 4096,
    })),
  );
  const first = new ByteWriter();
  const frames = new SourceFrames(first, MACHINE, new DeviceRegistry());
  frames.begin();
  frames.command({ name: 'open-return-path' });
  const advice = { pageSizesSummary: 4096n, targetPageBytes: 4096n };
  frames.command({ name: 'postcopy-advise', ram: advice });
  // The id of the section goes on over the connections, and is not the same in all releases.
  const resume = Buffer.from(stream).indexOf(Buffer.from('0800090000', 'hex'));
  const sectionId = ByteReader.over(stream.subarray(resume + 6)).u32();
  writeSectionHead(first, { kind: 'start', sectionId, ...RAM_SECTION });
  const blocks = ram.blocks.map(({ name, lengthBytes }) => ({ name, usedBytes: lengthBytes }));
  writeRamList(first, blocks);
  writeRamWord(first, 0, RamFlag.eos);
  writeFooter(first, sectionId);
  frames.discards([], ram);
  frames.command({ name: 'postcopy-listen' });
  frames.command({ name: 'postcopy-run' });
  const clock = new VirtualClock();
  const destination = new DestinationMigration({
    guest: {
      machineType: MACHINE,
      ram,
      devices: [],
      running: false,
      faults: {
        wait: (signal) =>
          new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
        take: () => [],
        repeat() {},
      },
      start() {},
      async stop() {},
    },
    transport: replay(first.finish(), new ByteWriter()),
    clock,
    capabilities: new Set(['postcopy-ram'] as const),
  });
  await clock.runUntil(destination.run());
  expect(destination.status).toBe('postcopy-paused');
  // What the recorded destination had, this one has.
  for (const { block, bitmap } of bitmaps) {
    const pages = ram.block(block)!;
    for (let page = 0; page < pages.pageCount; page++) {
      const isHere = ((bitmap[page >> 3]! >> (page & 7)) & 1) === 1;
      for (const { memory, receivedPtr, firstPage } of pages.segments) {
        const bits = new Uint8Array(memory.buffer);
        const at = receivedPtr + ((page - firstPage) >> 3);
        if (isHere) bits[at] = bits[at]! | (1 << (page & 7));
      }
    }
  }
  const answers = new ByteWriter();
  await clock.runUntil(destination.recover(replay(stream, answers)));
  // The same bitmaps in the same order, and the same ACK.
  const answered = readMessages(answers.finish()).filter(({ name }) => name !== 'shut');
  expect(answered).toEqual(
    recorded.filter(({ name }) => name === 'recv-bitmap' || name === 'resume-ack'),
  );
  expect(destination.counters.placedHostPages).toBeGreaterThan(100);
  // All came, but what the rounding has added to the end of a block.
  for (const block of ram.blocks) {
    const came = block.receivedCount();
    expect(block.pageCount - came).toBeLessThan(64);
    expect(block.receivedCount(0, came)).toBe(came);
  }
  expect(destination.error?.message ?? '').toMatch(/^$|^The stream ended before all pages came/);
});
