import type { MigrationSettings, QemuProcess } from './qemu.ts';
import { precopy, type RecordCase, type RecordedMigration, startMachine } from './record-case.ts';
import { modeCases } from './record-modes.ts';
import { targetCases } from './record-targets.ts';
import { zooCases } from './record-zoo.ts';
import { TcpRecorder } from './tcp-recorder.ts';

const { load: _, ...withoutLoad } = precopy;
/** An empty disk that needs no file. */
const nullDisk = ['-blockdev', 'driver=null-co,node-name=disk0,size=1048576,read-zeroes=on'];

const postcopy: RecordCase = {
  ...withoutLoad, // it needs a return path, which no file has
  name: 'postcopy',
  capabilities: ['postcopy-ram'],
  parameters: { 'max-bandwidth': 200_000, 'max-postcopy-bandwidth': 300_000 },
  run: recordPostcopy,
};

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
    ...precopy,
    name: 'xbzrle',
    guest: { ...precopy.guest, passesPerSecond: 200 },
    capabilities: ['xbzrle'],
    parameters: { 'max-bandwidth': 2_000_000, 'downtime-limit': 1 },
    run: recordXbzrle,
  },
  postcopy,
  ...zooCases,
  ...modeCases,
  ...targetCases,
];

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
  const { capabilities = [] } = settings;
  await using destination = await startMachine(source.peer, postcopy, 'defer');
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
