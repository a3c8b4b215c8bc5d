import type { StateNode } from '@wherry/vmstate';

const SHOWN_BYTES = 16;
const MIN_TEXT_CHARS = 3;

/** Names of what is read bit by bit, or is an address or register: hexadecimal. */
const HEX_NAME =
  /(addr|base|flag|mask|feature|reg|msr|ctl|ctrl|stat|config|cfg|cmd|comm|isr|imr|irr|tmr|icr|lvt|magic|ptr|desc|avail|used|guest|gpa|desc|efer|crc|select|segment|rip|rsp|eip|eflags|limit|vec|pba|bar|bits|conf|int_|intr|irq|signature|offset|^(cr|dr|xcr|r|mr|k|x)\d+$|^0x|_hi$|_lo$|_h$|_l$|^env\.)/i;
/** Names of what is counted: decimal. */
const DECIMAL_NAME =
  /(count|num|nr_|len|size|index|idx|version|year|month|day|hour|minute|second|depth|pages|entries|sectors|heads|cylinders|queues|width|height|stride|rate|freq|level|slot|ticks|^n_|^nb_|^n[A-Z]|pos$)/i;

/** Writes a value in the form that suits it: flags and addresses in hexadecimal, counts in decimal, text as text. */
export function formatValue(node: StateNode): string {
  const { value, type, name } = node;
  if (value === undefined) return '';
  if (value instanceof Uint8Array) return formatBuffer(value);
  if (typeof value === 'boolean') return `${value}`;
  if (type === 'timer') return BigInt(value) === -1n ? 'not armed' : formatTime(value);
  const magnitude = value < 0 ? -value : value;
  if (magnitude < 10) return `${value}`;
  const hex = `${value < 0 ? '-' : ''}0x${magnitude.toString(16)}`;
  if (DECIMAL_NAME.test(name)) return `${value}`;
  return HEX_NAME.test(name) ? hex : `${value} (${hex})`;
}

/** Writes nanoseconds of the guest's clock. */
function formatTime(ns: number | bigint): string {
  const text = `${ns}`.padStart(10, '0');
  return `${text.slice(0, -9)}.${text.slice(-9)} s`;
}

function formatBuffer(bytes: Uint8Array): string {
  const { length } = bytes;
  if (length === 0) return 'no bytes';
  if (length > 1 && isZeroBytes(bytes)) return `zero × ${length}`;
  const text = textIn(bytes);
  if (text !== undefined) return JSON.stringify(text);
  const hex = Array.from(bytes.subarray(0, SHOWN_BYTES), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join(' ');
  return length <= SHOWN_BYTES ? hex : `${hex} … (${length} bytes)`;
}

/** Finds printable ASCII that only zeros follow. */
function textIn(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  const length = end < 0 ? bytes.length : end;
  if (length < MIN_TEXT_CHARS || length > 256) return undefined;
  if (bytes.subarray(0, length).some((byte) => byte < 0x20 || byte > 0x7e)) return undefined;
  return isZeroBytes(bytes.subarray(length))
    ? String.fromCharCode(...bytes.subarray(0, length))
    : undefined;
}

/** Tells whether a node holds nothing but zeros; subsections count as something. */
export function isZero(node: StateNode): boolean {
  const { value, children } = node;
  if (children !== undefined) {
    return node.type !== 'subsection' && children.every((child) => isZero(child));
  }
  if (value instanceof Uint8Array) return isZeroBytes(value);
  return value === undefined || value === false || value === 0 || value === 0n;
}

function isZeroBytes(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
