import { ByteWriter } from '@wherry/bytes';
import {
  RamFlag,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamWord,
  writeSectionHead,
  writeVmdesc,
} from '@wherry/stream';
import { SyntheticStream } from './synthetic-stream.ts';

/** Writes a live section: its START, and with the last body its END; PARTs between. */
export function liveSection(
  stream: SyntheticStream,
  idstr: string,
  sectionId: number,
  bodies: readonly ((writer: ByteWriter) => void)[],
  version = 1,
): SyntheticStream {
  const { writer } = stream;
  for (const [i, write] of bodies.entries()) {
    if (i === 0)
      writeSectionHead(writer, { kind: 'start', sectionId, idstr, instanceId: 0, version });
    else writeSectionHead(writer, { kind: i === bodies.length - 1 ? 'end' : 'part', sectionId });
    write(writer);
    writeFooter(writer, sectionId);
  }
  return stream;
}

/** The bodies of a `dirty-bitmap` section with two bitmaps, one of them with bits. */
export const dirtyBitmapBodies: readonly ((writer: ByteWriter) => void)[] = [
  (w) => {
    w.u8(0x1c).counted('disk0').counted('fine').u32(4096).u8(1);
    w.u8(0x14).counted('coarse').u32(65_536).u8(2);
    w.u8(0x01);
  },
  (w) => {
    w.u8(0x44).counted('fine').u64(0n).u32(65_536).u64(32n);
    w.raw(new Uint8Array(32).fill(0x81));
    w.u8(0x46).counted('coarse').u64(0n).u32(2048);
    w.u8(0x24).counted('fine').u8(0x24).counted('coarse').u8(0x01);
  },
];

/** A stream with a live section of each known format and one of an unknown one. */
export function liveStream(): Uint8Array<ArrayBuffer> {
  const stream = new SyntheticStream().begin();
  liveSection(stream, 'dirty-bitmap', 10, dirtyBitmapBodies);
  liveSection(stream, 'block', 11, [
    (w) => w.u64(0x02n),
    (w) =>
      w
        .u64(0x09n)
        .counted('ide0')
        .u64((57n << 9n) | 0x04n)
        .u64(0x02n),
    (w) => w.u64(0x02n),
  ]);
  liveSection(stream, 'spapr/htab', 12, [
    (w) => w.u32(21),
    (w) => w.u32(0).u32(7).u16(2).u16(3).zeros(32).zeros(8),
    (w) => w.u32(0).zeros(8),
  ]);
  liveSection(
    stream,
    's390-storage_attributes',
    13,
    [
      (w) => w.u64(1n),
      (w) =>
        w
          .u64(0x1002n)
          .u64(3n)
          .raw(Uint8Array.of(1, 2, 3))
          .u64(1n),
      (w) => w.u64(8n).u64(1n),
    ],
    0,
  );
  liveSection(stream, '0000:00:05.0/vfio', 14, [
    (w) => w.u64(0xffff_ffff_ef10_0003n).u64(0xffff_ffff_ef10_0001n),
    (w) => w.u64(0xffff_ffff_ef10_0004n).u64(5n).zeros(5).u64(0xffff_ffff_ef10_0001n),
    (w) => w.u64(0xffff_ffff_ef10_0002n).zeros(20).u64(0xffff_ffff_ef10_0001n),
  ]);
  liveSection(stream, 'new-thing', 15, [
    (w) => w.u32(1),
    (w) => w.raw(new Uint8Array(50).fill(0x7e)),
  ]);
  return stream.end();
}

/** A postcopy stream with a package of one device, and something unused in it. */
export function postcopyStream(): Uint8Array<ArrayBuffer> {
  const inner = new ByteWriter();
  writeCommand(inner, { name: 'postcopy-listen' });
  writeSectionHead(inner, { kind: 'full', sectionId: 4, idstr: 'toy', instanceId: 0, version: 1 });
  inner.raw(Uint8Array.of(1, 2, 3));
  writeFooter(inner, 4);
  writeCommand(inner, { name: 'postcopy-run' });
  inner.raw(Uint8Array.of(9, 9));
  const blob = inner.finish();
  const stream = new SyntheticStream().beginPostcopy();
  stream.ramStart([{ name: 'pc.ram', usedBytes: 0x4000 }]);
  const ranges = [{ start: 0, length: 0x1000 }];
  writeCommand(stream.writer, { name: 'postcopy-ram-discard', block: 'pc.ram', ranges });
  writeCommand(stream.writer, { name: 'packaged', lengthBytes: blob.length });
  stream.writer.raw(blob);
  return stream
    .ramPart('end', (w) => {
      writeRamWord(w, 0, RamFlag.zero);
      w.counted('pc.ram').u8(0);
    })
    .end();
}

/** What a source sends to recover a postcopy: no header, no list, parts of a section that began before. */
export function recoveryStream(): Uint8Array<ArrayBuffer> {
  const stream = new SyntheticStream();
  const { writer } = stream;
  writeCommand(writer, { name: 'recv-bitmap', block: 'pc.ram' });
  writeCommand(writer, { name: 'postcopy-resume' });
  return stream
    .ramPart('part', (w) => {
      writeRamWord(w, 0x3000, RamFlag.page);
      w.counted('pc.ram').raw(new Uint8Array(4096).fill(3));
      writeRamWord(w, 0x5000, RamFlag.zero | RamFlag.continue);
      w.u8(0);
    })
    .ramPart('end')
    .end();
}

/** A mapped-ram file of one block of five pages, of which 1, 2 and 4 are there, each filled with its number. */
export function mappedRamFile(
  byteOrder: 'little' | 'big' = 'little',
  lead: Uint8Array = new Uint8Array(0),
): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter();
  writer.raw(lead);
  writeHeader(writer);
  writeConfiguration(writer, { machineType: 'pc-q35-9.0', capabilities: ['mapped-ram'] });
  const head = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };
  writeSectionHead(writer, { kind: 'start', ...head });
  writeRamWord(writer, 0x5000, RamFlag.memSize);
  writer.counted('m').u64(0x5000n);
  const bitmapOffset = writer.length + 28;
  const pagesOffset = bitmapOffset + 100;
  writer.u32(1).u64(0x1000n).u64(BigInt(bitmapOffset)).u64(BigInt(pagesOffset));
  const bitmap = [0b10110, 0, 0, 0, 0, 0, 0, 0];
  if (byteOrder === 'big') bitmap.reverse();
  writer.raw(Uint8Array.from(bitmap)).zeros(92);
  for (const page of [0, 1, 2, 0, 4]) writer.raw(new Uint8Array(0x1000).fill(page));
  writeRamWord(writer, 0, RamFlag.eos);
  writeFooter(writer, 2);
  writeSectionHead(writer, { kind: 'end', sectionId: 2 });
  writeRamWord(writer, 0, RamFlag.eos);
  writeFooter(writer, 2);
  writer.u8(0);
  return writer.finish();
}

/** What {@link libvirtImage} varies. */
export interface ImageOptions {
  readonly magic?: string;
  readonly version?: number;
  readonly format?: number;
  readonly cookie?: string;
  readonly isLittle?: boolean;
}

/** A libvirt save image around a stream, padded as libvirt does. */
export function libvirtImage(stream: Uint8Array, options: ImageOptions = {}): Uint8Array {
  const { magic = 'LibvirtQemudSave', version = 2, format = 0, cookie, isLittle = true } = options;
  const encoder = new TextEncoder();
  const xml = encoder.encode('<domain type="kvm"/>\0');
  const notes = encoder.encode(cookie === undefined ? '' : `${cookie}\0`);
  const dataBytes = xml.length + notes.length + 64;
  const header = new DataView(new ArrayBuffer(92));
  new Uint8Array(header.buffer).set(encoder.encode(magic));
  const words = [version, dataBytes, 1, format, cookie === undefined ? 0 : xml.length];
  for (const [i, word] of words.entries()) header.setUint32(16 + i * 4, word, isLittle);
  return new Uint8Array([
    ...new Uint8Array(header.buffer),
    ...xml,
    ...notes,
    ...new Uint8Array(64),
    ...stream,
  ]);
}

/** A device of a stream without footers: what is sent, and how many bytes the vmdesc says it has. */
export interface FooterlessDevice {
  readonly idstr: string;
  readonly body: Uint8Array;
  readonly describedBytes?: number;
}

/** A stream without section footers, with its vmdesc; the first device may stand before RAM. */
export function footerlessStream(
  devices: readonly FooterlessDevice[],
  isFirstEarly = false,
): Uint8Array<ArrayBuffer> {
  const stream = new SyntheticStream().begin();
  const { writer } = stream;
  const device = ({ idstr, body }: FooterlessDevice, i: number): void => {
    writeSectionHead(writer, { kind: 'full', sectionId: 9 + i, idstr, instanceId: 0, version: 1 });
    writer.raw(body);
  };
  if (isFirstEarly) device(devices[0]!, 0);
  const head = { sectionId: 2, idstr: 'ram', instanceId: 0, version: 4 };
  writeSectionHead(writer, { kind: 'start', ...head });
  writeRamWord(writer, 0x1000, RamFlag.memSize);
  writer.counted('m').u64(0x1000n);
  writeRamWord(writer, 0, RamFlag.eos);
  writeSectionHead(writer, { kind: 'end', sectionId: 2 });
  writeRamWord(writer, 0, RamFlag.eos);
  for (const [i, each] of devices.entries()) if (i > 0 || !isFirstEarly) device(each, i);
  writer.u8(0);
  writeVmdesc(
    writer,
    JSON.stringify({
      page_size: 4096,
      devices: devices.map(({ idstr, body, describedBytes = body.length }) => ({
        name: idstr,
        instance_id: 0,
        vmsd_name: idstr,
        version: 1,
        fields: [{ name: 'data', type: 'buffer', size: describedBytes }],
      })),
    }),
  );
  return writer.finish();
}
