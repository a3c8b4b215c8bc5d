import { setTimeout as sleep } from 'node:timers/promises';
import type { MigrationParameters } from '@wherry/qmp';
import type { GuestOptions } from './guest/boot-sector.ts';
import { type Peer, type Release, releases, type Target } from './peers/peers.ts';
import { type MigrationSettings, QemuProcess } from './qemu.ts';
import { type Recording, TcpRecorder } from './tcp-recorder.ts';

/** A stream to record: the machine, the migration's settings, and how the migration goes. */
export interface RecordCase {
  readonly name: string;
  /** The releases that can record it. */
  readonly releases: readonly Release[];
  /** The kind of guest, for one that is not x86-64. */
  readonly target?: Target;
  readonly machine: string;
  readonly ram: string;
  /** Our guest's, as ROM or as flash, or an image that runs instead of our guest. */
  readonly firmware: 'wherry' | 'flash' | Uint8Array;
  readonly args: readonly string[];
  readonly guest: Required<Pick<GuestOptions, 'rangeStart' | 'rangeEnd' | 'passesPerSecond'>>;
  readonly capabilities: NonNullable<MigrationSettings['capabilities']>;
  readonly parameters: MigrationParameters;
  /** What a destination is given that loads the stream from a file; absent if none can. */
  readonly load?: MigrationSettings;
  /** Where it loads `stream.qevm` from. */
  readonly loadUri: string;
  run(source: QemuProcess, recordCase: RecordCase): Promise<RecordedMigration>;
}

/** What came of it. */
export interface RecordedMigration {
  readonly recording: Recording;
  readonly firstPassAtDestination?: number;
  /** Where the source's last mark does not tell it. */
  readonly lastPass?: number;
}

/** A plain precopy migration of a plain machine, to be refined. */
export const precopy: Omit<RecordCase, 'name'> = {
  releases,
  machine: 'pc-q35-5.2',
  ram: '8M',
  firmware: 'wherry',
  args: [],
  guest: { rangeStart: 0x10_0000, rangeEnd: 0x14_0000, passesPerSecond: 20 },
  capabilities: [],
  parameters: {},
  load: {},
  loadUri: 'exec:cat stream.qevm',
  run: recordPrecopy,
};

async function recordPrecopy(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  await using recorder = await TcpRecorder.listen();
  await source.migrate(recorder.uri, recordCase);
  return { recording: await recorder.finished };
}

/** Starts the case's source and lets its guest work for a while first. */
export async function startSource(peer: Peer, recordCase: RecordCase): Promise<QemuProcess> {
  const source = await startMachine(peer, recordCase);
  if (recordCase.firmware instanceof Uint8Array) await sleep(300);
  else await source.waitForPass(10);
  return source;
}

/** Starts the case's machine, as a destination where it is told what comes in. */
export function startMachine(
  peer: Peer,
  { machine, ram, firmware, args, guest }: RecordCase,
  incoming?: string,
): Promise<QemuProcess> {
  return QemuProcess.start(peer, {
    ...{ machine, ram, firmware, args, guest },
    ...(incoming === undefined ? {} : { incoming }),
  });
}
