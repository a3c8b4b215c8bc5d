import { collect, counted, need } from '@wherry/bytes';
import type { FixedKind, LoadContext, VariableKind } from './kind.ts';
import { VmstateError } from './vmstate-error.ts';

/** No field is larger: QEMU's largest (a GPU's, a disk's requests) stay far below. */
const MAX_FIELD_BYTES = 64 * 1024 * 1024;

/** Makes a kind of `length` raw bytes. The loaded copy belongs to the state. */
export function buffer(length: number): FixedKind<Uint8Array> {
  return {
    type: 'buffer',
    fixedBytes: length,
    save(writer, value) {
      writer.raw(ofLength(value, length));
      return undefined;
    },
    load: (reader) => reader.copy(length),
    inline: {
      read: (at) => `new Uint8Array(b.subarray(${at}, ${at} + ${length}))`,
      write: (at, value) => `b.set(ofLength(${value}, ${length}), ${at})`,
    },
  };
}

/**
 * Makes a kind of the bytes `[start, end)` of a longer buffer, whose others stay as they are.
 *
 * @see VMSTATE_PARTIAL_BUFFER and VMSTATE_BUFFER_START_MIDDLE in QEMU's include/migration/vmstate.h
 */
export function bufferPart(start: number, end: number): FixedKind<Uint8Array> {
  return {
    type: 'buffer',
    fixedBytes: end - start,
    save(writer, value) {
      writer.raw(ofLength(value.subarray(start, end), end - start));
      return undefined;
    },
    load(reader, current) {
      const whole = new Uint8Array(Math.max(end, current?.length ?? 0));
      if (current !== undefined) whole.set(current);
      whole.set(reader.view(end - start), start);
      return whole;
    },
  };
}

/** What {@link vbuffer} takes. */
export interface VbufferOptions {
  /** Bytes of each of what the field counts; default 1. @see VMSTATE_VBUFFER_MULTIPLY in QEMU's include/migration/vmstate.h */
  readonly unitBytes?: number;
}

/** Makes a kind of raw bytes whose number an earlier field holds. @see VMSTATE_VBUFFER_UINT32 in QEMU's include/migration/vmstate.h */
export function vbuffer(
  lengthField: string,
  options: VbufferOptions = {},
): VariableKind<Uint8Array> {
  const { unitBytes = 1 } = options;
  return {
    type: 'buffer',
    fixedBytes: undefined,
    save(writer, value, owner) {
      writer.raw(ofLength(value, Number(owner[lengthField]) * unitBytes));
      return undefined;
    },
    *load(reader, _current, context) {
      const length = Number(context.owner[lengthField]) * unitBytes;
      checkSize(length, `The length in field ${lengthField}`, reader.offset, context);
      return yield* collect(reader, length);
    },
  };
}

/**
 * Makes a kind of bits, bit i being bit i % 8 of byte i / 8, whole 64-bit words of them. The words go
 * big-endian.
 *
 * @param bits how many, or the name of the earlier field that holds it
 * @see VMSTATE_BITMAP in QEMU's include/migration/vmstate.h, vmstate_info_bitmap
 */
export function bitmap(bits: number | string): VariableKind<Uint8Array> {
  const bytesOf = (owner: Readonly<Record<string, unknown>>): number =>
    Math.ceil((typeof bits === 'number' ? bits : Number(owner[bits])) / 64) * 8;
  return {
    type: 'bitmap',
    fixedBytes: undefined,
    save(writer, value, owner) {
      writer.raw(swapWords(ofLength(value, bytesOf(owner)).slice()));
      return undefined;
    },
    *load(reader, _current, context) {
      const length = bytesOf(context.owner);
      checkSize(length, `The number of bits in field ${bits}`, reader.offset, context);
      return swapWords(yield* collect(reader, length));
    },
  };
}

function swapWords(bytes: Uint8Array): Uint8Array {
  for (let at = 0; at < bytes.length; at += 8) bytes.subarray(at, at + 8).reverse();
  return bytes;
}

/** What {@link unused} takes. */
export interface UnusedOptions {
  /** What older releases send in these bytes, and until which: for whoever wants to use them again. */
  readonly was?: string;
}

/** A kind of bytes that nobody uses. */
export interface UnusedKind extends FixedKind<undefined> {
  readonly was?: string;
}

/** Makes a kind of `length` bytes that are written as zeros and ignored on load. @see VMSTATE_UNUSED in QEMU's include/migration/vmstate.h */
export function unused(length: number, options: UnusedOptions = {}): UnusedKind {
  return {
    ...options,
    type: 'unused_buffer',
    fixedBytes: length,
    holdsNothing: true,
    save(writer) {
      writer.zeros(length);
      return undefined;
    },
    load(reader) {
      reader.skip(length);
      return undefined;
    },
    inline: {
      read: () => 'undefined',
      // A call costs more than a few stores.
      write: (at) =>
        length <= 4
          ? Array.from({ length }, (_, i) => `b[${at} + ${i}] = 0`).join(', ') || '0'
          : `b.fill(0, ${at}, ${at} + ${length})`,
    },
  };
}

/** Bytes behind their number, a big-endian u32. @see vmstate_info_g_byte_array in QEMU's migration/vmstate-types.c, from 11.1 */
export const byteArray: VariableKind<Uint8Array> = {
  type: 'GByteArray',
  fixedBytes: undefined,
  save(writer, value) {
    writer.u32(value.length).raw(value);
    return undefined;
  },
  *load(reader, _current, context) {
    yield* need(reader, 4);
    const { offset } = reader;
    const length = reader.u32();
    checkSize(length, 'The length of the bytes', offset, context);
    return yield* collect(reader, length);
  },
};

/** The name of a migration capability, behind one byte of length. @see vmstate_info_capability in QEMU's migration/savevm.c */
export const capability: VariableKind<string> = {
  type: 'capability',
  fixedBytes: undefined,
  save(writer, value) {
    writer.counted(value);
    return undefined;
  },
  load: (reader) => counted(reader),
};

function checkSize(length: number, what: string, offset: number, context: LoadContext): void {
  if (length >= 0 && length <= MAX_FIELD_BYTES) return;
  throw new VmstateError('COUNT_INVALID', `${what} is not usable`, {
    expected: `0 to ${MAX_FIELD_BYTES} bytes`,
    found: `${length}`,
    offset,
    path: context.path,
    likely: 'The stream is corrupt, or an earlier field has another size on the other side',
  });
}

/** Gives bytes back if there are as many as the wire needs. @throws VmstateError `COUNT_INVALID` */
export function ofLength(value: Uint8Array, length: number): Uint8Array {
  if (value.length === length) return value;
  throw new VmstateError('COUNT_INVALID', 'A buffer of device state has the wrong length', {
    expected: `${length} bytes`,
    found: `${value.length} bytes`,
  });
}
