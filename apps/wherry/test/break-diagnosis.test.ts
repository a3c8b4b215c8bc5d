import { ByteReader, runParser, WherryError } from '@wherry/bytes';
import { decodeDevices, type StreamModel, StreamWalk } from '@wherry/snapshot';
import { type Schema, schemaFromVmdesc } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import { SyntheticStream } from '../../../packages/snapshot/test/synthetic-stream.ts';
import { causeOf } from '../src/explain/catalogue.ts';
import { diagnoseBreak } from '../src/inspect/break-diagnosis.ts';
import { type Diagnosis, diagnose, formatDiagnosis } from '../src/inspect/diagnosis.ts';

function walkWhole(bytes: Uint8Array): StreamModel {
  const walk = new StreamWalk();
  const reader = ByteReader.over(bytes);
  runParser(walk.walkFile(reader), reader);
  return walk.model;
}

function diagnosisOf(bytes: Uint8Array, schemaOf?: Uint8Array): Diagnosis {
  const walk = new StreamWalk();
  const reader = ByteReader.over(bytes);
  const schema: Schema | undefined =
    schemaOf === undefined ? undefined : schemaFromVmdesc(walkWhole(schemaOf).vmdesc!.value!);
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
    const { path } = diagnosisOf(stream.subarray(0, rtc.bodyOffset + 20), stream);
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
