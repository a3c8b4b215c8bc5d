import { ByteReader, type ByteWriter, collect, need, type Parser } from '@wherry/bytes';
import { SectionType } from './sections.ts';
import { StreamError } from './stream-error.ts';

/** A half-open range of bytes of a RAM block: `[start, start + length)`. */
export interface ByteRange {
  readonly start: number;
  readonly length: number;
}

/** A command that the source sends inside the stream. A package's payload follows its command. */
export type Command =
  | { readonly name: 'open-return-path' }
  | { readonly name: 'ping'; readonly value: number }
  | {
      readonly name: 'postcopy-advise';
      /** Absent when only dirty bitmaps are postcopied. */
      readonly ram?: { readonly pageSizesSummary: bigint; readonly targetPageBytes: bigint };
    }
  | { readonly name: 'postcopy-listen' }
  | { readonly name: 'postcopy-run' }
  | {
      readonly name: 'postcopy-ram-discard';
      readonly block: string;
      readonly ranges: readonly ByteRange[];
    }
  | { readonly name: 'packaged'; readonly lengthBytes: number }
  | { readonly name: 'enable-colo' }
  | { readonly name: 'postcopy-resume' }
  | { readonly name: 'recv-bitmap'; readonly block: string }
  | { readonly name: 'switchover-start' };

/** Ranges that one discard command may carry. @see MAX_DISCARDS_PER_COMMAND in QEMU's migration/postcopy-ram.c */
export const MAX_DISCARDS_PER_COMMAND = 12;

/** Number and payload length of each command; undefined where it varies. @see mig_cmd_args in QEMU's migration/savevm.c */
const COMMANDS = {
  'open-return-path': [1, 0],
  ping: [2, 4],
  'postcopy-advise': [3, undefined],
  'postcopy-listen': [4, 0],
  'postcopy-run': [5, 0],
  'postcopy-ram-discard': [6, undefined],
  packaged: [7, 4],
  'enable-colo': [8, 0],
  'postcopy-resume': [9, 0],
  'recv-bitmap': [10, undefined],
  'switchover-start': [11, 0],
} as const satisfies Record<Command['name'], readonly [number, number | undefined]>;

const NAMES = new Map<number, Command['name']>(
  Object.entries(COMMANDS).map(([name, [id]]) => [id, name as Command['name']]),
);

/**
 * Reads a command behind its type byte.
 *
 * @throws StreamError `COMMAND_UNKNOWN`, `COMMAND_INVALID`
 */
export function* readCommand(reader: ByteReader): Parser<Command> {
  yield* need(reader, 4);
  const { offset } = reader;
  const id = reader.u16();
  const length = reader.u16();
  const name = NAMES.get(id);
  if (name === undefined) {
    throw new StreamError('COMMAND_UNKNOWN', 'A command is not known', {
      expected: 'a command number from 1 to 11',
      found: `0x${id.toString(16)} with ${length} bytes`,
      offset,
      likely: 'The sender is a newer release, or the section before it was read to a wrong length',
    });
  }
  const expected = COMMANDS[name][1];
  if (expected !== undefined && length !== expected) {
    throw invalid(name, `${expected} bytes of payload`, `${length}`, offset + 2);
  }
  const payload = ByteReader.over(yield* collect(reader, length), offset + 4);
  return parsePayload(name, payload);
}

function parsePayload(name: Command['name'], payload: ByteReader): Command {
  const { offset } = payload;
  const length = payload.available;
  switch (name) {
    case 'ping':
      return { name, value: payload.u32() };
    case 'packaged':
      return { name, lengthBytes: payload.u32() };
    case 'postcopy-advise':
      if (length === 0) return { name };
      if (length !== 16) throw invalid(name, '0 or 16 bytes of payload', `${length}`, offset);
      return { name, ram: { pageSizesSummary: payload.u64(), targetPageBytes: payload.u64() } };
    case 'postcopy-ram-discard':
      return parseDiscard(payload);
    case 'recv-bitmap':
      if (length < 2 || payload.peekU8() !== length - 1) {
        throw invalid(name, 'a counted block name', `${length} bytes`, offset);
      }
      return { name, block: payload.text(payload.u8()) };
    default:
      return { name };
  }
}

function parseDiscard(payload: ByteReader): Command {
  const name = 'postcopy-ram-discard';
  const { offset } = payload;
  const fail = (expected: string, found: string): StreamError =>
    invalid(name, expected, found, offset);
  // version, name length, name, nil, and at least one range
  if (payload.available < 2 + 1 + 16) throw fail('at least 19 bytes', `${payload.available}`);
  const version = payload.u8();
  if (version !== 0) throw fail('version 0', `${version}`);
  const nameLength = payload.u8();
  if (payload.available < nameLength + 1 + 16) {
    throw fail('a block name and a range', `${payload.available} bytes behind its length`);
  }
  const block = payload.text(nameLength);
  const nil = payload.u8();
  if (nil !== 0) throw fail('a nil behind the block name', `0x${nil.toString(16)}`);
  if (payload.available % 16 !== 0)
    throw fail('whole ranges of 16 bytes', `${payload.available} bytes`);
  const ranges: ByteRange[] = [];
  while (payload.available > 0) ranges.push({ start: payload.size(), length: payload.size() });
  return { name, block, ranges };
}

/** Writes a command with its type byte. */
export function writeCommand(writer: ByteWriter, command: Command): void {
  const at = writer.u8(SectionType.command).u16(COMMANDS[command.name][0]).u16(0).length;
  switch (command.name) {
    case 'ping':
      writer.u32(command.value);
      break;
    case 'packaged':
      writer.u32(command.lengthBytes);
      break;
    case 'postcopy-advise':
      if (command.ram !== undefined) {
        writer.u64(command.ram.pageSizesSummary).u64(command.ram.targetPageBytes);
      }
      break;
    case 'postcopy-ram-discard':
      writer.u8(0).counted(command.block).u8(0);
      for (const { start, length } of command.ranges) writer.u64(BigInt(start)).u64(BigInt(length));
      break;
    case 'recv-bitmap':
      writer.counted(command.block);
      break;
  }
  writer.patchU16(at - 2, writer.length - at);
}

function invalid(name: string, expected: string, found: string, offset: number): StreamError {
  return new StreamError('COMMAND_INVALID', `The command ${name} is malformed`, {
    expected,
    found,
    offset,
    path: [`command ${name}`],
    likely: 'The stream is damaged, or the section before it was read to a wrong length',
  });
}
