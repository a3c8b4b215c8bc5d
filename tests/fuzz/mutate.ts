import type { Random } from './random.ts';

/** Values at which readers of lengths, counts, ids and flags go wrong. */
const WORDS = [
  0, 1, 2, 4, 5, 6, 7, 8, 0x10, 0x20, 0x40, 0x7e, 0x7f, 0x80, 0xff, 0x100, 0x1000, 0x7fff, 0x8000,
  0xffff, 0x10000, 0x100000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff,
];
const DIGITS = ['0', '1', '-1', '9', '99999', '4294967296', '1e9', '1e400', 'null', '[]', '{}'];

/** Damages a stream in one to four places; `other` gives pieces to put in. */
export function mutate(random: Random, bytes: Uint8Array, other: Uint8Array): Uint8Array {
  let result = Uint8Array.from(bytes);
  for (let left = 1 + random.below(4); left > 0 && result.length > 0; left--) {
    result = random.of(CHANGES)(random, result, other);
  }
  return result;
}

type Change = (random: Random, bytes: Uint8Array, other: Uint8Array) => Uint8Array<ArrayBuffer>;

const CHANGES: readonly Change[] = [
  (random, bytes) => {
    const changed = Uint8Array.from(bytes);
    for (let count = 1 + random.below(8); count > 0; count--) {
      changed[random.below(bytes.length)] = random.below(256);
    }
    return changed;
  },
  (random, bytes) => {
    const changed = Uint8Array.from(bytes);
    const at = random.below(bytes.length);
    changed[at] = changed[at]! ^ (1 << random.below(8));
    return changed;
  },
  (random, bytes) => {
    const changed = Uint8Array.from(bytes);
    const width = Math.min(random.of([1, 2, 4, 8]), bytes.length);
    const at = random.below(bytes.length - width + 1);
    let word = BigInt(random.of(WORDS));
    if (random.below(8) === 0) word = -word - 1n;
    for (let i = width - 1; i >= 0; i--, word >>= 8n) changed[at + i] = Number(word & 0xffn);
    return changed;
  },
  (random, bytes) => Uint8Array.from(bytes.subarray(0, random.below(bytes.length))),
  (random, bytes) => {
    const at = random.below(bytes.length);
    return splice(bytes, at, at + 1 + random.below(Math.min(64, bytes.length - at)), EMPTY);
  },
  (random, bytes) => {
    const at = random.below(bytes.length);
    const from = random.below(bytes.length);
    return splice(bytes, at, at, bytes.subarray(from, from + 1 + random.below(512)));
  },
  (random, bytes, other) => {
    const at = random.below(bytes.length);
    const from = random.below(other.length);
    const piece = other.subarray(from, from + 1 + random.below(2048));
    return splice(bytes, at, random.below(2) === 0 ? at : at + piece.length, piece);
  },
  // A number of the vmdesc.
  (random, bytes) => {
    const start = random.below(bytes.length);
    const at = bytes.findIndex((byte, i) => i >= start && isDigit(byte));
    if (at < 0) return Uint8Array.from(bytes);
    let end = at;
    while (end < bytes.length && isDigit(bytes[end]!)) end++;
    return splice(bytes, at, end, new TextEncoder().encode(random.of(DIGITS)));
  },
];

const EMPTY = new Uint8Array(0);

function splice(
  bytes: Uint8Array,
  start: number,
  end: number,
  piece: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const behind = bytes.subarray(end);
  const result = new Uint8Array(start + piece.length + behind.length);
  result.set(bytes.subarray(0, start));
  result.set(piece, start);
  result.set(behind, start + piece.length);
  return result;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}
