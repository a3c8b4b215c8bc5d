import { QmpError } from './qmp-error.ts';

/**
 * Marks a number that was written as a float though its value is whole (`1.0`, `1e3`), or that is
 * beyond 64 bits. QEMU does not accept those where an integer is expected.
 */
export class JsonDouble {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/**
 * Reads the digits of an integer token: a `number` when it is exact, a `bigint` up to 64 bits.
 *
 * @see QEMU qobject/json-parser.c parse_literal
 */
export function readInteger(text: string): number | bigint | JsonDouble {
  if (text.length <= 15) return Number(text) || 0; // no -0 among integers
  if (text.length > 20) return new JsonDouble(Number(text));
  const value = BigInt(text);
  if (value >= -0x8000_0000_0000_0000n && value <= 0xffff_ffff_ffff_ffffn) return narrow(value);
  return new JsonDouble(Number(text));
}

/** Turns a bigint into a number where no digit is lost. */
export function narrow(value: bigint): number | bigint {
  const asNumber = Number(value);
  return Number.isSafeInteger(asNumber) ? asNumber : value;
}

/** Reads a float token; marks it where the value alone would look like an integer. */
export function readFloat(text: string): number | JsonDouble {
  const value = Number(text);
  return Number.isInteger(value) || !Number.isFinite(value) ? new JsonDouble(value) : value;
}

/** Copies a value with every {@link JsonDouble} replaced by its number. */
export function withoutDoubles(value: unknown): unknown {
  if (value instanceof JsonDouble) return value.value;
  if (Array.isArray(value)) return value.map(withoutDoubles);
  if (typeof value !== 'object' || value === null) return value;
  const copy: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value)) setMember(copy, key, withoutDoubles(member));
  return copy;
}

/** Sets an own member, whatever its name: a plain assignment to `__proto__` would not. */
export function setMember(target: Record<string, unknown>, key: string, value: unknown): void {
  if (key === '__proto__') {
    Object.defineProperty(target, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  } else {
    target[key] = value;
  }
}

/** Tells whether a parsed value is a JSON object. */
export function isJsonObject(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    !(value instanceof JsonDouble)
  );
}

const MAX_DEPTH = 1100;

function quote(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0')}`,
  );
}

function numberText(value: number): string {
  if (Number.isNaN(value)) throw new QmpError('NOT_JSON', 'NaN has no JSON form');
  // Out of a double's range on purpose: valid JSON that reads back as infinity.
  if (!Number.isFinite(value)) return value > 0 ? '1e999' : '-1e999';
  return String(value);
}

function write(value: unknown, depth: number): string {
  if (depth > MAX_DEPTH) throw new QmpError('NOT_JSON', 'a value is nested too deep for JSON');
  switch (typeof value) {
    case 'string':
      return quote(value);
    case 'number':
      return numberText(value);
    case 'bigint':
    case 'boolean':
      return String(value);
    case 'object': {
      if (value === null) return 'null';
      if (value instanceof JsonDouble) return numberText(value.value);
      if (Array.isArray(value)) {
        return `[${value.map((element) => write(element, depth + 1)).join(', ')}]`;
      }
      const members: string[] = [];
      for (const [key, member] of Object.entries(value)) {
        if (member !== undefined) members.push(`${quote(key)}: ${write(member, depth + 1)}`);
      }
      return `{${members.join(', ')}}`;
    }
    default:
      throw new QmpError('NOT_JSON', `a ${typeof value} has no JSON form`);
  }
}

/**
 * Writes a value as QEMU writes JSON: ASCII only, `, ` and `: ` as separators, members that are
 * `undefined` left out, a `bigint` as plain digits.
 *
 * @throws QmpError `NOT_JSON` for NaN, functions, symbols and cycles
 */
export function toJsonText(value: unknown): string {
  return write(value, 0);
}
