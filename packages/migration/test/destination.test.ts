import { type Command, readReturnPathMessage } from '@wherry/stream';
import { expect, it } from 'vitest';
import { receive } from './fed-destination.ts';

const DISCARD: Command = {
  name: 'postcopy-ram-discard',
  block: 'pc.ram',
  ranges: [{ start: 0, length: 4096 }],
};

it('refuses to start a guest whose pages were discarded and did not come again', async () => {
  const { destination, guest, answers } = await receive((frames, ram) => {
    frames.begin();
    frames.command({ name: 'open-return-path' });
    const advice = { pageSizesSummary: 4096n, targetPageBytes: 4096n };
    frames.command({ name: 'postcopy-advise', ram: advice });
    frames.setUp(ram, true);
    frames.command(DISCARD);
    frames.end(false);
  });
  expect(destination.error?.message).toMatch(
    /ends in the middle of postcopy: expected POSTCOPY_RUN, found the end of the stream, at offset 0x[0-9a-f]+/,
  );
  expect([destination.status, guest.running]).toEqual(['failed', false]);
  expect(readReturnPathMessage(answers).next().value).toEqual({ name: 'shut', status: 1 });
});

it('refuses a discard that was never advised, by command and offset', async () => {
  const { destination } = await receive((frames) => {
    frames.begin();
    frames.command(DISCARD);
  });
  expect(destination.error?.message).toMatch(
    /CMD_POSTCOPY_RAM_DISCARD in wrong postcopy state \(0\), at offset 0x17 \(23\), in command postcopy-ram-discard/,
  );
});

it.each<[Command, RegExp]>([
  [{ name: 'recv-bitmap', block: 'pc.ram' }, /recv-bitmap outside of a recovery, at offset 0x17/],
  [{ name: 'postcopy-resume' }, /postcopy-resume outside of a recovery, at offset 0x17/],
])('refuses $name at the wrong time', async (command, why) => {
  const { destination } = await receive((frames) => {
    frames.begin();
    frames.command(command);
  });
  expect(destination.error?.message).toMatch(why);
});

it('pauses again when a recovery asks for a block that it lacks', async () => {
  const { destination, guest, answers, again } = await receive((frames, ram) => {
    frames.begin();
    frames.command({ name: 'open-return-path' });
    const advice = { pageSizesSummary: 4096n, targetPageBytes: 4096n };
    frames.command({ name: 'postcopy-advise', ram: advice });
    frames.setUp(ram, true);
    frames.command(DISCARD);
    frames.command({ name: 'postcopy-listen' });
    frames.command({ name: 'postcopy-run' });
  });
  expect([destination.status, guest.running]).toEqual(['postcopy-paused', true]);
  expect(answers.available).toBe(0);
  guest.ram.blocks[0]?.discardRange(0, 65536);
  const recovery = await again((frames) => {
    frames.command({ name: 'recv-bitmap', block: 'pc.ram' });
    frames.command({ name: 'recv-bitmap', block: 'other' });
  });
  expect(destination.status).toBe('postcopy-paused');
  expect(destination.error?.message).toMatch(/block 'other' not found, at offset 0x/);
  expect(readReturnPathMessage(recovery).next().value).toEqual({
    name: 'recv-bitmap',
    block: 'pc.ram',
    bitmap: new Uint8Array(8), // 16 pages in whole words
  });
});
