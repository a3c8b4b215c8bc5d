import { type ByteReader, type ByteWriter, collect } from '@wherry/bytes';
import type { FixedKind, LoadContext, VariableKind } from './kind.ts';
import { VmstateError } from './vmstate-error.ts';

/** No field is larger: QEMU's largest (a GPU's, a disk's requests) stay far below. */
const MAX_FIELD_BYTES = 64 * 1024 * 1024;

function fixed<T>(
  type: string,
  fixedBytes: number,
  put: (writer: ByteWriter, value: T) => void,
  get: (reader: ByteReader) => T,
): FixedKind<T> {
  return {
    type,
    fixedBytes,
    save(writer, value) {
      put(writer, value);
      return undefined;
    },
    load: get,
  };
}

/** One byte, 0 or 1. */
export const bool: FixedKind<boolean> = fixed(
  'bool',
  1,
  (w, v) => w.u8(v ? 1 : 0),
  (r) => r.u8() !== 0,
);
/** One byte. */
export const u8: FixedKind<number> = fixed(
  'uint8',
  1,
  (w, v) => w.u8(v),
  (r) => r.u8(),
);
/** Two bytes, big-endian. */
export const u16: FixedKind<number> = fixed(
  'uint16',
  2,
  (w, v) => w.u16(v),
  (r) => r.u16(),
);
/** Four bytes, big-endian. */
export const u32: FixedKind<number> = fixed(
  'uint32',
  4,
  (w, v) => w.u32(v),
  (r) => r.u32(),
);
/** Eight bytes, big-endian. */
export const u64: FixedKind<bigint> = fixed(
  'uint64',
  8,
  (w, v) => w.u64(v),
  (r) => r.u64(),
);
/** One byte, two's complement. */
export const i8: FixedKind<number> = fixed(
  'int8',
  1,
  (w, v) => w.u8(v),
  (r) => r.i8(),
);
/** Two bytes, big-endian, two's complement. */
export const i16: FixedKind<number> = fixed(
  'int16',
  2,
  (w, v) => w.u16(v),
  (r) => r.i16(),
);
/** Four bytes, big-endian, two's complement. */
export const i32: FixedKind<number> = fixed(
  'int32',
  4,
  (w, v) => w.u32(v),
  (r) => r.i32(),
);
/** Eight bytes, big-endian, two's complement. */
export const i64: FixedKind<bigint> = fixed(
  'int64',
  8,
  (w, v) => w.u64(v),
  (r) => r.i64(),
);
/** A timer: its expiry in ns of the virtual clock, or -1 when it is not armed. */
export const timer: FixedKind<bigint> = fixed(
  'timer',
  8,
  (w, v) => w.u64(v),
  (r) => r.i64(),
);

/**
 * Makes a kind that refuses to load another value than the one that the state holds already, for
 * what both sides must be configured alike.
 *
 * @see vmstate_info_int32_equal in QEMU's migration/vmstate-types.c
 */
export function equal<T extends number | bigint>(
  kind: FixedKind<T>,
  type = `${kind.type} equal`,
): FixedKind<T> {
  return {
    ...kind,
    type,
    load(reader, current, context) {
      const offset = reader.offset;
      const value = kind.load(reader, current, context);
      if (current !== undefined && value !== current) {
        throw mismatch(value, `${current}`, offset, context);
      }
      return value;
    },
  };
}

/**
 * Makes a signed 32-bit kind that refuses to load a negative value or one above the state's own.
 *
 * @see vmstate_info_int32_le in QEMU's migration/vmstate-types.c
 */
export const i32AtMost: FixedKind<number> = {
  ...i32,
  type: 'int32 le',
  load(reader, current, context) {
    const offset = reader.offset;
    const value = reader.i32();
    if (value < 0 || (current !== undefined && value > current)) {
      throw mismatch(value, `a positive value of at most ${current}`, offset, context);
    }
    return value;
  },
};

function mismatch(
  value: number | bigint,
  expected: string,
  offset: number,
  context: LoadContext,
): VmstateError {
  return new VmstateError('VALUE_MISMATCH', 'A value differs between the two sides', {
    expected,
    found: `${value}`,
    offset,
    path: context.path,
    likely: 'The device is configured differently here: give both sides the same options',
  });
}

/** Makes a kind of `length` raw bytes. The loaded copy belongs to the state. */
export function buffer(length: number): FixedKind<Uint8Array> {
  return {
    type: 'buffer',
    fixedBytes: length,
    save(writer, value, owner) {
      checkLength(value, length, owner);
      writer.raw(value);
      return undefined;
    },
    load: (reader) => reader.copy(length),
  };
}

/** Makes a kind of raw bytes whose number an earlier field holds. @see VMSTATE_VBUFFER_UINT32 in QEMU's include/migration/vmstate.h */
export function vbuffer(lengthField: string): VariableKind<Uint8Array> {
  return {
    type: 'buffer',
    fixedBytes: undefined,
    save(writer, value, owner) {
      checkLength(value, Number(owner[lengthField]), owner);
      writer.raw(value);
      return undefined;
    },
    *load(reader, _current, context) {
      const length = Number(context.owner[lengthField]);
      if (!(length >= 0 && length <= MAX_FIELD_BYTES)) {
        throw new VmstateError(
          'COUNT_INVALID',
          `The length in field ${lengthField} is not usable`,
          {
            expected: `0 to ${MAX_FIELD_BYTES}`,
            found: `${length}`,
            offset: reader.offset,
            path: context.path,
            likely: 'The stream is corrupt, or an earlier field has another size on the other side',
          },
        );
      }
      return yield* collect(reader, length);
    },
  };
}

/** Makes a kind of `length` bytes that are written as zeros and ignored on load. @see VMSTATE_UNUSED in QEMU's include/migration/vmstate.h */
export function unused(length: number): FixedKind<undefined> {
  return {
    type: 'unused_buffer',
    fixedBytes: length,
    save(writer) {
      writer.zeros(length);
      return undefined;
    },
    load(reader) {
      reader.skip(length);
      return undefined;
    },
  };
}

function checkLength(value: Uint8Array, length: number, owner: object): void {
  if (value.length !== length) {
    throw new VmstateError('COUNT_INVALID', 'A buffer of device state has the wrong length', {
      expected: `${length} bytes`,
      found: `${value.length} bytes, in a state with ${Object.keys(owner).join(', ')}`,
    });
  }
}
