import type { ByteWriter } from '@wherry/bytes';
import { NULL_POINTER, type StateValue, VALID_POINTER } from './state-node.ts';

/** How the values of one type and size are read and written; all are big-endian. */
export interface Leaf {
  /** What a value may be, for messages. */
  readonly range: string;
  read(view: DataView, at: number): StateValue;
  write(writer: ByteWriter, value: StateValue): void;
  accepts(value: StateValue): boolean;
}

function integer(bits: 8 | 16 | 32, isSigned: boolean): Leaf {
  const [min, max] = isSigned ? [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] : [0, 2 ** bits - 1];
  const method = `get${isSigned ? 'Int' : 'Uint'}${bits}` as 'getUint32';
  const put = `u${bits}` as 'u32';
  return {
    range: `an integer from ${min} to ${max}`,
    read: (view, at) => view[method](at),
    write: (writer, value) => writer[put](value as number),
    accepts: (value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max,
  };
}

function integer64(isSigned: boolean): Leaf {
  const [min, max] = isSigned ? [-(2n ** 63n), 2n ** 63n - 1n] : [0n, 2n ** 64n - 1n];
  return {
    range: `a bigint from ${min} to ${max}`,
    read: isSigned ? (view, at) => view.getBigInt64(at) : (view, at) => view.getBigUint64(at),
    write: (writer, value) => writer.u64(value as bigint),
    accepts: (value) => typeof value === 'bigint' && value >= min && value <= max,
  };
}

const boolean: Leaf = {
  range: 'true or false',
  read(view, at) {
    const byte = view.getUint8(at);
    // QEMU sends no other byte; one that it never sends must not change when it is written again.
    return byte <= 1 ? byte === 1 : bytesAt(view, at, 1);
  },
  write: (writer, value) => writer.u8(value === true ? 1 : 0),
  accepts: (value) => typeof value === 'boolean',
};

const float64: Leaf = {
  range: 'a number',
  read(view, at) {
    const value = view.getFloat64(at);
    return Number.isNaN(value) ? bytesAt(view, at, 8) : value; // a number cannot tell one NaN from another
  },
  write(writer, value) {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value as number);
    writer.raw(bytes);
  },
  accepts: (value) => typeof value === 'number',
};

const unsigned: Readonly<Record<number, Leaf>> = {
  1: integer(8, false),
  2: integer(16, false),
  4: integer(32, false),
  8: integer64(false),
};
const signed: Readonly<Record<number, Leaf>> = {
  1: integer(8, true),
  2: integer(16, true),
  4: integer(32, true),
  8: integer64(true),
};

/** @see the `name` of each VMStateInfo in QEMU's migration/vmstate-types.c */
const leaves: ReadonlyMap<string, Readonly<Record<number, Leaf>>> = new Map([
  ['bool', { 1: boolean }],
  ['float64', { 8: float64 }],
  ['CPU_Double_U', { 8: float64 }], // its high word comes first, so it is a double in wire order
  ...['uint8', 'uint8 equal', 'uint16', 'uint16 equal', 'uint32', 'uint32 equal', 'uint64'].map(
    (type) => [type, unsigned] as const,
  ),
  ['uint64 equal', unsigned],
  ...['int8', 'int16', 'int32', 'int32 equal', 'int32 le', 'int64', 'timer'].map(
    (type) => [type, signed] as const,
  ),
  ['int64 equal', signed], // also what QEMU calls its check of an unsigned 64-bit value
]);

/** Gives the reader of a type, or nothing where its bytes are all that is known of it. */
export function leafOf(type: string, size: number): Leaf | undefined {
  return leaves.get(type)?.[size];
}

/** Says what is wrong with bytes that QEMU never sends as this type; nothing where it may. */
export function implausible(type: string, bytes: Uint8Array): string | undefined {
  const [first = -1] = bytes;
  switch (type) {
    case 'nullptr':
      return bytes.length === 1 && first !== NULL_POINTER ? `byte ${first}` : undefined;
    case 'ptr-marker':
      return bytes.length === 1 && first !== NULL_POINTER && first !== VALID_POINTER
        ? `byte ${first}`
        : undefined;
    default:
      return undefined;
  }
}

/** Whether {@link unlikely} may find something in bytes of this type. */
export function isChecked(type: string): boolean {
  return ['bool', 'unused_buffer', 'nullptr', 'ptr-marker'].includes(type);
}

/** Says what {@link implausible} does, and more that a well-formed stream of another machine could hold. */
export function unlikely(type: string, bytes: Uint8Array): string | undefined {
  switch (type) {
    case 'bool':
      return bytes.length === 1 && bytes[0]! > 1 ? `byte ${bytes[0]}` : undefined;
    case 'unused_buffer':
      return bytes.some((byte) => byte !== 0) ? 'a byte that is not zero' : undefined;
    default:
      return implausible(type, bytes);
  }
}

function bytesAt(view: DataView, at: number, length: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + at, length);
}
