import type { MigrationParameters } from '@wherry/qmp';
import type { GuestOptions } from './guest/boot-sector.ts';
import type { Peer } from './peers/peers.ts';
import { type MigrationSettings, QemuProcess } from './qemu.ts';
import { type Recording, TcpRecorder } from './tcp-recorder.ts';

/** A stream to record: the machine, the migration's settings, and how the migration goes. */
export interface RecordCase {
  readonly name: string;
  readonly machine: string;
  readonly args: readonly string[];
  readonly guest: Required<Pick<GuestOptions, 'rangeStart' | 'rangeEnd' | 'passesPerSecond'>>;
  readonly capabilities: NonNullable<MigrationSettings['capabilities']>;
  readonly parameters: MigrationParameters;
  run(source: QemuProcess, settings: MigrationSettings): Promise<RecordedMigration>;
}

/** What came of it. */
export interface RecordedMigration {
  readonly recording: Recording;
  readonly firstPassAtDestination?: number;
}

const machine = 'pc-q35-5.2';
const guest = { rangeStart: 0x10_0000, rangeEnd: 0x14_0000, passesPerSecond: 20 };
/** An empty disk that needs no file. */
const nullDisk = ['-blockdev', 'driver=null-co,node-name=disk0,size=1048576,read-zeroes=on'];
const precopy = { machine, guest, capabilities: [], parameters: {}, run: recordPrecopy };

/** Every case, in the order of recording. */
export const recordCases: readonly RecordCase[] = [
  { ...precopy, name: 'precopy', args: [] },
  {
    ...precopy,
    name: 'precopy-devices',
    args: [
      ...nullDisk,
      ...['-device', 'virtio-net-pci,romfile=', '-device', 'virtio-blk-pci,drive=disk0'],
      ...['-device', 'e1000e,romfile='],
    ],
  },
  {
    ...precopy,
    name: 'host-devices',
    args: [
      ...nullDisk,
      ...['-device', 'virtio-net-pci,addr=02.0,romfile='],
      ...['-device', 'virtio-blk-pci,addr=03.0,drive=disk0'],
      ...['-device', 'virtio-balloon-pci,addr=04.0'],
    ],
  },
  {
    name: 'xbzrle',
    machine,
    args: [],
    guest: { ...guest, passesPerSecond: 200 },
    capabilities: ['xbzrle'],
    parameters: { 'max-bandwidth': 2_000_000, 'downtime-limit': 1 },
    run: recordXbzrle,
  },
  {
    name: 'postcopy',
    machine,
    args: [],
    guest,
    capabilities: ['postcopy-ram'],
    parameters: { 'max-bandwidth': 200_000, 'max-postcopy-bandwidth': 300_000 },
    run: recordPostcopy,
  },
];

async function recordPrecopy(
  source: QemuProcess,
  settings: MigrationSettings,
): Promise<RecordedMigration> {
  await using recorder = await TcpRecorder.listen();
  await source.migrate(recorder.uri, settings);
  return { recording: await recorder.finished };
}

/**
 * Keeps the migration from converging until some rounds have sent XBZRLE pages: from the second
 * round on it has less bandwidth than even the encoded pages of one round need.
 */
async function recordXbzrle(
  source: QemuProcess,
  settings: MigrationSettings,
): Promise<RecordedMigration> {
  await using recorder = await TcpRecorder.listen();
  await source.startMigration(recorder.uri, settings);
  await source.waitForMigrationInfo(
    ({ ram }) => (ram?.['dirty-sync-count'] ?? 0) >= 2,
    'start a second round',
  );
  await source.configureMigration({ parameters: { 'max-bandwidth': 30_000 } });
  await source.waitForMigrationInfo(
    (info) => (info['xbzrle-cache']?.pages ?? 0) >= 200,
    'send XBZRLE pages',
  );
  await source.configureMigration({
    parameters: { 'max-bandwidth': 10_000_000, 'downtime-limit': 2000 },
  });
  await source.waitForMigration();
  return { recording: await recorder.finished };
}

/** Switches to postcopy in the first round, so that most of the guest's pages are still missing. */
async function recordPostcopy(
  source: QemuProcess,
  settings: MigrationSettings,
): Promise<RecordedMigration> {
  const { args, guest: options } = recordCases.find(({ name }) => name === 'postcopy')!;
  const { capabilities = [] } = settings;
  await using destination = await QemuProcess.start(source.peer, {
    machine,
    args,
    guest: options,
    incoming: 'defer',
  });
  await using recorder = await TcpRecorder.listen(await destination.listenTcp({ capabilities }));
  await source.startMigration(recorder.uri, settings);
  await source.waitForMigration(['active']);
  await source.qmp.execute('migrate-start-postcopy');
  await source.waitForMigration();
  await destination.waitForMigration();
  const marks = await destination.waitForMarks(5);
  if (marks.some(({ wrongWords }) => wrongWords > 0)) {
    throw new Error(`the guest found wrong words after postcopy: ${destination.serialText}`);
  }
  return { recording: await recorder.finished, firstPassAtDestination: marks[0]!.pass };
}

/** Starts the case's source and lets its guest work for some passes first. */
export async function startSource(peer: Peer, recordCase: RecordCase): Promise<QemuProcess> {
  const { machine, args, guest } = recordCase;
  const source = await QemuProcess.start(peer, { machine, args, guest });
  await source.waitForPass(10);
  return source;
}
