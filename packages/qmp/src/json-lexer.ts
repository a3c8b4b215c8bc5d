/** Token types, as the parser sees them. */
export const LCURLY = 1;
export const RCURLY = 2;
export const LSQUARE = 3;
export const RSQUARE = 4;
export const COLON = 5;
export const COMMA = 6;
export const INTEGER = 7;
export const FLOAT = 8;
export const KEYWORD = 9;
export const STRING = 10;

/** What {@link transition} returns besides tokens and states: the byte fits nowhere. */
export const LEXICAL_ERROR = 0;

/** Set in a transition's result when the byte ended the token before it and is still to be read. */
export const LOOKAHEAD = 0x80;

/** Lexer states; all above the token types. */
export const START = 16;
/** After an error: skips to a structural or control character, a likely place to start anew. */
export const RECOVERY = 17;
const DQ_STRING = 18;
const DQ_ESCAPE = 19;
const SQ_STRING = 20;
const SQ_ESCAPE = 21;
const SIGN = 22;
const ZERO = 23;
const DIGITS = 24;
const POINT = 25;
const FRACTION = 26;
const EXPONENT = 27;
const EXPONENT_SIGN = 28;
const EXPONENT_DIGITS = 29;
const LETTERS = 30;

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function structural(byte: number): number {
  switch (byte) {
    case 0x7b:
      return LCURLY;
    case 0x7d:
      return RCURLY;
    case 0x5b:
      return LSQUARE;
    case 0x5d:
      return RSQUARE;
    case 0x3a:
      return COLON;
    case 0x2c:
      return COMMA;
    default:
      return LEXICAL_ERROR;
  }
}

function fromStart(byte: number): number {
  switch (byte) {
    case 0x20:
    case 0x09:
    case 0x0d:
    case 0x0a:
      return START;
    case 0x22:
      return DQ_STRING;
    case 0x27:
      return SQ_STRING;
    case 0x2d:
      return SIGN;
    case 0x30:
      return ZERO;
  }
  if (isDigit(byte)) return DIGITS;
  if (byte >= 0x61 && byte <= 0x7a) return LETTERS;
  return structural(byte);
}

function inString(byte: number, state: number, escaped: number, quote: number): number {
  if (byte === quote) return STRING;
  if (byte === 0x5c) return escaped;
  return byte >= 0x20 && byte <= 0xfd ? state : LEXICAL_ERROR;
}

/**
 * Steps QMP's lexer by one byte: JSON, plus single-quoted strings, with the same places of error
 * and recovery as QEMU's, so that both answer broken input alike.
 *
 * @returns a state, a token type (with {@link LOOKAHEAD} when `byte` is not part of it) or
 *   {@link LEXICAL_ERROR}
 * @see QEMU qobject/json-lexer.c
 */
export function transition(state: number, byte: number): number {
  switch (state) {
    case START:
      return fromStart(byte);
    case DQ_STRING:
      return inString(byte, DQ_STRING, DQ_ESCAPE, 0x22);
    case SQ_STRING:
      return inString(byte, SQ_STRING, SQ_ESCAPE, 0x27);
    case DQ_ESCAPE:
      return byte >= 0x20 && byte <= 0xfd ? DQ_STRING : LEXICAL_ERROR;
    case SQ_ESCAPE:
      return byte >= 0x20 && byte <= 0xfd ? SQ_STRING : LEXICAL_ERROR;
    case SIGN:
      return byte === 0x30 ? ZERO : isDigit(byte) ? DIGITS : LEXICAL_ERROR;
    case ZERO:
      if (isDigit(byte)) return LEXICAL_ERROR;
      return byte === 0x2e ? POINT : INTEGER | LOOKAHEAD;
    case DIGITS:
      if (isDigit(byte)) return DIGITS;
      if (byte === 0x2e) return POINT;
      return byte === 0x65 || byte === 0x45 ? EXPONENT : INTEGER | LOOKAHEAD;
    case POINT:
      return isDigit(byte) ? FRACTION : LEXICAL_ERROR;
    case FRACTION:
      if (isDigit(byte)) return FRACTION;
      return byte === 0x65 || byte === 0x45 ? EXPONENT : FLOAT | LOOKAHEAD;
    case EXPONENT:
      if (byte === 0x2b || byte === 0x2d) return EXPONENT_SIGN;
      return isDigit(byte) ? EXPONENT_DIGITS : LEXICAL_ERROR;
    case EXPONENT_SIGN:
      return isDigit(byte) ? EXPONENT_DIGITS : LEXICAL_ERROR;
    case EXPONENT_DIGITS:
      return isDigit(byte) ? EXPONENT_DIGITS : FLOAT | LOOKAHEAD;
    case LETTERS:
      return byte >= 0x61 && byte <= 0x7a ? LETTERS : KEYWORD | LOOKAHEAD;
    default:
      // RECOVERY
      if (byte === 0x09) return RECOVERY;
      if (byte < 0x20 || byte > 0xfd || structural(byte) !== LEXICAL_ERROR) {
        return START | LOOKAHEAD;
      }
      return RECOVERY;
  }
}
