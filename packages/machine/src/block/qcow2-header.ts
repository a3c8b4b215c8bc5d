import { ByteReader, ByteWriter, type ErrorDetail } from '@wherry/bytes';
import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';

const QCOW2_MAGIC = 0x514649fb;
/** The flag of an L1 or L2 entry whose cluster nobody else uses: it may be written in place. */
export const COPIED: bigint = 1n << 63n;
export const COMPRESSED: bigint = 1n << 62n;
/** The cluster's place in an L1, L2 or bitmap table entry. */
export const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
/** Autoclear feature: the bitmaps extension is up to date. */
const AUTOCLEAR_BITMAPS = 1n;

const V2_BYTES = 72;
const V3_BYTES = 104;
const MIN_CLUSTER_BITS = 9;
const MAX_CLUSTER_BITS = 21;
/** @see QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE in QEMU's block/qcow2.h */
const MAX_L1_BYTES = 32 * 1024 * 1024;
const MAX_REFTABLE_BYTES = 8 * 1024 * 1024;
const MAX_BACKING_NAME_BYTES = 1023;

const Extension = {
  end: 0,
  backingFormat: 0xe2792aca,
  bitmaps: 0x23852875,
} as const;

/** Incompatible features, and what to do about each. */
const INCOMPATIBLE: readonly (readonly [name: string, likely: string])[] = [
  ['dirty', 'It was not closed by its last user: `qemu-img check -r all` repairs its refcounts'],
  ['corrupt', 'QEMU found it corrupt: `qemu-img check -r all` says what can be saved'],
  ['external data file', 'Convert it with `qemu-img convert -O qcow2`'],
  ['compression type', 'Convert it with `qemu-img convert -O qcow2`, which uncompresses it'],
  ['extended L2 entries', 'Convert it with `qemu-img convert -O qcow2 -o extended_l2=off`'],
];

/** Where an image's bitmaps are. */
export interface BitmapsExtension {
  readonly count: number;
  readonly directoryOffset: number;
  readonly directoryBytes: number;
}

/** The header of a qcow2 image; what is not understood of it is kept as it is. */
export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly sizeBytes: number;
  readonly refcountOrder: number;
  readonly snapshots: number;
  readonly snapshotsOffset: number;
  readonly backingFile?: string;
  readonly backingFormat?: string;
  l1Entries: number;
  l1Offset: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  /** Undefined where there are none, or where they are out of date. */
  bitmaps: BitmapsExtension | undefined;
  readonly compatibleFeatures: bigint;
  /** Header bytes behind those that are known. */
  readonly rest: Uint8Array;
  readonly otherExtensions: readonly { readonly type: number; readonly data: Uint8Array }[];
}

/** Makes the error of an image that breaks its format. */
export function imageInvalid(what: string, detail: ErrorDetail): MachineError {
  return new MachineError('IMAGE_INVALID', what, {
    path: ['qcow2'],
    likely: 'The image is damaged: `qemu-img check` tells how far',
    ...detail,
  });
}

function unsupported(what: string, likely: string): MachineError {
  return new MachineError('IMAGE_UNSUPPORTED', what, { path: ['qcow2', 'header'], likely });
}

/** Tells whether a file begins as a qcow2 image does. */
export function isQcow2(file: BlockFile): boolean {
  const magic = new Uint8Array(4);
  file.read(0, magic);
  return new DataView(magic.buffer).getUint32(0) === QCOW2_MAGIC;
}

/**
 * Reads a header and its extensions.
 *
 * @throws MachineError `IMAGE_INVALID`, `IMAGE_UNSUPPORTED`
 * @see qcow2_do_open in QEMU's block/qcow2.c, docs/interop/qcow2.rst
 */
export function readQcow2Header(file: BlockFile): Qcow2Header {
  const fixed = new Uint8Array(V3_BYTES);
  file.read(0, fixed);
  const reader = ByteReader.over(fixed);
  const fail = (what: string, offset: number, expected: string, found: string | number): never => {
    throw imageInvalid(what, { expected, found: `${found}`, offset, path: ['qcow2', 'header'] });
  };
  const magic = reader.u32();
  if (magic !== QCOW2_MAGIC) {
    throw imageInvalid('This is no qcow2 image', {
      expected: '0x514649fb',
      found: `0x${magic.toString(16)}`,
      offset: 0,
      likely: 'Give the image’s own format, such as format=raw',
    });
  }
  const version = reader.u32();
  if (version !== 2 && version !== 3) return fail('Unknown version', 4, '2 or 3', version);
  const backingOffset = reader.u64();
  const backingBytes = reader.u32();
  const clusterBits = reader.u32();
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    fail(
      'Unsupported cluster size',
      20,
      `${MIN_CLUSTER_BITS} to ${MAX_CLUSTER_BITS} bits`,
      clusterBits,
    );
  }
  const clusterBytes = 2 ** clusterBits;
  const sizeBytes = sizeOf(reader);
  const encryption = reader.u32();
  if (encryption !== 0) {
    throw unsupported('The image is encrypted', 'Decrypt it with `qemu-img convert`');
  }
  const l1Entries = reader.u32();
  const l1Offset = offsetOf(reader, clusterBytes, 'L1 table');
  const refcountTableOffset = offsetOf(reader, clusterBytes, 'refcount table');
  const refcountTableClusters = reader.u32();
  const snapshots = reader.u32();
  const snapshotsOffset = offsetOf(reader, clusterBytes, 'snapshot table');
  const l1Needed = Math.ceil(sizeBytes / (clusterBytes * (clusterBytes / 8)));
  if (l1Entries * 8 > MAX_L1_BYTES)
    fail('Active L1 table too large', 36, `at most ${MAX_L1_BYTES / 8} entries`, l1Entries);
  if (l1Entries < l1Needed) fail('L1 table is too small', 36, `${l1Needed} entries`, l1Entries);
  const tableBytes = refcountTableClusters * clusterBytes;
  if (tableBytes === 0 || tableBytes > MAX_REFTABLE_BYTES) {
    fail(
      'Image does not contain a usable reference count table',
      56,
      `1 to ${MAX_REFTABLE_BYTES} bytes`,
      tableBytes,
    );
  }
  for (const [name, start, bytes, at] of [
    ['L1 table', l1Offset, l1Entries * 8, 40],
    ['refcount table', refcountTableOffset, tableBytes, 48],
  ] as const) {
    if (start + bytes > file.lengthBytes || (start === 0 && bytes > 0)) {
      fail(
        `The ${name} lies outside of the file`,
        at,
        `at most ${file.lengthBytes - bytes}`,
        start,
      );
    }
  }
  let headerBytes = V2_BYTES;
  let refcountOrder = 4;
  let compatibleFeatures = 0n;
  let autoclear = 0n;
  if (version === 3) {
    checkIncompatible(reader.u64());
    compatibleFeatures = reader.u64();
    autoclear = reader.u64();
    refcountOrder = reader.u32();
    if (refcountOrder > 6)
      fail('Reference count entry width too large', 96, 'at most 6', refcountOrder);
    headerBytes = reader.u32();
    if (headerBytes < V3_BYTES || headerBytes > clusterBytes) {
      fail('Wrong header length', 100, `${V3_BYTES} to ${clusterBytes}`, headerBytes);
    }
  }
  const first = new Uint8Array(clusterBytes);
  file.read(0, first);
  let backingFile: string | undefined;
  let extensionsEnd = clusterBytes;
  if (backingOffset !== 0n) {
    if (
      backingBytes > MAX_BACKING_NAME_BYTES ||
      backingOffset + BigInt(backingBytes) > clusterBytes ||
      backingOffset < headerBytes
    ) {
      fail(
        'The backing file name lies outside of the first cluster',
        8,
        `at most ${MAX_BACKING_NAME_BYTES} bytes in it`,
        `${backingBytes} at ${backingOffset}`,
      );
    }
    extensionsEnd = Number(backingOffset);
    backingFile = ByteReader.over(first.subarray(extensionsEnd), extensionsEnd).text(backingBytes);
  }
  const extensions = readExtensions(first.subarray(0, extensionsEnd), headerBytes);
  const bitmaps = (autoclear & AUTOCLEAR_BITMAPS) === 0n ? undefined : extensions.bitmaps;
  return {
    ...{ version, clusterBits, sizeBytes, refcountOrder, snapshots, snapshotsOffset },
    ...{ l1Entries, l1Offset, refcountTableOffset, refcountTableClusters },
    ...{ compatibleFeatures, bitmaps, otherExtensions: extensions.others },
    ...(backingFile === undefined ? {} : { backingFile }),
    ...(extensions.backingFormat === undefined ? {} : { backingFormat: extensions.backingFormat }),
    rest: first.slice(version === 3 ? V3_BYTES : V2_BYTES, headerBytes),
  };
}

/** Writes the first cluster anew; features that are not known here are cleared as the format asks. */
export function writeQcow2Header(file: BlockFile, header: Qcow2Header): void {
  const clusterBytes = 2 ** header.clusterBits;
  const writer = new ByteWriter(clusterBytes);
  const backing = new TextEncoder().encode(header.backingFile ?? '');
  const backingAt = clusterBytes - backing.length;
  writer.u32(QCOW2_MAGIC).u32(header.version);
  writer.u64(backing.length === 0 ? 0n : BigInt(backingAt)).u32(backing.length);
  writer.u32(header.clusterBits).u64(BigInt(header.sizeBytes)).u32(0);
  writer.u32(header.l1Entries).u64(BigInt(header.l1Offset));
  writer.u64(BigInt(header.refcountTableOffset)).u32(header.refcountTableClusters);
  writer.u32(header.snapshots).u64(BigInt(header.snapshotsOffset));
  if (header.version === 3) {
    writer.u64(0n).u64(header.compatibleFeatures);
    writer.u64(header.bitmaps === undefined ? 0n : AUTOCLEAR_BITMAPS);
    writer.u32(header.refcountOrder).u32(V3_BYTES + header.rest.length);
  }
  writer.raw(header.rest);
  const extension = (type: number, data: Uint8Array): void => {
    writer
      .u32(type)
      .u32(data.length)
      .raw(data)
      .zeros(-data.length & 7);
  };
  if (header.backingFormat !== undefined) {
    extension(Extension.backingFormat, new TextEncoder().encode(header.backingFormat));
  }
  for (const { type, data } of header.otherExtensions) extension(type, data);
  if (header.bitmaps !== undefined) {
    const { count, directoryBytes, directoryOffset } = header.bitmaps;
    const data = new ByteWriter(24).u32(count).u32(0);
    extension(
      Extension.bitmaps,
      data.u64(BigInt(directoryBytes)).u64(BigInt(directoryOffset)).finish(),
    );
  }
  extension(Extension.end, new Uint8Array());
  if (writer.length > backingAt) {
    throw new MachineError('IMAGE_UNSUPPORTED', 'The header does not fit into a cluster', {
      expected: `at most ${backingAt} bytes`,
      found: `${writer.length}`,
      path: ['qcow2', 'header'],
      likely: 'Use larger clusters: `qemu-img create -o cluster_size=64K`',
    });
  }
  file.write(
    0,
    writer
      .zeros(backingAt - writer.length)
      .raw(backing)
      .finish(),
  );
}

function checkIncompatible(features: bigint): void {
  if (features === 0n) return;
  const bits = [...features.toString(2)].reverse().flatMap((bit, at) => (bit === '1' ? [at] : []));
  const names = bits.map((bit) => INCOMPATIBLE[bit]?.[0] ?? `bit ${bit}`);
  throw unsupported(
    `Unsupported qcow2 feature(s): ${names.join(', ')}`,
    INCOMPATIBLE[bits[0]!]?.[1] ??
      'A newer release made it: convert it with `qemu-img convert -O qcow2`',
  );
}

interface Extensions {
  readonly backingFormat: string | undefined;
  readonly bitmaps: BitmapsExtension | undefined;
  readonly others: { readonly type: number; readonly data: Uint8Array }[];
}

function readExtensions(area: Uint8Array, start: number): Extensions {
  const others: Extensions['others'] = [];
  let backingFormat: string | undefined;
  let bitmaps: BitmapsExtension | undefined;
  const reader = ByteReader.over(area.subarray(start), start);
  while (reader.available >= 8) {
    const { offset } = reader;
    const type = reader.u32();
    const length = reader.u32();
    if (type === Extension.end) break;
    if (length > reader.available) {
      throw imageInvalid('A header extension is too long', {
        expected: `at most ${reader.available} bytes`,
        found: `${length} bytes of 0x${type.toString(16)}`,
        offset,
        path: ['qcow2', 'header'],
      });
    }
    const data = reader.copy(length);
    reader.skip(Math.min(-length & 7, reader.available));
    if (type === Extension.backingFormat) backingFormat = new TextDecoder().decode(data);
    else if (type === Extension.bitmaps) bitmaps = readBitmapsExtension(data, offset + 8);
    else others.push({ type, data });
  }
  return { backingFormat, bitmaps, others };
}

function readBitmapsExtension(data: Uint8Array, offset: number): BitmapsExtension {
  const reader = ByteReader.over(data, offset);
  if (data.length !== 24) {
    throw imageInvalid('bitmaps_ext: Invalid extension length', {
      expected: '24 bytes',
      found: `${data.length}`,
      offset,
      path: ['qcow2', 'bitmaps extension'],
    });
  }
  const count = reader.u32();
  reader.skip(4);
  return { count, directoryBytes: reader.size(), directoryOffset: reader.size() };
}

function sizeOf(reader: ByteReader): number {
  const { offset } = reader;
  const value = reader.u64();
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw imageInvalid('The disk is too large', {
      expected: 'less than 2^53 bytes',
      found: `0x${value.toString(16)}`,
      offset,
      path: ['qcow2', 'header'],
    });
  }
  return Number(value);
}

function offsetOf(reader: ByteReader, clusterBytes: number, what: string): number {
  const { offset } = reader;
  const value = sizeOf(reader);
  if (value % clusterBytes !== 0) {
    throw imageInvalid(`The ${what} is not aligned to a cluster`, {
      expected: `a multiple of ${clusterBytes}`,
      found: `${value}`,
      offset,
      path: ['qcow2', 'header'],
    });
  }
  return value;
}
