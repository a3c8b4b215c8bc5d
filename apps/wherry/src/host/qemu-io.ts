import { type BlockGraph, MachineError } from '@wherry/machine';
import { parseSize } from '../sizes.ts';

/** What QEMU writes unless told. */
const PATTERN = 0xcd;
const PIECE_BYTES = 1024 * 1024;
const MAX_REQUEST_BYTES = 2 ** 31;

/**
 * Answers `human-monitor-command`: `qemu-io NODE "write [-P PATTERN|-z] OFFSET LENGTH"` and the same with
 * `read`, as tests of QEMU use them.
 *
 * @returns text for people, errors too, as in QEMU
 */
export function humanMonitorCommand(graph: BlockGraph, line: string): string {
  const [, name = '', rest = ''] = /^\s*(\S*)\s*(.*)$/s.exec(line) ?? [];
  if (name !== 'qemu-io') {
    return `unknown command: '${name}'; this host has qemu-io alone\r\n`;
  }
  const [, quoted, bare, command] = /^(?:"([^"]*)"|(\S+))\s+(?:"([^"]*)"|.*)$/s.exec(rest) ?? [];
  if (command === undefined) return 'qemu-io: use qemu-io NODE "COMMAND"\r\n';
  try {
    return runQemuIo(graph, quoted ?? bare ?? '', command.trim().split(/\s+/));
  } catch (error) {
    if (error instanceof MachineError || error instanceof RangeError) {
      return `${error.message}\r\n`;
    }
    throw error;
  }
}

function runQemuIo(graph: BlockGraph, name: string, words: readonly string[]): string {
  const node = graph.find(name);
  const [command, ...options] = words;
  if (command !== 'write' && command !== 'read') {
    throw new RangeError(`command "${command}" not found: this host has read and write`);
  }
  let pattern: number | undefined;
  const places: number[] = [];
  for (let i = 0; i < options.length; i++) {
    const option = options[i]!;
    if (option === '-P') pattern = patternOf(options[++i]);
    else if (option === '-z' && command === 'write') pattern = 0;
    else if (option.startsWith('-'))
      throw new RangeError(`${command}: invalid option -- '${option.slice(1)}'`);
    else places.push(placeOf(option));
  }
  const [offset, length] = places;
  if (offset === undefined || length === undefined || places.length > 2) {
    throw new RangeError(
      `bad argument count ${options.length} to ${command}, expected at least 2 arguments`,
    );
  }
  if (length > MAX_REQUEST_BYTES)
    throw new RangeError(`length cannot exceed ${MAX_REQUEST_BYTES}, given ${length}`);
  for (let done = 0; done < length; done += PIECE_BYTES) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, length - done));
    if (command === 'write') node.write(offset + done, piece.fill(pattern ?? PATTERN));
    else {
      node.read(offset + done, piece);
      if (pattern !== undefined && !piece.every((byte) => byte === pattern)) {
        return `Pattern verification failed at offset ${offset}, ${length} bytes\r\n`;
      }
    }
  }
  return `${command === 'write' ? 'wrote' : 'read'} ${length}/${length} bytes at offset ${offset}\r\n`;
}

function patternOf(text = ''): number {
  const pattern = Number(text);
  if (text !== '' && Number.isInteger(pattern) && pattern >= 0 && pattern <= 0xff) return pattern;
  throw new RangeError(`${text} is not a valid pattern byte`);
}

function placeOf(text: string): number {
  try {
    return parseSize(text);
  } catch {
    throw new RangeError(`non-numeric length argument -- ${text}`);
  }
}
