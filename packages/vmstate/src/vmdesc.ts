import { parseRepeatingJson } from './vmdesc-json.ts';
import { VmstateError } from './vmstate-error.ts';

/**
 * One field as a vmdesc describes it: `size` is the bytes of one element. A `tmp`, a `vstruct` and a
 * list (`qtailq`, `qlist`, `gtree`) of one element have the description of their inside among their
 * own members; a list of more has one in `elements` for each that was sent.
 */
export interface VmdescField {
  readonly name: string;
  readonly array_len?: number;
  readonly index?: number;
  readonly type: string;
  readonly struct?: VmdescState;
  readonly elements?: readonly VmdescState[];
  readonly size: number;
  readonly [key: string]: unknown;
}

/** Gives the descriptions of what is inside a field that has no `struct`: of a list, one an element sent. */
export function innerStates(field: VmdescField): readonly VmdescState[] {
  if (field.elements !== undefined) return field.elements;
  return typeof field['vmsd_name'] === 'string' ? [field as unknown as VmdescState] : [];
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

/** A real machine's text has some hundred KiB. */
const MAX_TEXT_CHARACTERS = 64 * 1024 * 1024;

/** Where one of these is, QEMU repeats members of one object, of which `JSON.parse` keeps the last. */
const LIST_TYPE = /"type"\s*:\s*"(?:qtailq|qlist|gtree)"/;

/** No device has so long an array; a false one would be walked in vain where its elements have no bytes. */
const MAX_ARRAY_ELEMENTS = 1 << 24;

/**
 * Parses a vmdesc and checks its shape.
 *
 * @param offset absolute offset of the text in its stream, for messages
 * @throws VmstateError `VMDESC_INVALID`
 */
export function parseVmdesc(text: string, offset = 0): Vmdesc {
  if (text.length > MAX_TEXT_CHARACTERS) {
    throw invalid(`at most ${MAX_TEXT_CHARACTERS} characters`, `${text.length}`, offset);
  }
  let value: unknown;
  try {
    value = LIST_TYPE.test(text) ? parseRepeatingJson(text) : JSON.parse(text);
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
  const { vmsd_name: name, version } = value;
  if (name !== undefined && typeof name !== 'string') {
    throw invalid(`a text 'vmsd_name' in ${where}`, typeof name, offset);
  }
  if (version !== undefined && !Number.isSafeInteger(version)) {
    throw invalid(`a number 'version' in ${where}`, String(version), offset);
  }
  // Sections without any field have no list in some releases.
  for (const field of listOf(value, 'fields', where, offset)) {
    if (
      !isObject(field) ||
      typeof field['name'] !== 'string' ||
      typeof field['type'] !== 'string' ||
      !isCount(field['size'])
    ) {
      throw invalid(
        `'name', 'type' and 'size' for each field of ${where}`,
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
    const inner = `${where}.${field['name']}`;
    if (field['struct'] !== undefined) checkState(field['struct'], inner, offset, depth + 1);
    for (const element of listOf(field, 'elements', inner, offset)) {
      checkState(element, inner, offset, depth + 1);
    }
    if (field['vmsd_name'] !== undefined) checkState(field, inner, offset, depth + 1);
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
