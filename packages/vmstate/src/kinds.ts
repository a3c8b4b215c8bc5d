import type { ByteReader, ByteWriter } from '@wherry/bytes';
import type { FixedKind, InlineCode, LoadContext } from './kind.ts';
import { VmstateError } from './vmstate-error.ts';

function scalar<T>(
  type: string,
  fixedBytes: number,
  put: (writer: ByteWriter, value: T) => void,
  load: (reader: ByteReader) => T,
  inline: InlineCode,
): FixedKind<T> {
  return {
    type,
    fixedBytes,
    save(writer, value) {
      put(writer, value);
      return undefined;
    },
    load,
    inline,
  };
}

/** One byte, 0 or 1. */
export const bool: FixedKind<boolean> = scalar(
  'bool',
  1,
  (w, v) => w.u8(v ? 1 : 0),
  (r) => r.u8() !== 0,
  { read: (at) => `b[${at}] !== 0`, write: (at, value) => `b[${at}] = ${value} ? 1 : 0` },
);

/** The suffix of DataView's methods for each of ours. */
const VIEWED = {
  u8: 'Uint8',
  u16: 'Uint16',
  u32: 'Uint32',
  u64: 'BigUint64',
  i8: 'Int8',
  i16: 'Int16',
  i32: 'Int32',
  i64: 'BigInt64',
} as const;

function integer<T extends number | bigint>(
  type: string,
  fixedBytes: number,
  write: 'u8' | 'u16' | 'u32' | 'u64',
  read: keyof typeof VIEWED,
): FixedKind<T> {
  return scalar<T>(
    type,
    fixedBytes,
    (w, v) => w[write](v as never),
    (r) => r[read]() as T,
    {
      read: (at) => `v.get${VIEWED[read]}(${at})`,
      write: (at, value) => `v.set${VIEWED[write]}(${at}, ${value})`,
    },
  );
}

/** One byte. */
export const u8: FixedKind<number> = integer('uint8', 1, 'u8', 'u8');
/** Two bytes, big-endian. */
export const u16: FixedKind<number> = integer('uint16', 2, 'u16', 'u16');
/** Four bytes, big-endian. */
export const u32: FixedKind<number> = integer('uint32', 4, 'u32', 'u32');
/** Eight bytes, big-endian. */
export const u64: FixedKind<bigint> = integer('uint64', 8, 'u64', 'u64');
/** One byte, two's complement. */
export const i8: FixedKind<number> = integer('int8', 1, 'u8', 'i8');
/** Two bytes, big-endian, two's complement. */
export const i16: FixedKind<number> = integer('int16', 2, 'u16', 'i16');
/** Four bytes, big-endian, two's complement. */
export const i32: FixedKind<number> = integer('int32', 4, 'u32', 'i32');
/** Eight bytes, big-endian, two's complement. */
export const i64: FixedKind<bigint> = integer('int64', 8, 'u64', 'i64');
/** A timer: its expiry in ns of the virtual clock, or -1 when it is not armed. */
export const timer: FixedKind<bigint> = integer('timer', 8, 'u64', 'i64');
/** The bits of an IEEE 754 double, which a number could not hold of every NaN; eight bytes, big-endian. */
export const float64: FixedKind<bigint> = integer('float64', 8, 'u64', 'u64');
/** The bits of a double as QEMU sends its `CPU_DoubleU`: the upper 32 first, so as {@link float64}. */
export const cpuDouble: FixedKind<bigint> = integer('CPU_Double_U', 8, 'u64', 'u64');

/** What a kind that compares takes. */
export interface EqualOptions {
  /** What to do when the two sides differ, one sentence. @see err_hint in QEMU's VMStateField */
  readonly hint?: string;
}

/**
 * Makes a kind that refuses to load another value than the one that the state holds already, for
 * what both sides must be configured alike.
 *
 * @see vmstate_info_int32_equal in QEMU's migration/vmstate-types.c
 */
export function equal<T extends number | bigint>(
  kind: FixedKind<T>,
  options: EqualOptions = {},
): FixedKind<T> {
  return comparing(
    kind,
    // QEMU calls its check of an unsigned 64-bit value so.
    kind.type === 'uint64' ? 'int64 equal' : `${kind.type} equal`,
    (value, current) => (current === undefined || value === current ? undefined : `${current}`),
    options.hint,
  );
}

/**
 * Makes a signed 32-bit kind that refuses to load a negative value or one above the state's own.
 *
 * @see vmstate_info_int32_le in QEMU's migration/vmstate-types.c
 */
export const i32AtMost: FixedKind<number> = comparing(
  i32,
  'int32 le',
  (value, current = 0x7fff_ffff) =>
    value >= 0 && value <= current ? undefined : `a positive value of at most ${current}`,
);

/**
 * Makes a kind that refuses to load a value that is not below `limit`, such as an index into an array.
 * QEMU has no type for it: it checks when everything is loaded, and the vmdesc has the kind's own type.
 *
 * @param limit the first value that is refused, or the name of an earlier field that holds it
 */
export function lessThan<T extends number | bigint>(
  kind: FixedKind<T>,
  limit: T | string,
): FixedKind<T> {
  const { inline: _, ...rest } = kind;
  return {
    ...rest,
    load(reader, current, context) {
      const { offset } = reader;
      const value = kind.load(reader, current, context);
      const bound = typeof limit === 'string' ? (context.owner[limit] as T) : limit;
      if (value >= bound || value < 0) {
        throw new VmstateError('VALUE_INVALID', 'A value is too large', {
          expected: `0 to less than ${bound}`,
          found: `${value}`,
          offset,
          path: context.path,
          likely: 'The stream is corrupt, or the device has more of it on the other side',
        });
      }
      return value;
    },
  };
}

function comparing<T extends number | bigint>(
  kind: FixedKind<T>,
  type: string,
  expected: (value: T, current: T | undefined) => string | undefined,
  hint = 'The device is configured differently here: give both sides the same options',
): FixedKind<T> {
  const { inline: _, ...rest } = kind;
  return {
    ...rest,
    type,
    load(reader, current, context: LoadContext) {
      const { offset } = reader;
      const value = kind.load(reader, current, context);
      const wanted = expected(value, current);
      if (wanted === undefined) return value;
      throw new VmstateError('VALUE_MISMATCH', 'A value differs between the two sides', {
        expected: wanted,
        found: `${value}`,
        offset,
        path: context.path,
        likely: hint,
      });
    },
  };
}
