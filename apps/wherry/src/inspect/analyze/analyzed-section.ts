import { ByteReader } from '@wherry/bytes';
import { VmstateError } from '@wherry/vmstate';
import type { PythonValue } from './python-json.ts';

/** An object of the vmdesc as the analyser takes it: members are looked up, nothing is checked before. */
type Described = Readonly<Record<string, unknown>>;

const SUBSECTION = 0x05;
/** More values than any device has: a vmdesc may claim elements that take no bytes. */
const MAX_VALUES = 1 << 20;
const MAX_DEPTH = 64;

const SIGNED: ReadonlySet<unknown> = new Set([
  'int8',
  'int16',
  'int32',
  'int32 equal',
  'int32 le',
  'int64',
  'int64 equal',
  // What the analyser takes for signed, though these types are not.
  'uint8 equal',
  'uint16 equal',
]);
const UNSIGNED: ReadonlySet<unknown> = new Set([
  'uint8',
  'uint16',
  'uint32',
  'uint32 equal',
  'uint64',
]);

/**
 * Decodes a section's body into the values that QEMU's analyser prints for it.
 *
 * @param description the section's entry in the vmdesc
 * @throws VmstateError `VMDESC_MISMATCH`, BytesError `NOT_TEXT`
 * @see QEMU's scripts/analyze-migration.py
 */
export function analyzeSection(
  name: string,
  description: Described,
  body: Uint8Array,
  offset: number,
): PythonValue {
  const reader = ByteReader.over(body, offset);
  const analyzer = new Analyzer(name, reader);
  const state = analyzer.state(description, 0);
  if (reader.available > 0) {
    throw analyzer.mismatch(`${body.length - reader.available} bytes`, `${body.length}`);
  }
  return state;
}

class Analyzer {
  readonly #name: string;
  readonly #reader: ByteReader;
  #values = 0;

  constructor(name: string, reader: ByteReader) {
    this.#name = name;
    this.#reader = reader;
  }

  state(description: Described, depth: number): PythonValue {
    if (depth > MAX_DEPTH) throw this.mismatch(`at most ${MAX_DEPTH} levels`, 'more');
    const values = new Map<string, PythonValue>();
    const repeated = new Map<string, PythonValue[]>();
    const { fields, subsections } = description;
    for (const field of listOf(fields)) {
      const { name, array_len: length } = field;
      const count = typeof length === 'number' ? Math.max(length, 1) : 1;
      for (let i = 0; i < count; i++) {
        const value = this.#field(field, depth);
        const key = `${name}`;
        const list = repeated.get(key);
        if (list !== undefined) {
          list.push(value);
        } else if (values.has(key)) {
          const both = [values.get(key)!, value];
          repeated.set(key, both);
          values.set(key, both);
        } else {
          values.set(key, value);
        }
      }
    }
    for (const subsection of listOf(subsections)) {
      this.#expectRoom(2);
      const marker = this.#reader.u8();
      if (marker !== SUBSECTION) {
        const expected = `subsection ${String(subsection['vmsd_name'])}`;
        throw this.mismatch(expected, `byte 0x${marker.toString(16)}`);
      }
      const length = this.#reader.u8();
      this.#expectRoom(length + 4);
      const key = this.#reader.text(length);
      this.#reader.u32();
      values.set(key, this.state(subsection, depth + 1));
    }
    return values;
  }

  #field(field: Described, depth: number): PythonValue {
    this.#values++;
    if (this.#values > MAX_VALUES) throw this.mismatch(`at most ${MAX_VALUES} values`, 'more');
    const { type, struct, size } = field;
    if (type === 'struct') return this.state(isDescribed(struct) ? struct : {}, depth + 1);
    this.#expectRoom(Number(size));
    const bytes = this.#reader.copy(Number(size));
    if (type === 'bool') return bytes[0] !== 0;
    if (type === 'nullptr') return 'nullptr';
    if (SIGNED.has(type) || UNSIGNED.has(type)) return formatInteger(bytes, SIGNED.has(type));
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
  }

  #expectRoom(bytes: number): void {
    const { available } = this.#reader;
    if (available < bytes) throw this.mismatch(`${bytes} bytes`, `${available} left`);
  }

  mismatch(expected: string, found: string): VmstateError {
    return new VmstateError('VMDESC_MISMATCH', 'A section differs from its description', {
      expected,
      found,
      offset: this.#reader.offset,
      path: [this.#name],
    });
  }
}

function formatInteger(bytes: Uint8Array, isSigned: boolean): string {
  const hex = Buffer.from(bytes).toString('hex');
  if (hex === '') return '0x0';
  const bits = bytes.length * 8;
  const value = isSigned ? BigInt.asIntN(bits, BigInt(`0x${hex}`)) : 0n;
  return value < 0n ? `0x${hex} (${value})` : `0x${hex}`;
}

function listOf(value: unknown): readonly Described[] {
  return Array.isArray(value) ? value.filter(isDescribed) : [];
}

function isDescribed(value: unknown): value is Described {
  return typeof value === 'object' && value !== null;
}
