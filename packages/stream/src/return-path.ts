import { ByteReader, type ByteWriter, collect, need, type Parser } from '@wherry/bytes';
import { StreamError } from './stream-error.ts';

/** A message from the destination back to the source. */
export type ReturnPathMessage =
  | { readonly name: 'shut'; readonly status: number }
  | { readonly name: 'pong'; readonly value: number }
  | {
      readonly name: 'req-pages';
      /** Absent: the block of the request before. */
      readonly block?: string;
      readonly start: number;
      readonly length: number;
    }
  | { readonly name: 'recv-bitmap'; readonly block: string; readonly bitmap: Uint8Array }
  | { readonly name: 'resume-ack'; readonly value: number }
  | { readonly name: 'switchover-ack' };

const TYPE = {
  shut: 1,
  pong: 2,
  reqPagesId: 3,
  reqPages: 4,
  recvBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
};
/** What a destination answers to POSTCOPY_RESUME. @see MIGRATION_RESUME_ACK_VALUE in QEMU's migration/migration.h */
export const RESUME_ACK_VALUE = 1;
const BITMAP_END = 0x0123456789abcdefn;
/** One bit a 4 KiB page: enough for a block of 16 TiB. */
const MAX_BITMAP_BYTES = 512 * 1024 * 1024;

/**
 * Reads the next message of a return path.
 *
 * @param limits `maxBitmapBytes`: what no block's bitmap exceeds
 * @throws StreamError `RETURN_PATH_INVALID`
 * @see source_return_path_thread in QEMU's migration/migration.c
 */
export function* readReturnPathMessage(
  reader: ByteReader,
  { maxBitmapBytes = MAX_BITMAP_BYTES }: { readonly maxBitmapBytes?: number } = {},
): Parser<ReturnPathMessage> {
  yield* need(reader, 4);
  const { offset } = reader;
  const type = reader.u16();
  const length = reader.u16();
  const fail = (expected: string, found: string): StreamError =>
    new StreamError('RETURN_PATH_INVALID', 'A message on the return path is malformed', {
      expected,
      found,
      offset,
      path: ['return path'],
      likely: 'The destination is another release than it says, or the connection is damaged',
    });
  const expectLength = (expected: number): void => {
    if (length !== expected) throw fail(`${expected} bytes for type ${type}`, `${length}`);
  };
  // The longest legal payload is a request with a name of 255 bytes.
  if (length > 512) throw fail('at most 512 bytes', `${length} for type ${type}`);
  const payload = ByteReader.over(yield* collect(reader, length), offset + 4);
  switch (type) {
    case TYPE.shut:
      expectLength(4);
      return { name: 'shut', status: payload.u32() };
    case TYPE.pong:
      expectLength(4);
      return { name: 'pong', value: payload.u32() };
    case TYPE.reqPagesId: {
      if (length < 14 || payload.peekU8(12) !== length - 13)
        throw fail('a counted block name', `${length} bytes`);
      const start = payload.size();
      const lengthBytes = payload.u32();
      return { name: 'req-pages', start, length: lengthBytes, block: payload.text(payload.u8()) };
    }
    case TYPE.reqPages:
      expectLength(12);
      return { name: 'req-pages', start: payload.size(), length: payload.u32() };
    case TYPE.recvBitmap: {
      if (length < 2 || payload.peekU8() !== length - 1)
        throw fail('a counted block name', `${length} bytes`);
      const block = payload.text(payload.u8());
      yield* need(reader, 8);
      const size = reader.size();
      if (size > maxBitmapBytes)
        throw fail(`a bitmap of at most ${maxBitmapBytes} bytes`, `${size}`);
      const bitmap = yield* collect(reader, size);
      yield* need(reader, 8);
      const mark = reader.u64();
      if (mark !== BITMAP_END) throw fail('the mark behind a bitmap', `0x${mark.toString(16)}`);
      return { name: 'recv-bitmap', block, bitmap };
    }
    case TYPE.resumeAck:
      expectLength(4);
      return { name: 'resume-ack', value: payload.u32() };
    case TYPE.switchoverAck:
      expectLength(0);
      return { name: 'switchover-ack' };
    default:
      throw fail('a type from 1 to 7', `type ${type} with ${length} bytes`);
  }
}

/** Writes a message of the return path. */
export function writeReturnPathMessage(writer: ByteWriter, message: ReturnPathMessage): void {
  const head = (type: number, length: number): ByteWriter => writer.u16(type).u16(length);
  switch (message.name) {
    case 'shut':
      head(TYPE.shut, 4).u32(message.status);
      break;
    case 'pong':
      head(TYPE.pong, 4).u32(message.value);
      break;
    case 'req-pages': {
      const at = head(message.block === undefined ? TYPE.reqPages : TYPE.reqPagesId, 0).length;
      writer.u64(BigInt(message.start)).u32(message.length);
      if (message.block !== undefined) writer.counted(message.block);
      writer.patchU16(at - 2, writer.length - at);
      break;
    }
    case 'recv-bitmap': {
      // The length in the head covers the name alone.
      const at = head(TYPE.recvBitmap, 0).length;
      writer.counted(message.block);
      writer.patchU16(at - 2, writer.length - at);
      writer.u64(BigInt(message.bitmap.length)).raw(message.bitmap).u64(BITMAP_END);
      break;
    }
    case 'resume-ack':
      head(TYPE.resumeAck, 4).u32(message.value);
      break;
    case 'switchover-ack':
      head(TYPE.switchoverAck, 0);
      break;
  }
}
