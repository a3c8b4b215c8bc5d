import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QmpClient } from '@wherry/qmp';
import { addDirtyBitmaps, bitmapNode } from './dirty-bitmaps.ts';
import type { QemuProcess } from './qemu.ts';
import { connectQmpSocket } from './qmp-socket.ts';
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
  { ...postcopy, name: 'recovery', run: recordRecovery },
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

/** Breaks the connection in postcopy and records the one that takes over. */
async function recordRecovery(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  const { args, capabilities } = recordCase;
  // While its guest waits for a page, a destination may answer to nothing but out-of-band commands.
  const outOfBand = ['-qmp', 'unix:oob.sock,server=on,wait=off'];
  const machine = { ...recordCase, args: [...args, ...outOfBand] };
  await using destination = await startMachine(source.peer, machine, 'defer');
  const qmp = await QmpClient.connect(
    await connectQmpSocket(join(destination.directory, 'oob.sock')),
    { enable: ['oob'] },
  );
  await using first = await TcpRecorder.listen(await destination.listenTcp({ capabilities }));
  await source.startMigration(first.uri, recordCase);
  await source.waitForMigration(['active']);
  const resumed = qmp.waitForEvent('RESUME');
  await source.qmp.execute('migrate-start-postcopy');
  await resumed; // before its RUN it would fail and not pause
  await source.waitForMigration(['postcopy-active']);
  await source.qmp.execute('migrate-pause');
  await source.waitForMigration(['postcopy-paused']);
  const port = await freePort();
  await retry(() =>
    qmp.execute('migrate-recover', { uri: `tcp:127.0.0.1:${port}` }, { oob: true }),
  );
  await using second = await TcpRecorder.listen(port);
  await source.qmp.execute('migrate', { uri: second.uri, resume: true });
  await source.waitForMigration();
  await destination.waitForMigration();
  const marks = await destination.waitForMarks(5);
  if (marks.some(({ wrongWords }) => wrongWords > 0)) {
    throw new Error(`the guest found wrong words after postcopy: ${destination.serialText}`);
  }
  qmp.close();
  return { recording: await second.finished, firstPassAtDestination: marks[0]!.pass };
}

/** Calls until it is not refused; a destination takes its time to notice the break. */
async function retry(call: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await call();
      return;
    } catch (error) {
      if (attempt === 100) throw error;
      await sleep(50);
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}
