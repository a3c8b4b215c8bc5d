import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { StreamWalk } from '@wherry/snapshot';
import { RamFlag, writeCommand, writeRamWord, writeVmdesc } from '@wherry/stream';
import { listFixtures, loadFixture } from '../../conformance/fixtures.ts';
import {
  footerlessStream,
  libvirtImage,
  liveStream,
  mappedRamFile,
  postcopyStream,
  recoveryStream,
} from '../../packages/snapshot/test/sections.ts';
import {
  SyntheticStream,
  smallStream,
  someRecords,
} from '../../packages/snapshot/test/synthetic-stream.ts';

/** Device state that a seed may hold in all: what is mutated is to be all of it, not the inside of one table. */
const DEVICE_BYTES = 8 * 1024;

/** Makes the streams that are mutated: small ones, and the recorded ones cut down to their frames and small devices. */
export function fuzzSeeds(): Uint8Array[] {
  return [
    smallStream(),
    liveStream(),
    postcopyStream(),
    recoveryStream(),
    mappedRamFile(),
    libvirtImage(smallStream(), { cookie: '<cookie/>' }),
    footerlessStream([
      { idstr: 'a', body: new Uint8Array(30).fill(4) },
      { idstr: 'b', body: new Uint8Array(300), describedBytes: 20 },
    ]),
    ...listFixtures().flatMap(({ release, case: name }) => {
      if (!canBeCut(name)) return [];
      const { stream } = loadFixture(release, name);
      const reduced = reduce(stream);
      return name.startsWith('postcopy') ? [packaged(reduced.devices)] : [reduced.stream];
    }),
  ];
}

/** Whether a recorded case's streams have what they are cut by: a header at their beginning, footers, and pages of a known size. */
function canBeCut(name: string): boolean {
  return !['no-footers', 'machine-2.2', 'arm', 'recovery', 'mapped-ram-offset'].includes(name);
}

/** Keeps head, START of RAM, small devices, and their part of the vmdesc. */
function reduce(stream: Uint8Array): { stream: Uint8Array; devices: Uint8Array } {
  const walk = new StreamWalk();
  const reader = ByteReader.over(stream);
  runParser(walk.walk(reader), reader);
  const { items, devices, vmdesc } = walk.model;
  const writer = new ByteWriter();
  writer.raw(stream.subarray(0, items[0]!.offset));
  for (const item of items) {
    if (item.type !== 'section' || item.kind === 'full' || item.count > 1) continue;
    if (item.lengthBytes < 4096) {
      writer.raw(stream.subarray(item.offset, item.offset + item.lengthBytes));
    }
  }
  const deviceWriter = new ByteWriter();
  const kept = new Set<string>();
  for (const { idstr, instanceId, offset, bodyOffset, bodyLengthBytes } of devices) {
    if (deviceWriter.length + bodyLengthBytes > DEVICE_BYTES) continue;
    kept.add(`${idstr} ${instanceId}`);
    deviceWriter.raw(stream.subarray(offset, bodyOffset + bodyLengthBytes + 5));
  }
  const sections = deviceWriter.finish();
  writer.raw(sections).u8(0);
  if (vmdesc?.value !== undefined) {
    const described = vmdesc.value.devices.filter(({ name, instance_id: id }) =>
      kept.has(`${name} ${id}`),
    );
    writeVmdesc(writer, JSON.stringify({ ...vmdesc.value, devices: described }));
  }
  return { stream: writer.finish(), devices: sections };
}

/** A postcopy stream around these device sections. */
function packaged(devices: Uint8Array): Uint8Array {
  const stream = new SyntheticStream()
    .beginPostcopy()
    .ramStart([
      { name: 'pc.ram', usedBytes: 0x4000 },
      { name: 'rom', usedBytes: 0x1000 },
    ])
    .ramPart('part', someRecords);
  const { writer } = stream;
  const ranges = [{ start: 0, length: 0x2000 }];
  writeCommand(writer, { name: 'postcopy-ram-discard', block: 'pc.ram', ranges });
  const inner = new ByteWriter();
  writeCommand(inner, { name: 'postcopy-listen' });
  inner.raw(devices);
  writeCommand(inner, { name: 'ping', value: 3 });
  writeCommand(inner, { name: 'postcopy-run' });
  const bytes = inner.finish();
  writeCommand(writer, { name: 'packaged', lengthBytes: bytes.length });
  writer.raw(bytes);
  stream.ramPart('end', (records) => {
    writeRamWord(records, 0, RamFlag.page);
    records.counted('pc.ram').raw(new Uint8Array(4096));
  });
  return stream.end();
}
