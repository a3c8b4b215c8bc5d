import { ByteReader, ByteWriter } from '@wherry/bytes';
import { GuestRam, type RamBlockSpec } from '@wherry/page-engine';
import { DeviceRegistry } from '@wherry/vmstate';
import { DestinationMigration, type GuestPort, type Transport } from '../src/index.ts';
import { SourceFrames } from '../src/source-frames.ts';
import { VirtualClock } from './virtual-clock.ts';

const MACHINE = 'pc-q35-5.2';

/** Writes what a source sends; the writer is that of the frames. */
export type Send = (frames: SourceFrames, writer: ByteWriter) => void;

/** A connection that gives what a source's frames and commands make, then its end. */
function sending(write: Send) {
  const writer = new ByteWriter();
  write(new SourceFrames(writer, MACHINE, new DeviceRegistry()), writer);
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

const BLOCKS: readonly RamBlockSpec[] = [
  { name: 'pc.ram', lengthBytes: 65536, hostPageBytes: 4096 },
];

/** Feeds a destination to the end of the connection. */
export async function receive(
  write: (frames: SourceFrames, ram: GuestRam, writer: ByteWriter) => void,
  blocks: readonly RamBlockSpec[] = BLOCKS,
  prepare: (ram: GuestRam) => void = () => {},
) {
  const ram = await GuestRam.create(blocks, { reservedBytes: 65536 });
  prepare(ram);
  const { transport, answers } = sending((frames, writer) => write(frames, ram, writer));
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
  const again = async (send: Send): Promise<ByteReader> => {
    const connection = sending(send);
    await clock.runUntil(destination.recover(connection.transport));
    return connection.answers();
  };
  return { destination, guest, answers: answers(), again };
}
