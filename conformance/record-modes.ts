import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { addDirtyBitmaps, bitmapNode } from './dirty-bitmaps.ts';
import type { QemuProcess } from './qemu.ts';
import { precopy, type RecordCase, type RecordedMigration, startMachine } from './record-case.ts';
import { TcpRecorder } from './tcp-recorder.ts';

const uuid = '00112233-4455-6677-8899-aabbccddeeff';
const { load: _, ...withoutLoad } = precopy;

/** What options, old machine types and capabilities do to a stream's shape. */
export const modeCases: readonly RecordCase[] = [
  {
    ...precopy,
    name: 'no-footers',
    args: ['-global', 'migration.send-section-footer=off'],
  },
  { ...precopy, name: 'no-vmdesc', args: ['-machine', 'suppress-vmdesc=on'] },
  {
    ...precopy,
    name: 'no-configuration',
    releases: ['5.2', '7.2'], // later ones abort while they write the vmdesc
    args: ['-global', 'migration.send-configuration=off'],
  },
  {
    ...precopy,
    name: 'machine-2.2', // neither configuration nor footers nor vmdesc
    releases: ['5.2', '7.2'],
    machine: 'pc-i440fx-2.2',
  },
  withCapability({
    ...precopy,
    name: 'uuid',
    args: ['-uuid', uuid],
    capabilities: ['validate-uuid'],
  }),
  {
    ...withoutLoad, // its RAM is in a file that is not kept
    name: 'ignore-shared',
    args: [
      ...['-object', 'memory-backend-file,id=pc.ram,size=8M,mem-path=ram.bin,share=on'],
      ...['-machine', 'memory-backend=pc.ram'],
    ],
    capabilities: ['x-ignore-shared'],
  },
  withCapability({
    ...precopy,
    name: 'compress',
    releases: ['5.2', '7.2'],
    capabilities: ['compress'],
  }),
  withCapability({
    ...precopy,
    name: 'block',
    releases: ['5.2', '7.2'],
    args: [
      '-drive',
      'if=none,id=disk0,format=raw,file.driver=null-co,file.size=2097152,file.read-zeroes=on',
      ...['-device', 'virtio-blk-pci,drive=disk0'], // a disk without a device takes no writes
    ],
    capabilities: ['block'],
  }),
  withCapability({
    ...precopy,
    name: 'dirty-bitmaps',
    args: bitmapNode,
    capabilities: ['dirty-bitmaps'],
    run: async (source, recordCase) => {
      await addDirtyBitmaps(source);
      return precopy.run(source, recordCase);
    },
  }),
  {
    ...withCapability({
      ...precopy,
      name: 'mapped-ram',
      releases: ['10.0', '11.1'],
      capabilities: ['mapped-ram'],
      run: recordFile,
    }),
    loadUri: 'file:stream.qevm',
  },
  {
    ...withCapability({
      ...precopy,
      name: 'mapped-ram-offset',
      releases: ['10.0', '11.1'],
      capabilities: ['mapped-ram'],
      run: recordFileWithOffset,
    }),
    loadUri: 'file:stream.qevm,offset=4096',
  },
  {
    ...precopy,
    name: 'background-snapshot',
    releases: ['7.2', '10.0', '11.1'],
    capabilities: ['background-snapshot'],
    run: recordBackgroundSnapshot,
  },
  {
    ...withoutLoad, // the pages went over the other connections
    name: 'multifd',
    capabilities: ['multifd'],
    parameters: { 'multifd-channels': 2 },
    run: recordMultifd,
  },
  {
    ...precopy,
    name: 'early-setup',
    releases: ['10.0', '11.1'],
    machine: 'pc-q35-10.0',
    ram: '8M,maxmem=1G',
    args: [
      ...['-object', 'memory-backend-ram,id=vmem0,size=16M'],
      ...['-device', 'virtio-mem-pci,id=vm0,memdev=vmem0,requested-size=2M'],
    ],
  },
];

/** Lets the destination have the case's capabilities, too. */
function withCapability(recordCase: RecordCase): RecordCase {
  return { ...recordCase, load: { capabilities: recordCase.capabilities } };
}

/** Leaves room before the stream, as a management program does that has something to say of it. */
async function recordFileWithOffset(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  writeFileSync(join(source.directory, 'stream.qevm'), 'what another program wrote first\n');
  return recordFile(source, recordCase);
}

async function recordFile(source: QemuProcess, recordCase: RecordCase): Promise<RecordedMigration> {
  await source.migrate(recordCase.loadUri, recordCase);
  const forward = new Uint8Array(readFileSync(join(source.directory, 'stream.qevm')));
  return { recording: { forward, backward: new Uint8Array() } };
}

/** The guest runs on behind its snapshot: only one who loads it can tell where it was. */
async function recordBackgroundSnapshot(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  const recorded = await precopy.run(source, recordCase);
  await using loaded = await startMachine(source.peer, recordCase, 'defer');
  writeFileSync(join(loaded.directory, 'stream.qevm'), recorded.recording.forward);
  await loaded.listen('exec:cat stream.qevm');
  const [first] = await loaded.waitForMarks(5);
  return { ...recorded, lastPass: first!.pass - 1 };
}

async function recordMultifd(
  source: QemuProcess,
  recordCase: RecordCase,
): Promise<RecordedMigration> {
  await using recorder = await TcpRecorder.listen(undefined, 3);
  await source.migrate(recorder.uri, recordCase);
  return { recording: await recorder.finished };
}
