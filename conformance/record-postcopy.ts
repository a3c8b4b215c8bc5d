import { addDirtyBitmaps, bitmapNode } from './dirty-bitmaps.ts';
import type { QemuProcess } from './qemu.ts';
import { precopy, type RecordCase, type RecordedMigration, startMachine } from './record-case.ts';
import { q35Zoo } from './record-zoo.ts';
import { TcpRecorder } from './tcp-recorder.ts';

const { load: _, ...withoutLoad } = precopy;
const postcopy: Omit<RecordCase, 'name'> = {
  ...withoutLoad, // it needs a return path, which no file has
  capabilities: ['postcopy-ram'],
  parameters: { 'max-bandwidth': 200_000, 'max-postcopy-bandwidth': 300_000 },
  run: recordPostcopy,
};

/** Migrations that end as postcopy. */
export const postcopyCases: readonly RecordCase[] = [
  { ...postcopy, name: 'postcopy' },
  { ...postcopy, name: 'postcopy-zoo', ...q35Zoo },
  {
    ...postcopy,
    name: 'postcopy-bitmaps',
    args: bitmapNode,
    capabilities: ['postcopy-ram', 'dirty-bitmaps'],
    run: async (source, recordCase) => {
      await addDirtyBitmaps(source);
      return recordPostcopy(source, recordCase);
    },
  },
];

/** Switches to postcopy in the first round, so that most of the guest's pages are still missing. */
async function recordPostcopy(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  const { capabilities } = recordCase;
  await using destination = await startMachine(source.peer, recordCase, 'defer');
  await using recorder = await TcpRecorder.listen(await destination.listenTcp({ capabilities }));
  await source.startMigration(recorder.uri, recordCase);
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
