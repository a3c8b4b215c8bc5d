/** Says why a string token is no valid JSON string, in QEMU's words. */
export class JsonStringError extends Error {}

const BACKSLASH = 0x5c;
const INVALID_UTF8 = 'invalid UTF-8 sequence in string';

function simpleEscape(byte: number): number {
  switch (byte) {
    case 0x22: // "
    case 0x27: // '
    case 0x2f: // /
    case BACKSLASH:
      return byte;
    case 0x62:
      return 0x08;
    case 0x66:
      return 0x0c;
    case 0x6e:
      return 0x0a;
    case 0x72:
      return 0x0d;
    case 0x74:
      return 0x09;
    default:
      return -1;
  }
}

function hexDigit(byte: number | undefined): number {
  if (byte === undefined) return -1;
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

function hex4(token: Uint8Array, at: number): number {
  let value = 0;
  for (let i = 0; i < 4; i++) {
    const digit = hexDigit(token[at + i]);
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/** QEMU refuses surrogates, which are no characters, and Unicode's 66 noncharacters. */
function isValidCodePoint(codePoint: number): boolean {
  if (codePoint < 0 || codePoint > 0x10ffff) return false;
  if (codePoint >= 0xd800 && codePoint <= 0xdfff) return false;
  return !(codePoint >= 0xfdd0 && codePoint <= 0xfdef) && (codePoint & 0xfffe) !== 0xfffe;
}

/** Appends a code point as UTF-8; an escape is never shorter than what it stands for. */
function putUtf8(out: Uint8Array, at: number, codePoint: number): number {
  if (codePoint < 0x80) {
    out[at] = codePoint;
    return at + 1;
  }
  const extra = codePoint < 0x800 ? 1 : codePoint < 0x10000 ? 2 : 3;
  out[at] = (0xff00 >> (extra + 1)) | (codePoint >> (6 * extra)); // C0, E0 or F0; cut to a byte
  for (let i = 1; i <= extra; i++) out[at + i] = 0x80 | ((codePoint >> (6 * (extra - i))) & 0x3f);
  return at + extra + 1;
}

const SHORT = 64;

function decode(bytes: Uint8Array): string {
  // Most strings are short and ASCII: setting up a decoder would cost more than all else.
  if (bytes.length < SHORT && bytes.every((byte) => byte < 0x80)) {
    return String.fromCharCode(...bytes);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new JsonStringError(INVALID_UTF8);
  }
  if (/\p{Noncharacter_Code_Point}/u.test(text)) throw new JsonStringError(INVALID_UTF8);
  return text;
}

/**
 * Decodes a string token with its quotes: escapes, modified UTF-8 (`C0 80` stands for U+0000).
 *
 * @throws JsonStringError with QEMU's text, for the first fault from the left
 * @see QEMU qobject/json-parser.c parse_string, util/unicode.c
 */
export function readString(token: Uint8Array): string {
  const end = token.length - 1;
  const out = new Uint8Array(end);
  let length = 0;
  const fail = (message: string): never => {
    decode(out.subarray(0, length)); // bad bytes further left are the first fault
    throw new JsonStringError(message);
  };
  for (let i = 1; i < end; ) {
    const byte = token[i]!;
    if (byte === 0xc0 && token[i + 1] === 0x80) {
      out[length++] = 0;
      i += 2;
      continue;
    }
    if (byte !== BACKSLASH) {
      out[length++] = byte;
      i++;
      continue;
    }
    const letter = token[i + 1]!;
    if (letter !== 0x75) {
      const plain = simpleEscape(letter);
      if (plain < 0) fail('invalid escape sequence in string');
      out[length++] = plain;
      i += 2;
      continue;
    }
    let codePoint = hex4(token, i + 2);
    let next = i + 6;
    const isLead = codePoint >= 0xd800 && codePoint <= 0xdbff;
    if (isLead && token[next] === BACKSLASH && token[next + 1] === 0x75) {
      const trail = hex4(token, next + 2);
      if (trail >= 0xdc00 && trail <= 0xdfff) {
        codePoint = 0x10000 + ((codePoint & 0x3ff) << 10) + (trail & 0x3ff);
        next += 6;
      }
    }
    if (!isValidCodePoint(codePoint)) {
      const shown = new TextDecoder().decode(token.subarray(i, next));
      fail(`${shown} is not a valid Unicode character`);
    }
    length = putUtf8(out, length, codePoint);
    i = next;
  }
  return decode(out.subarray(0, length));
}
