import type { QemuProcess } from './qemu.ts';
import { precopy, type RecordCase, type RecordedMigration } from './record-case.ts';
import { modeCases } from './record-modes.ts';
import { postcopyCases } from './record-postcopy.ts';
import { targetCases } from './record-targets.ts';
import { zooCases } from './record-zoo.ts';
import { TcpRecorder } from './tcp-recorder.ts';

/** An empty disk that needs no file. */
const nullDisk = ['-blockdev', 'driver=null-co,node-name=disk0,size=1048576,read-zeroes=on'];

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
  ...postcopyCases,
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
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  await using recorder = await TcpRecorder.listen();
  await source.startMigration(recorder.uri, recordCase);
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
