import { ByteReader, collect, type Parser } from '@wherry/bytes';
import type { SectionHead } from '@wherry/stream';
import type { Device } from '@wherry/vmstate';
import type { IncomingSection } from './incoming-sections.ts';
import { MigrationError } from './migration-error.ts';

/** Device state beyond it is not believed. */
const MAX_PACKAGE_BYTES = 256 * 1024 * 1024;

/**
 * Collects a package whole: what is in it runs with nothing left to wait for.
 *
 * @param offset of the command in the stream
 * @returns its bytes, with their offsets in the stream
 * @throws MigrationError `COMMAND_UNEXPECTED`
 * @see loadvm_handle_cmd_packaged in QEMU's migration/savevm.c
 */
export function* readPackage(
  reader: ByteReader,
  lengthBytes: number,
  offset: number,
): Parser<ByteReader> {
  if (lengthBytes === 0 || lengthBytes > MAX_PACKAGE_BYTES) {
    throw new MigrationError('COMMAND_UNEXPECTED', 'A package of device state has no usable size', {
      expected: `1 to ${MAX_PACKAGE_BYTES} bytes`,
      found: `${lengthBytes}`,
      offset,
      path: ['command packaged'],
    });
  }
  const start = reader.offset;
  return ByteReader.over(yield* collect(reader, lengthBytes), start);
}

/** Gives the device of a package's section; others have no place there. @throws MigrationError `SECTION_UNKNOWN` */
export function packagedDevice(
  { kind }: SectionHead,
  { start, device }: IncomingSection,
  offset: number,
): Device {
  if (kind === 'full' && typeof device !== 'string') return device;
  throw new MigrationError('SECTION_UNKNOWN', 'A package holds a section that is not a device’s', {
    expected: 'FULL sections of devices',
    found: `${kind} of ${start.idstr}`,
    offset,
  });
}
