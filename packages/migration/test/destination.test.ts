import { ByteReader, ByteWriter } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import { type Command, readReturnPathMessage } from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { expect, it } from 'vitest';
import { DestinationMigration, type GuestPort, type Transport } from '../src/index.ts';
import { SourceFrames } from '../src/source-frames.ts';
import { VirtualClock } from './virtual-clock.ts';

const MACHINE = 'pc-q35-5.2';

/** A connection that gives what a source's frames and commands make, then its end. */
function sending(write: (frames: SourceFrames) => void) {
  const writer = new ByteWriter();
  write(new SourceFrames(writer, MACHINE, new DeviceRegistry()));
  let rest: Uint8Array = writer.finish();
  const answers = new ByteWriter();
  const transport: Transport = {
    async read(into) {
      const count = Math.min(rest.length, into.length);
      into.set(rest.subarray(0, count));
      rest = rest.subarray(count);
      return count;
    },
    write: async (bytes) => void answers.raw(bytes),
    end: async () => {},
    destroy() {},
  };
  return { transport, answers: () => ByteReader.over(answers.finish()) };
}

/** Feeds a destination to the end of the connection. */
async function receive(write: (frames: SourceFrames, ram: GuestRam) => void) {
  const ram = await GuestRam.create([{ name: 'pc.ram', lengthBytes: 65536, hostPageBytes: 4096 }]);
  const { transport, answers } = sending((frames) => write(frames, ram));
  const guest: GuestPort & { running: boolean } = {
    machineType: MACHINE,
    ram,
    devices: [],
    running: false,
    faults: {
      wait: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve())),
      take: () => [],
      repeat() {},
    },
    start() {
      this.running = true;
    },
    async stop() {},
  };
  const clock = new VirtualClock();
  const capabilities = new Set(['postcopy-ram'] as const);
  const destination = new DestinationMigration({ guest, transport, clock, capabilities });
  await clock.runUntil(destination.run());
  /** Recovers over another connection. @returns what was answered there */
  const again = async (send: (frames: SourceFrames) => void): Promise<ByteReader> => {
    const connection = sending(send);
    await clock.runUntil(destination.recover(connection.transport));
    return connection.answers();
  };
  return { destination, guest, answers: answers(), again };
}

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
