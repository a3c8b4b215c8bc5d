import { InvalidArgumentError } from 'commander';

/** What flows through the relay in one direction, as places name it. */
export const CHANNELS = ['main', 'return-path', 'multifd', 'preempt'] as const;
export type ChannelName = (typeof CHANNELS)[number];

/** A fault to inject where a named place passes. */
export interface Fault {
  readonly kind: 'cut' | 'corrupt';
  /** As it was asked for. */
  readonly text: string;
  readonly channel: ChannelName;
  /** A section's idstr, a phase, a command or a message; undefined for a plain offset. */
  readonly place: string | undefined;
  /** Bytes behind the place; the offset itself where there is none. */
  readonly bytes: number;
  /** What a corrupted byte is XORed with. */
  readonly mask: number;
}

const UNITS: Readonly<Record<string, number>> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };
const FORM = 'use [CHANNEL:]BYTES or [CHANNEL:]PLACE[+BYTES]';

/** Reads the value of `--cut-after`. @throws InvalidArgumentError */
export function parseCut(text: string, before: readonly Fault[] = []): readonly Fault[] {
  return [...before, { kind: 'cut', text, mask: 0, ...parsePlace(text) }];
}

/** Reads the value of `--corrupt`: a place, and `^MASK` behind it. @throws InvalidArgumentError */
export function parseCorrupt(text: string, before: readonly Fault[] = []): readonly Fault[] {
  const [, place = text, maskText] = /^(.*)\^(?:0x)?([0-9a-f]{1,2})$/i.exec(text) ?? [];
  const mask = maskText === undefined ? 0xff : Number.parseInt(maskText, 16);
  if (mask === 0 || place.includes('^')) {
    throw new InvalidArgumentError('the mask is a byte in hexadecimal other than 0, such as ^01.');
  }
  return [...before, { kind: 'corrupt', text, mask, ...parsePlace(place) }];
}

function parsePlace(text: string): Pick<Fault, 'channel' | 'place' | 'bytes'> {
  // An idstr may hold colons: only a channel's name ends at one.
  const named = CHANNELS.find((name) => text === name || text.startsWith(`${name}:`));
  const channel = named ?? 'main';
  const rest = named === undefined ? text : text.slice(named.length + 1);
  if (named !== undefined && rest === '') return { channel, place: undefined, bytes: 0 };
  const offset = parseBytes(rest);
  if (offset !== undefined) return { channel, place: undefined, bytes: offset };
  const [, place, more] = /^(.+)\+([^+]*)$/.exec(rest) ?? [undefined, rest, '0'];
  const bytes = parseBytes(more!);
  if (place === '' || place!.startsWith('+') || bytes === undefined) {
    throw new InvalidArgumentError(`'${text}' is no place: ${FORM}.`);
  }
  if (channel === 'multifd' || channel === 'preempt') {
    throw new InvalidArgumentError(`places on ${channel} are offsets: use ${channel}:BYTES.`);
  }
  return { channel, place: place!, bytes };
}

function parseBytes(text: string): number | undefined {
  const match = /^(0x[0-9a-f]+|\d+)([kmgt]?)$/i.exec(text);
  const bytes =
    match === null ? Number.NaN : Number(match[1]) * (UNITS[match[2]!.toLowerCase()] ?? 1);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
