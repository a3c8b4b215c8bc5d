import { VmstateError } from './vmstate-error.ts';

/** One field as a vmdesc describes it: `size` is the bytes of one element. */
export interface VmdescField {
  readonly name: string;
  readonly array_len?: number;
  readonly index?: number;
  readonly type: string;
  readonly struct?: VmdescState;
  readonly size: number;
  readonly [key: string]: unknown;
}

/** A description with the fields and subsections that were sent. */
export interface VmdescState {
  readonly vmsd_name: string;
  readonly version: number;
  readonly fields: readonly VmdescField[];
  readonly subsections?: readonly VmdescState[];
}

/** A device section as a vmdesc describes it; `size` instead of a description for old-style sections. */
export interface VmdescDevice extends Partial<VmdescState> {
  readonly name: string;
  readonly instance_id: number;
  readonly size?: number;
}

/** The JSON that follows a stream's end and describes every FULL section in it, in order. */
export interface Vmdesc {
  readonly configuration?: VmdescState;
  readonly page_size: number;
  readonly devices: readonly VmdescDevice[];
}

/** No device has so long an array; a false one would be walked in vain where its elements have no bytes. */
const MAX_ARRAY_ELEMENTS = 1 << 24;

/**
 * Parses a vmdesc and checks its shape.
 *
 * @param offset absolute offset of the text in its stream, for messages
 * @throws VmstateError `VMDESC_INVALID`
 */
export function parseVmdesc(text: string, offset = 0): Vmdesc {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid('JSON', cause instanceof Error ? cause.message : String(cause), offset);
  }
  if (!isObject(value)) throw invalid('an object', typeof value, offset);
  const { page_size: pageSize, devices, configuration } = value;
  if (typeof pageSize !== 'number') throw invalid("a number 'page_size'", typeof pageSize, offset);
  if (!Array.isArray(devices)) throw invalid("an array 'devices'", typeof devices, offset);
  for (const device of devices) {
    if (!isObject(device)) throw invalid('an object for each device', typeof device, offset);
    if (typeof device['name'] !== 'string' || typeof device['instance_id'] !== 'number') {
      throw invalid(
        "'name' and 'instance_id' for each device",
        JSON.stringify(device).slice(0, 80),
        offset,
      );
    }
    if (typeof device['size'] !== 'number' || Array.isArray(device['subsections'])) {
      checkState(device, device['name'], offset, 0);
    }
  }
  if (configuration !== undefined) checkState(configuration, 'configuration', offset, 0);
  return value as unknown as Vmdesc;
}

function checkState(value: unknown, where: string, offset: number, depth: number): void {
  if (depth > 32) throw invalid('at most 32 nested descriptions', where, offset);
  if (!isObject(value)) throw invalid(`an object for ${where}`, typeof value, offset);
  // Sections without any field have no list in some releases.
  for (const field of listOf(value, 'fields', where, offset)) {
    if (!isObject(field) || typeof field['name'] !== 'string' || !isCount(field['size'])) {
      throw invalid(
        `'name' and 'size' for each field of ${where}`,
        JSON.stringify(field)?.slice(0, 80) ?? 'nothing',
        offset,
      );
    }
    if (!isArrayLength(field['array_len'])) {
      throw invalid(
        `a usable 'array_len' for ${where}.${field['name']}`,
        String(field['array_len']),
        offset,
      );
    }
    if (field['struct'] !== undefined) {
      checkState(field['struct'], `${where}.${field['name']}`, offset, depth + 1);
    }
  }
  for (const subsection of listOf(value, 'subsections', where, offset)) {
    if (!isObject(subsection) || typeof subsection['vmsd_name'] !== 'string') {
      throw invalid(`'vmsd_name' for each subsection of ${where}`, typeof subsection, offset);
    }
    checkState(subsection, subsection['vmsd_name'], offset, depth + 1);
  }
}

function listOf(
  value: Record<string, unknown>,
  key: string,
  where: string,
  offset: number,
): readonly unknown[] {
  const list = value[key] ?? [];
  if (!Array.isArray(list)) throw invalid(`an array '${key}' in ${where}`, typeof list, offset);
  return list;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isArrayLength(value: unknown): boolean {
  return value === undefined || (isCount(value) && value <= MAX_ARRAY_ELEMENTS);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 32;
}

function invalid(expected: string, found: string, offset: number): VmstateError {
  return new VmstateError('VMDESC_INVALID', 'The description of the device state is not usable', {
    expected,
    found,
    offset,
    path: ['vmdesc'],
    likely: 'The stream is damaged near its end, or something other than QEMU wrote it',
  });
}
