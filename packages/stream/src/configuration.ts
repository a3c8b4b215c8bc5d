import { type ByteReader, type ByteWriter, counted, need, type Parser } from '@wherry/bytes';
import { SectionType } from './sections.ts';
import { StreamError } from './stream-error.ts';

/** What the configuration section says about the sender. */
export interface Configuration {
  readonly machineType: string;
  /** Bits of a target page, where the sender states them. */
  readonly targetPageBits?: number;
  /** Names of those capabilities that both sides must agree on. */
  readonly capabilities?: readonly string[];
  /** 16 bytes, when validate-uuid is on. */
  readonly uuid?: Uint8Array;
}

const MAX_NAME_BYTES = 1024;
const MAX_CAPABILITIES = 256;

/**
 * Reads the configuration section that follows the header, with its subsections.
 *
 * @throws StreamError `CONFIGURATION_MISSING`, `CONFIGURATION_INVALID`
 * @see vmstate_configuration in QEMU's migration/savevm.c
 */
export function* readConfiguration(reader: ByteReader): Parser<Configuration> {
  yield* need(reader, 5);
  const { offset } = reader;
  const type = reader.u8();
  if (type !== SectionType.configuration) {
    throw new StreamError('CONFIGURATION_MISSING', 'The configuration section is missing', {
      expected: '0x07',
      found: `0x${type.toString(16).padStart(2, '0')}`,
      offset,
      path: ['configuration'],
      likely: 'The sender runs with -global migration.send-configuration=off, or is older than 2.4',
    });
  }
  const length = reader.u32();
  if (length > MAX_NAME_BYTES) throw invalid('a machine type name', `${length} bytes`, offset + 1);
  yield* need(reader, length);
  let configuration: Configuration = { machineType: reader.text(length) };
  for (;;) {
    yield* need(reader, 1);
    if (reader.peekU8() !== SectionType.subsection) return configuration;
    const at = reader.offset;
    reader.skip(1);
    const name = yield* counted(reader);
    yield* need(reader, 4);
    const version = reader.u32();
    if (version !== 1) throw invalid('version 1', `version ${version} of ${name}`, at);
    configuration = { ...configuration, ...(yield* readSubsection(reader, name, at)) };
  }
}

function* readSubsection(
  reader: ByteReader,
  name: string,
  offset: number,
): Parser<Partial<Configuration>> {
  switch (name) {
    case 'configuration/target-page-bits': {
      yield* need(reader, 4);
      const bits = reader.u32();
      if (bits < 10 || bits > 30) throw invalid('10 to 30 target page bits', `${bits}`, offset);
      return { targetPageBits: bits };
    }
    case 'configuration/capabilities': {
      yield* need(reader, 4);
      const count = reader.u32();
      if (count > MAX_CAPABILITIES) {
        throw invalid(`at most ${MAX_CAPABILITIES} capabilities`, `${count}`, offset);
      }
      const capabilities: string[] = [];
      for (let i = 0; i < count; i++) capabilities.push(yield* counted(reader));
      return { capabilities };
    }
    case 'configuration/uuid':
      yield* need(reader, 16);
      return { uuid: reader.copy(16) };
    default:
      throw invalid('a known subsection', name, offset);
  }
}

/** Writes the configuration section. */
export function writeConfiguration(writer: ByteWriter, configuration: Configuration): void {
  const { machineType, targetPageBits, capabilities, uuid } = configuration;
  const subsection = (name: string): ByteWriter =>
    writer.u8(SectionType.subsection).counted(`configuration/${name}`).u32(1);
  const at = writer.u8(SectionType.configuration).u32(0).length;
  writer.text(machineType).patchU32(at - 4, writer.length - at);
  if (targetPageBits !== undefined) subsection('target-page-bits').u32(targetPageBits);
  if (capabilities !== undefined && capabilities.length > 0) {
    subsection('capabilities').u32(capabilities.length);
    for (const name of capabilities) writer.counted(name);
  }
  if (uuid !== undefined) subsection('uuid').raw(uuid);
}

function invalid(expected: string, found: string, offset: number): StreamError {
  return new StreamError('CONFIGURATION_INVALID', 'The configuration section is not usable', {
    expected,
    found,
    offset,
    path: ['configuration'],
    likely: 'The sender is a newer release, or the stream is damaged near its beginning',
  });
}
