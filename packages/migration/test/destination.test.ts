import { ByteReader, ByteWriter } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import { type Command, readReturnPathMessage } from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { expect, it } from 'vitest';
import { DestinationMigration, type GuestPort, type Transport } from '../src/index.ts';
import { SourceFrames } from '../src/source-frames.ts';
import { VirtualClock } from './virtual-clock.ts';

const MACHINE = 'pc-q35-5.2';

/** Feeds a destination what a source's frames and commands make, to the end of the connection. */
async function receive(write: (frames: SourceFrames, ram: GuestRam) => void) {
  const ram = await GuestRam.create([{ name: 'pc.ram', lengthBytes: 65536, hostPageBytes: 4096 }]);
  const writer = new ByteWriter();
  write(new SourceFrames(writer, MACHINE, new DeviceRegistry()), ram);
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
  const guest: GuestPort & { running: boolean } = {
    machineType: MACHINE,
    ram,
    devices: [],
    running: false,
    faults: { wait: () => new Promise(() => {}), take: () => [] },
    start() {
      this.running = true;
    },
    async stop() {},
  };
  const clock = new VirtualClock();
  const capabilities = new Set(['postcopy-ram'] as const);
  const destination = new DestinationMigration({ guest, transport, clock, capabilities });
  await clock.runUntil(destination.run());
  return { destination, guest, answers: ByteReader.over(answers.finish()) };
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
