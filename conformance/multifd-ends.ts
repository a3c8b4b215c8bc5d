import { setTimeout as sleep } from 'node:timers/promises';
import { skip } from '@wherry/bytes';
import {
  type Clock,
  checkMultifdInit,
  DestinationMigration,
  defaultParameters,
  type GuestPort,
  type MultifdCompression,
  MultifdReceiveChannel,
  type MultifdReceivePort,
  MultifdSendChannel,
  type Parameters,
  SourceMigration,
  type Transport,
  withPrefix,
} from '@wherry/migration';
import { GuestRam, PacketPages } from '@wherry/page-engine';
import { MULTIFD_INIT_BYTES, MULTIFD_MAGIC } from '@wherry/stream';
import {
  connect,
  createPacketCompressor,
  createPacketDecompressor,
  listen,
} from '@wherry/transport';
import { ramOf } from './ram-of.ts';
import { walkStream } from './walk-stream.ts';

const NO_UUID = '00000000-0000-0000-0000-000000000000';

/** What one end of a migration is to be like. */
export interface MultifdEnd {
  /** A plain stream of the same guest: its blocks and devices are those of this end. */
  readonly like: Uint8Array;
  readonly channels: number;
  readonly compression: MultifdCompression;
}

/** Reads the first bytes of a connection, as many as say what it is. */
async function readBeginning(transport: Transport): Promise<Uint8Array> {
  const bytes = new Uint8Array(MULTIFD_INIT_BYTES);
  const view = new DataView(bytes.buffer);
  let have = 0;
  while (have < 4 || (have < bytes.length && view.getUint32(0) === MULTIFD_MAGIC)) {
    const count = await transport.read(bytes.subarray(have, have < 4 ? 4 : bytes.length));
    if (count === 0) throw new Error('a connection ends before it has said what it is');
    have += count;
  }
  return bytes.subarray(0, have);
}

const clock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) => sleep(ms, undefined, signal === undefined ? {} : { signal }),
  yield: () => sleep(0),
};

/** Makes a paused guest whose devices are sections of a stream, taken and given as they are. */
async function guestOf(stream: Uint8Array, channels: number): Promise<GuestPort> {
  const { devices, ram: list, configuration } = walkStream(stream);
  const ram = await GuestRam.create(
    (list?.blocks ?? []).map(({ name, usedBytes }) => ({
      ...{ name, lengthBytes: usedBytes, hostPageBytes: 4096 },
    })),
    { multifdChannels: channels },
  );
  return {
    machineType: configuration?.machineType ?? '',
    ram,
    devices: devices
      .filter(({ idstr }) => idstr !== 'globalstate')
      .map(({ idstr, instanceId, version, bodyOffset, bodyLengthBytes }) => ({
        ...{ idstr, instanceId, version, olderNames: [], priority: 'default' },
        ...{ earlySetup: false, unmigratable: false, isNeeded: () => true },
        save: (writer) => {
          writer.raw(stream.subarray(bodyOffset, bodyOffset + bodyLengthBytes));
          return { name: idstr, instance_id: instanceId };
        },
        load: (reader) => skip(reader, bodyLengthBytes),
      })),
    running: false,
    faults: { wait: async () => {}, take: () => [], repeat() {} },
    start() {},
    async stop() {},
  };
}

/** Sends the guest of a stream to a real QEMU with multifd, on this thread. */
export async function sendMultifd(
  { like, channels, compression }: MultifdEnd,
  uri: string,
  detection: Parameters['zero-page-detection'],
): Promise<SourceMigration> {
  const guest = await guestOf(like, channels);
  for (const [name, bytes] of ramOf(like)) guest.ram.block(name)!.write(0, bytes);
  guest.ram.setAllReceived(true);
  const transport = await connect(uri);
  const multifd: MultifdSendChannel[] = [];
  for (let id = 0; id < channels; id++) {
    multifd.push(
      new MultifdSendChannel({
        pages: new PacketPages(guest.ram, id),
        ...{ id, transport: await connect(uri), uuid: NO_UUID, compression },
        findZeroPages: detection === 'multifd',
        compressor:
          compression === 'none'
            ? undefined
            : createPacketCompressor({ method: compression, level: 1 }),
      }),
    );
  }
  const source = new SourceMigration({
    ...{ guest, transport, multifd, clock },
    capabilities: new Set(['multifd', 'return-path']),
    parameters: () => ({
      ...defaultParameters(guest.machineType),
      ...{ 'max-bandwidth': 0, 'zero-page-detection': detection },
    }),
  });
  await source.run();
  return source;
}

/**
 * Receives a real QEMU's migration with multifd on this thread: devices are taken as they are.
 *
 * @param onListening is told where
 */
export async function receiveMultifd(
  { like, channels, compression }: MultifdEnd,
  onListening: (uri: string) => Promise<void>,
): Promise<{ ram: GuestRam; destination: DestinationMigration }> {
  const guest = await guestOf(like, channels);
  const { ram } = guest;
  const listener = await listen('tcp:127.0.0.1:0');
  await onListening(listener.uri);
  const ports: MultifdReceivePort[] = [];
  let main: Transport | undefined;
  for (let i = 0; i <= channels; i++) {
    const transport = await listener.accept();
    const bytes = await readBeginning(transport);
    if (bytes.length < MULTIFD_INIT_BYTES) {
      main = withPrefix(transport, bytes);
      continue;
    }
    const id = checkMultifdInit(bytes, { uuid: NO_UUID, channels });
    const decompressor = compression === 'none' ? undefined : createPacketDecompressor(compression);
    const pages = new PacketPages(ram, id);
    ports[id] = new MultifdReceiveChannel({ pages, id, transport, compression, decompressor });
  }
  await listener.close();
  const destination = new DestinationMigration({
    guest,
    transport: main!,
    multifd: ports,
    clock,
    capabilities: new Set(['multifd', 'return-path']),
  });
  await destination.run();
  return { ram, destination };
}
