import { ByteReader, ByteWriter, type Parser, runParser } from '@wherry/bytes';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Command,
  type Configuration,
  RamFlag,
  type RamRecord,
  RamRecordReader,
  type ReturnPathMessage,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readRamList,
  readReturnPathMessage,
  readSectionBody,
  readVmdescLength,
  writeCommand,
  writeConfiguration,
  writeFooter,
  writeHeader,
  writeRamList,
  writeRamWord,
  writeReturnPathMessage,
  writeSectionHead,
  writeVmdesc,
} from '../src/index.ts';

const hex = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/[0-9a-f]{2}/g) ?? [], (b) => Number.parseInt(b, 16));
const bytesOf = (write: (w: ByteWriter) => void): Uint8Array => {
  const writer = new ByteWriter();
  write(writer);
  return writer.finish();
};
const parse = <T>(bytes: Uint8Array, parser: (r: ByteReader) => Parser<T>): T => {
  const reader = ByteReader.over(bytes);
  const value = runParser(parser(reader), reader);
  expect(reader.available).toBe(0);
  return value;
};
/** Feeds one byte at a time. */
const parseSlowly = <T>(bytes: Uint8Array, parser: (r: ByteReader) => Parser<T>): T => {
  const reader = new ByteReader();
  const steps = parser(reader);
  let step = steps.next();
  for (const byte of bytes) {
    if (step.done) break;
    reader.push(Uint8Array.of(byte));
    step = steps.next();
  }
  if (!step.done) {
    reader.finish();
    step = steps.next();
  }
  if (!step.done) throw new Error('the parser wants more than the input has');
  return step.value;
};

/** Gathers a body whole. */
function* readBody(reader: ByteReader, sectionId: number, section: string): Parser<Uint8Array> {
  const pieces: number[] = [];
  yield* readSectionBody(reader, sectionId, section, (piece) => pieces.push(...piece));
  return Uint8Array.from(pieces);
}

const u32 = fc.nat(2 ** 32 - 1);
const size = fc.nat(2 ** 52);
const name = fc.string({ minLength: 1, maxLength: 60, unit: 'grapheme-ascii' });
const arbitraryCommand: fc.Arbitrary<Command> = fc.oneof(
  fc.constantFrom<Command>(
    { name: 'open-return-path' },
    { name: 'postcopy-advise' },
    { name: 'postcopy-listen' },
    { name: 'postcopy-run' },
    { name: 'enable-colo' },
    { name: 'postcopy-resume' },
    { name: 'switchover-start' },
  ),
  fc.record({ name: fc.constant('ping' as const), value: u32 }),
  fc.record({ name: fc.constant('packaged' as const), lengthBytes: u32 }),
  fc.record({ name: fc.constant('recv-bitmap' as const), block: name }),
  fc.record({
    name: fc.constant('postcopy-advise' as const),
    ram: fc.record({
      pageSizesSummary: fc.bigInt(0n, 2n ** 64n - 1n),
      targetPageBytes: fc.constant(4096n),
    }),
  }),
  fc.record({
    name: fc.constant('postcopy-ram-discard' as const),
    block: name,
    ranges: fc.array(fc.record({ start: size, length: size }), { minLength: 1, maxLength: 12 }),
  }),
);
const arbitraryMessage: fc.Arbitrary<ReturnPathMessage> = fc.oneof(
  fc.constant<ReturnPathMessage>({ name: 'switchover-ack' }),
  fc.record({ name: fc.constant('shut' as const), status: u32 }),
  fc.record({ name: fc.constant('pong' as const), value: u32 }),
  fc.record({ name: fc.constant('resume-ack' as const), value: u32 }),
  fc.record({ name: fc.constant('req-pages' as const), start: size, length: u32 }),
  fc.record({ name: fc.constant('req-pages' as const), start: size, length: u32, block: name }),
  fc.record({
    name: fc.constant('recv-bitmap' as const),
    block: name,
    bitmap: fc.uint8Array({ maxLength: 40 }),
  }),
);
const arbitraryConfiguration: fc.Arbitrary<Configuration> = fc.record(
  {
    machineType: name,
    targetPageBits: fc.integer({ min: 10, max: 30 }),
    capabilities: fc.array(name, { minLength: 1, maxLength: 3 }),
    uuid: fc.uint8Array({ minLength: 16, maxLength: 16 }),
  },
  { requiredKeys: ['machineType'] },
);

describe('recorded bytes of QEMU 11.1 (docs/wire)', () => {
  it('begin with header, configuration, commands', () => {
    const wire = hex(
      `51 45 56 4d 00 00 00 03  07 00 00 00 0a 70 63 2d 71 33 35 2d 35 2e 32
       08 00 01 00 00  08 00 02 00 04 00 00 00 01
       08 00 03 00 10 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00
       01 00 00 00 01 03 72 61 6d 00 00 00 00 00 00 00 04`,
    );
    parse(wire, function* (reader) {
      yield* readHeader(reader);
      expect(yield* readConfiguration(reader)).toEqual({ machineType: 'pc-q35-5.2' });
      const commands: Command[] = [];
      for (let i = 0; i < 3; i++) {
        expect(yield* readItem(reader)).toMatchObject({ type: 'command' });
        commands.push(yield* readCommand(reader));
      }
      expect(commands).toEqual([
        { name: 'open-return-path' },
        { name: 'ping', value: 1 },
        { name: 'postcopy-advise', ram: { pageSizesSummary: 4096n, targetPageBytes: 4096n } },
      ]);
      expect(yield* readItem(reader)).toEqual({
        type: 'section',
        offset: 58,
        head: { kind: 'start', sectionId: 1, idstr: 'ram', instanceId: 0, version: 4 },
      });
    });
  });

  it.each<[string, ReturnPathMessage]>([
    ['0002000400000042', { name: 'pong', value: 0x42 }],
    [
      '0003001300000000000050000000100006 70632e72616d',
      { name: 'req-pages', start: 0x5000, length: 4096, block: 'pc.ram' },
    ],
    ['0004000c000000000000600000001000', { name: 'req-pages', start: 0x6000, length: 4096 }],
    ['0001000400000000', { name: 'shut', status: 0 }],
    [
      '0005000706 70632e72616d 0000000000000002 8001 0123456789abcdef',
      { name: 'recv-bitmap', block: 'pc.ram', bitmap: hex('8001') },
    ],
  ])('answer on the return path: %s', (text, message) => {
    expect(parse(hex(text), readReturnPathMessage)).toEqual(message);
    expect(bytesOf((w) => writeReturnPathMessage(w, message))).toEqual(hex(text));
  });

  it('carry capabilities in the configuration', () => {
    const wire = hex(
      `07 0000000a 70632d7133352d352e32 05 1a 636f6e66696775726174696f6e2f6361706162696c6974696573
       00000001 00000001 0f 782d69676e6f72652d736861726564`,
    );
    const configuration = { machineType: 'pc-q35-5.2', capabilities: ['x-ignore-shared'] };
    expect(bytesOf((w) => writeConfiguration(w, configuration))).toEqual(wire);
    expect(
      parse(Uint8Array.of(...wire, 0), function* (reader) {
        const read = yield* readConfiguration(reader);
        reader.skip(1);
        return read;
      }),
    ).toEqual(configuration);
  });
});

describe('what is written is read again, byte by byte, and every truncation is refused', () => {
  const check = <T>(
    wire: Uint8Array,
    parser: (r: ByteReader) => Parser<T>,
    value: T,
    cut: number,
  ): void => {
    expect(parseSlowly(wire, parser)).toEqual(value);
    expect(() => parseSlowly(wire.subarray(0, cut % wire.length), parser)).toThrow(
      expect.objectContaining({ code: 'UNEXPECTED_END' }),
    );
  };
  it('commands', () => {
    fc.assert(
      fc.property(arbitraryCommand, fc.nat(), (command, cut) => {
        check(bytesOf((w) => writeCommand(w, command)).subarray(1), readCommand, command, cut);
      }),
    );
  });
  it('return-path messages', () => {
    fc.assert(
      fc.property(arbitraryMessage, fc.nat(), (message, cut) => {
        check(
          bytesOf((w) => writeReturnPathMessage(w, message)),
          readReturnPathMessage,
          message,
          cut,
        );
      }),
    );
  });
  it('configurations', () => {
    fc.assert(
      fc.property(arbitraryConfiguration, fc.nat(), (configuration, cut) => {
        const wire = bytesOf((w) => writeConfiguration(w, configuration));
        expect(parseSlowly(Uint8Array.of(...wire, 0), readConfiguration)).toEqual(configuration);
        expect(() => parseSlowly(wire.subarray(0, cut % wire.length), readConfiguration)).toThrow(
          expect.objectContaining({ code: 'UNEXPECTED_END' }),
        );
      }),
    );
  });
  it('RAM lists', () => {
    const entries = fc.uniqueArray(
      fc.record({
        name,
        usedBytes: fc.nat(1000).map((n) => (n + 1) * 4096),
        pageBytes: fc.constantFrom(undefined, 2097152),
      }),
      { minLength: 1, maxLength: 5, selector: (e) => e.name },
    );
    fc.assert(
      fc.property(entries, fc.nat(), (list, cut) => {
        const written = list.map(({ pageBytes, ...e }) =>
          pageBytes === undefined ? e : { ...e, pageBytes },
        );
        const wire = bytesOf((w) => {
          writeRamList(w, written);
          writeRamWord(w, 0, RamFlag.eos);
        });
        const parser = function* (reader: ByteReader) {
          const record = yield* new RamRecordReader().read(reader);
          if (record.kind !== 'mem-size') throw new Error(`unexpected ${record.kind}`);
          const found = yield* readRamList(reader, record.totalBytes, { advised: true });
          expect((yield* new RamRecordReader().read(reader)).kind).toBe('eos');
          return found;
        };
        check(wire, parser, written, cut);
      }),
    );
  });
});

describe('a section of a device that nobody knows', () => {
  it('ends at its own footer, whatever its bytes', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 100 }),
        fc.nat(4),
        fc.boolean(),
        (noise, next, last) => {
          // Bytes that look like another section's footer, or like this one's with nothing behind it.
          const body = bytesOf((w) =>
            w
              .raw(noise.map((b) => b & 0x7f))
              .u8(0x7e)
              .u32(6)
              .u8(0x7e)
              .u32(5)
              .u8(0xee),
          );
          const wire = bytesOf((w) => {
            w.raw(body);
            writeFooter(w, 5);
            if (!last) w.u8(next);
          });
          expect(parseSlowly(wire, (r) => readBody(r, 5, 'x'))).toEqual(body);
        },
      ),
    );
  });
  it.each([
    ['zeros, as a timer has', [0, 0, 0, 0, 0, 0, 0, 0]],
    ['the type of a section and no name', [4, 0, 0, 0, 1, 0, 9, 9]],
    ['the type of a section and no text', [4, 0, 0, 0, 1, 2, 0x61, 9]],
    ['the type of a command that nobody has', [8, 0xff, 1, 2]],
  ])('goes on behind what looks like its footer and %s', (_, behind) => {
    const body = bytesOf((w) => {
      w.u8(1);
      writeFooter(w, 0);
      w.raw(Uint8Array.from(behind));
    });
    const wire = bytesOf((w) => {
      w.raw(body);
      writeFooter(w, 0);
      writeSectionHead(w, { kind: 'full', sectionId: 1, idstr: 'dev', instanceId: 0, version: 1 });
    });
    expect(parseSlowly(wire, (r) => readBody(r, 0, 'timer'))).toEqual(body);
  });

  it('may be the last of a stream: the reader says so while it waits for the end', () => {
    const reader = new ByteReader();
    reader.push(
      bytesOf((w) => {
        w.u8(1);
        writeFooter(w, 5);
        w.u8(0);
      }),
    );
    const body = readBody(reader, 5, 'dev');
    expect(body.next().done).toBe(false);
    expect(reader.mayBeOver).toBe(true);
    reader.finish();
    expect(body.next()).toEqual({ done: true, value: Uint8Array.of(1) });
    expect(reader.mayBeOver).toBe(false);
  });

  it('that looks like nothing but footers is read in one go', () => {
    const wire = new Uint8Array(8 << 20).fill(0x7e);
    const reader = ByteReader.over(wire);
    const body = readSectionBody(reader, 5, 'dev', () => {});
    expect(() => runParser(body, reader)).toThrow(
      expect.objectContaining({ code: 'FOOTER_MISSING' }),
    );
  });
  it('is refused when it has none', () => {
    expect(() => parseSlowly(new Uint8Array(50), (r) => readBody(r, 5, 'dev'))).toThrow(
      /expected a footer with section id 5, found the end after 50 bytes of the section, at offset 0x32 \(50\), in dev/,
    );
  });
});

describe('RAM records', () => {
  const read = (bytes: Uint8Array): RamRecord => parse(bytes, (r) => new RamRecordReader().read(r));
  it('name their block once and continue it across sections', () => {
    const records = new RamRecordReader();
    const wire = bytesOf((w) => {
      writeRamWord(w, 0x5000, RamFlag.page);
      w.counted('pc.ram');
      writeRamWord(w, 0x6000, RamFlag.zero | RamFlag.continue);
    });
    parse(wire, function* (reader) {
      expect(yield* records.read(reader)).toMatchObject({
        kind: 'page',
        block: 'pc.ram',
        pageOffset: 0x5000,
        dataBytes: 4096,
      });
      expect(yield* records.read(reader)).toMatchObject({
        kind: 'zero',
        block: 'pc.ram',
        pageOffset: 0x6000,
        dataBytes: 1,
      });
    });
  });
  it.each([
    ['a continuation of nothing', 0x28, /a record that continues no other/],
    ['the obsolete FULL flag', 0x01, /flags 0x1/],
    ['two kinds at once', 0x0a, /flags 0xa/],
    ['no kind', 0x00, /flags 0x0/],
  ])('are refused with %s', (_, flags, message) => {
    expect(() => read(bytesOf((w) => writeRamWord(w, 0x1000, flags)))).toThrow(message);
  });
  it('check their lengths', () => {
    const xbzrle = bytesOf((w) => writeRamWord(w, 0, RamFlag.xbzrle));
    expect(() => read(Uint8Array.of(...xbzrle, 1, 0x61, 1, 0x10, 1))).toThrow(
      /encoding 1 of 4097 bytes/,
    );
    const compressed = bytesOf((w) => {
      writeRamWord(w, 0, RamFlag.compressPage);
      w.counted('a').u32(0xffffffff);
    });
    expect(() => read(compressed)).toThrow(
      /found 4294967295 bytes, at offset 0x0 \(0\), in ram > a/,
    );
  });
});

describe('what breaks the grammar is refused with offset, expectation and cause', () => {
  it.each<[string, string, (r: ByteReader) => Parser<unknown>, string, RegExp]>([
    ['another magic', '4c696276 00000001', readHeader, 'NOT_A_STREAM', /libvirt save image/],
    [
      'an old version',
      '5145564d 00000002',
      readHeader,
      'VERSION_UNSUPPORTED',
      /expected 3, found 2, at offset 0x4/,
    ],
    [
      'no configuration',
      '0100000001',
      readConfiguration,
      'CONFIGURATION_MISSING',
      /send-configuration=off/,
    ],
    ['a huge name', '07ffffffff', readConfiguration, 'CONFIGURATION_INVALID', /4294967295 bytes/],
    [
      'an unknown section type',
      '2a',
      readItem,
      'SECTION_TYPE_UNKNOWN',
      /found 0x2a, at offset 0x0/,
    ],
    ['an unknown command', '000c0000', readCommand, 'COMMAND_UNKNOWN', /0xc with 0 bytes/],
    [
      'a command of a wrong length',
      '0002000500000000',
      readCommand,
      'COMMAND_INVALID',
      /expected 4 bytes of payload, found 5/,
    ],
    ['a short discard', '00060004 00016100', readCommand, 'COMMAND_INVALID', /at least 19 bytes/],
    [
      'a ragged discard',
      `00060015 000161 00${'00'.repeat(17)}`,
      readCommand,
      'COMMAND_INVALID',
      /whole ranges of 16 bytes/,
    ],
    ['an unknown message', '00090000', readReturnPathMessage, 'RETURN_PATH_INVALID', /type 9/],
    [
      'a long message',
      '0001ffff',
      readReturnPathMessage,
      'RETURN_PATH_INVALID',
      /at most 512 bytes/,
    ],
    [
      'a huge bitmap',
      '00050002 0161 0000ffffffffffff',
      readReturnPathMessage,
      'RETURN_PATH_INVALID',
      /a bitmap of at most/,
    ],
    ['a huge vmdesc', '06ffffffff', readVmdescLength, 'SECTION_TOO_LARGE', /vmdesc/],
    ['no footer', '00', (r) => readFooter(r, 3, 'serial'), 'FOOTER_MISSING', /in serial/],
    [
      'another footer',
      '7e00000004',
      (r) => readFooter(r, 3, 'serial'),
      'FOOTER_MISMATCH',
      /section id 3, found 4/,
    ],
    [
      'a list that does not add up',
      '0161 0000000000002000',
      (r) => readRamList(r, 4096, {}),
      'RAM_LIST_INVALID',
      /what is left of the total/,
    ],
  ])('%s', (_, text, parser, code, message) => {
    const run = () => parseSlowly(hex(text), parser);
    expect(run).toThrow(expect.objectContaining({ code }));
    expect(run).toThrow(message);
  });

  it('never runs away on noise', () => {
    const any = function* (reader: ByteReader): Parser<void> {
      for (;;) {
        const item = yield* readItem(reader);
        if (item.type === 'command') yield* readCommand(reader);
        else if (item.type === 'section') yield* readBody(reader, item.head.sectionId, 'x');
      }
    };
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (noise) => {
        const reader = ByteReader.over(noise);
        expect(() => runParser(any(reader), reader)).toThrow(
          expect.objectContaining({ offset: expect.any(Number) }),
        );
      }),
    );
  });
});

it('the end carries its vmdesc', () => {
  const wire = bytesOf((w) => {
    writeHeader(w);
    writeSectionHead(w, { kind: 'end', sectionId: 2 });
    writeFooter(w, 2);
    w.u8(0);
    writeVmdesc(w, '{"a":1}');
  });
  parse(wire, function* (reader) {
    yield* readHeader(reader);
    expect(yield* readItem(reader)).toMatchObject({ head: { kind: 'end', sectionId: 2 } });
    yield* readFooter(reader, 2, 'ram');
    expect(yield* readItem(reader)).toEqual({ type: 'eof', offset: 18 });
    const length = yield* readVmdescLength(reader);
    expect(reader.text(length!)).toBe('{"a":1}');
    expect(yield* readVmdescLength(reader)).toBeUndefined();
  });
});
