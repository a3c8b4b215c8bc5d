import { ByteReader, runParser, WherryError } from '@wherry/bytes';
import { decodeDevices, type StreamModel, StreamWalk, streamFacts } from '@wherry/snapshot';
import { parseDump, schemaFromDump, schemaFromVmdesc } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import { SyntheticStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { causeOf } from '../src/explain/catalogue.ts';
import { diagnoseBreak } from '../src/inspect/break-diagnosis.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from '../src/inspect/diagnosis.ts';
import type { SchemaFile } from '../src/inspect/schema-file.ts';

function walkWhole(bytes: Uint8Array): StreamModel {
  const walk = new StreamWalk();
  const reader = ByteReader.over(bytes);
  runParser(walk.walkFile(reader), reader);
  return walk.model;
}

function schemaOf(bytes: Uint8Array): SchemaFile {
  const model = walkWhole(bytes);
  return {
    schema: schemaFromVmdesc(model.vmdesc!.value!),
    side: { stream: streamFacts(model) },
  };
}

function diagnosisOf(bytes: Uint8Array, schema?: SchemaFile): Diagnosis {
  const walk = new StreamWalk();
  const reader = ByteReader.over(bytes);
  try {
    runParser(walk.walkFile(reader), reader);
  } catch (error) {
    if (error instanceof WherryError) {
      return diagnoseBreak(error, walk, bytes.subarray(0, 4096), schema);
    }
    throw error;
  }
  throw new Error('the stream is whole');
}

const { stream } = loadFixture('11.1', 'precopy-devices');
const { items, devices, vmdesc, eofOffset } = walkWhole(stream);
const part = items.find((item) => item.type === 'section' && item.kind === 'part')!;
const rtc = devices.find(({ idstr }) => idstr === 'mc146818rtc')!;

describe('a stream that was cut', () => {
  test.each([
    ['at its first byte', 0, 'EMPTY_INPUT'],
    ['in its magic', 3, 'TRUNCATED_IN_HEADER'],
    ['in its configuration', 15, 'TRUNCATED_IN_HEADER'],
    ['in a page', part.offset + 3000, 'TRUNCATED_IN_RAM'],
    ['in a device', rtc.bodyOffset + 20, 'TRUNCATED_IN_DEVICE'],
    ['between two devices', rtc.offset, 'TRUNCATED_BETWEEN_SECTIONS'],
    ['before its end mark', eofOffset!, 'TRUNCATED_BETWEEN_SECTIONS'],
    ['in its vmdesc', vmdesc!.offset + 100, 'TRUNCATED_IN_VMDESC'],
  ])('%s', (_, length, cause) => {
    const diagnosis = diagnosisOf(stream.subarray(0, length));
    expect(diagnosis).toMatchObject({ cause, offset: length });
    expect(formatDiagnosis(diagnosis)).toContain(`wherry explain ${cause}`);
  });

  test('in a page: its block and page are named', () => {
    const { path } = diagnosisOf(stream.subarray(0, part.offset + 3000));
    expect(path.slice(1)).toEqual(['pc.ram', 'page 0x6000']);
  });

  test('in a device, with a schema: the field is named', () => {
    const { path } = diagnosisOf(stream.subarray(0, rtc.bodyOffset + 20), schemaOf(stream));
    expect(path.join(' > ')).toContain('mc146818rtc');
    expect(path.at(-1)).toBe('cmos_data');
  });

  test('in a package', () => {
    const { stream: postcopy } = loadFixture('11.1', 'postcopy');
    const first = walkWhole(postcopy).devices[0]!;
    expect(diagnosisOf(postcopy.subarray(0, first.bodyOffset + 1)).cause).toBe(
      'TRUNCATED_IN_DEVICE',
    );
    expect(diagnosisOf(postcopy.subarray(0, first.offset)).cause).toBe('PACKAGE_CUT');
  });
});

describe('a stream that was cut, with what the other side is', () => {
  const state = (name: string, ...subsections: object[]): object => ({
    vmsd_name: name,
    version: 3,
    fields: [{ name: 'level', type: 'uint32', size: 4 }],
    ...(subsections.length > 0 && { subsections }),
  });
  const device = (name: string, ...subsections: object[]): object => ({
    name,
    instance_id: 0,
    ...state(name.split('/').at(-1)!, ...subsections),
  });
  const vmdesc = (...devices: object[]): object => ({ page_size: 4096, devices });
  /** Subsection `nic/queues`, version 1, without a byte of its own. */
  const subsection = [5, 10, ...Buffer.from('nic/queues'), 0, 0, 0, 1];
  const nic = (...more: number[]): Uint8Array => Uint8Array.of(0, 0, 0, 7, ...more);
  const newStream = (): SyntheticStream => new SyntheticStream().begin();
  const both = vmdesc(device('0:02.0/nic'), device('timer'));

  function cut(stream: SyntheticStream, lengthBytes: number): Uint8Array {
    return stream.end().subarray(0, -1 - lengthBytes);
  }
  const withQueues = (): SyntheticStream =>
    newStream()
      .device('0:02.0/nic', 3, nic(...subsection))
      .device('timer', 4, nic());

  test.each<[string, Uint8Array, Uint8Array, string]>([
    [
      'of another machine type',
      stream.subarray(0, rtc.offset),
      loadFixture('11.1', 'zoo-pc').stream,
      'MACHINE_TYPE',
    ],
    [
      'without a device that the stream has',
      cut(newStream().device('0:02.0/nic', 3, nic()).device('timer', 4, nic()), 0),
      newStream().end(vmdesc(device('timer'))),
      'UNKNOWN_SECTION',
    ],
    [
      'with the device at another address',
      cut(newStream().device('0:02.0/nic', 3, nic()), 7),
      newStream()
        .device('0:03.0/nic', 3, nic())
        .end(vmdesc(device('0:03.0/nic'))),
      'UNKNOWN_SECTION',
    ],
    [
      'without a subsection of the device at the break',
      cut(newStream().device('0:02.0/nic', 3, nic(...subsection)), 5),
      newStream().device('0:02.0/nic', 3, nic()).device('timer', 4, nic()).end(both),
      'SUBSECTION_UNKNOWN',
    ],
    [
      'of the same kind',
      cut(newStream().device('0:02.0/nic', 3, nic()), 6),
      newStream().device('0:02.0/nic', 3, nic()).device('timer', 4, nic()).end(both),
      'TRUNCATED_IN_DEVICE',
    ],
    [
      'whose guest did not need a subsection far before the break',
      cut(withQueues(), 6),
      newStream().device('0:02.0/nic', 3, nic()).device('timer', 4, nic()).end(both),
      'TRUNCATED_IN_DEVICE',
    ],
  ])('%s', (_, bytes, other, cause) => {
    const diagnosis = diagnosisOf(bytes, schemaOf(other));
    expect(diagnosis).toMatchObject({ cause, offset: bytes.length });
    const text = formatDiagnosis(diagnosis);
    expect(text).toContain(`wherry explain ${cause}`);
    expect(text).toMatch(/^ {2}do /m);
    expect(text).not.toContain('{');
  });

  test('a dump has no such subsection, far before the break', () => {
    const type = (name: string): object => ({
      Name: name,
      version_id: 3,
      minimum_version_id: 1,
      Description: {
        name,
        version_id: 3,
        minimum_version_id: 1,
        Fields: [{ field: 'level', version_id: 0, field_exists: false, size: 4 }],
      },
    });
    const dump = parseDump(
      JSON.stringify({
        vmschkmachine: { Name: 'pc-q35-5.2' },
        nic: type('nic'),
        timer: type('timer'),
      }),
    );
    const diagnosis = diagnosisOf(cut(withQueues(), 6), {
      schema: schemaFromDump(dump),
      side: { dump },
    });
    expect(diagnosis).toMatchObject({ cause: 'SUBSECTION_UNKNOWN' });
    expect(diagnosis.likely).toContain("VM subsection 'nic/queues' in '0:02.0/nic' does not exist");
  });
});

describe('a stream that is none', () => {
  test.each([
    ['an HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n'), 'BYTES_OF_ANOTHER_PROGRAM'],
    ['a TLS handshake', Uint8Array.of(0x16, 3, 1, 2, 0, 1, 0, 1), 'TLS_HANDSHAKE'],
    ['a multifd channel', Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1), 'MULTIFD_CHANNEL'],
    ['version 2', Uint8Array.of(0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 2), 'STREAM_V2'],
    ['version 4', Uint8Array.of(0x51, 0x45, 0x56, 0x4d, 0, 0, 0, 4), 'STREAM_VERSION'],
    ['swapped words', Uint8Array.of(0x4d, 0x56, 0x45, 0x51, 3, 0, 0, 0), 'BYTE_ORDER'],
    [
      'what nobody knows',
      Uint8Array.of(0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10),
      'NOT_A_STREAM',
    ],
  ])('%s', (_, bytes, cause) => {
    expect(diagnosisOf(bytes).cause).toBe(cause);
    expect(causeOf(cause)).toBeDefined();
  });
});

describe('a stream that is damaged', () => {
  test.each<[string, (bytes: Uint8Array) => void, string]>([
    [
      'in a section type',
      (bytes) => bytes.fill(0x55, rtc.offset, rtc.offset + 1),
      'FOOTER_MISSING',
    ],
    [
      'in a page’s word',
      (bytes) => bytes.fill(0xff, part.offset + 5, part.offset + 13),
      'RAM_RECORD_INVALID',
    ],
  ])('%s', (_, damage, cause) => {
    const bytes = Uint8Array.from(stream);
    damage(bytes);
    expect(diagnosisOf(bytes).cause).toBe(cause);
  });

  test('in its vmdesc', () => {
    const bytes = new SyntheticStream().begin().end({ page_size: 'large' });
    expect(diagnosisOf(bytes).cause).toBe('VMDESC_INVALID');
  });
});

test('a section that is longer than its description is told with the field', () => {
  const field = (name: string) => ({ name, type: 'uint32', size: 4 });
  const toy = { name: 'toy', instance_id: 0, vmsd_name: 'toy', version: 1 };
  const vmdesc = {
    page_size: 4096,
    devices: [{ ...toy, fields: [field('level'), field('more')] }],
  };
  const bytes = new SyntheticStream().begin().device('toy', 7, new Uint8Array(6)).end(vmdesc);
  const [decoded] = decodeDevices(walkWhole(bytes));
  expect(decoded?.state?.[0]).toMatchObject({ name: 'level', value: 0 });
  const diagnosis = diagnose(decoded!.mismatch!, []);
  expect(diagnosis.cause).toBe('DESCRIPTION_MISMATCH');
  expect(diagnosis.path).toContain('more');
});
