import {
  COLON,
  COMMA,
  FLOAT,
  INTEGER,
  KEYWORD,
  LCURLY,
  LSQUARE,
  RCURLY,
  RSQUARE,
  STRING,
} from './json-lexer.ts';
import { JsonStringError, readString } from './json-string.ts';
import { JsonDouble, readFloat, readInteger, setMember } from './json-value.ts';

/** Says why a message is no valid JSON, in QEMU's words. */
export class JsonParseError extends Error {}

/** The tokens of one message: their bytes back to back, and where each begins. */
export interface JsonTokens {
  readonly count: number;
  readonly types: readonly number[];
  readonly starts: readonly number[];
  /** Token `i` is `bytes[starts[i], starts[i + 1])`; the last ends at `length`. */
  readonly bytes: Uint8Array;
  readonly length: number;
}

const MAX_MESSAGE_TEXT = 1023;

class Parser {
  readonly #tokens: JsonTokens;
  readonly #keepDoubles: boolean;
  #next = 0;

  constructor(tokens: JsonTokens, keepDoubles: boolean) {
    this.#tokens = tokens;
    this.#keepDoubles = keepDoubles;
  }

  #peek(): number {
    if (this.#next >= this.#tokens.count) throw new JsonParseError('premature EOI');
    return this.#tokens.types[this.#next]!;
  }

  #pop(): number {
    const type = this.#peek();
    this.#next++;
    return type;
  }

  /** The bytes of the token popped last. */
  #bytes(): Uint8Array {
    const { starts, bytes, length } = this.#tokens;
    return bytes.subarray(starts[this.#next - 1]!, starts[this.#next] ?? length);
  }

  /** The text of a number or keyword, which the lexer lets be ASCII only. */
  #text(): string {
    const bytes = this.#bytes();
    return bytes.length < 64 ? String.fromCharCode(...bytes) : new TextDecoder().decode(bytes);
  }

  #double(value: number | bigint | JsonDouble): number | bigint | JsonDouble {
    return value instanceof JsonDouble && !this.#keepDoubles ? value.value : value;
  }

  value(): unknown {
    switch (this.#peek()) {
      case LCURLY:
        return this.#object();
      case LSQUARE:
        return this.#array();
      case STRING:
        this.#next++;
        return readString(this.#bytes());
      case INTEGER:
        this.#next++;
        return this.#double(readInteger(this.#text()));
      case FLOAT:
        this.#next++;
        return this.#double(readFloat(this.#text()));
      case KEYWORD:
        this.#next++;
        return this.#keyword();
      default:
        throw new JsonParseError('expecting value');
    }
  }

  #keyword(): boolean | null {
    const text = this.#text();
    if (text === 'true') return true;
    if (text === 'false') return false;
    if (text === 'null') return null;
    throw new JsonParseError(`invalid keyword '${text}'`.slice(0, MAX_MESSAGE_TEXT));
  }

  #object(): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.#next++;
    if (this.#peek() === RCURLY) {
      this.#next++;
      return object;
    }
    for (;;) {
      const key = this.value();
      if (typeof key !== 'string') throw new JsonParseError('key is not a string in object');
      if (this.#pop() !== COLON) throw new JsonParseError('missing : in object pair');
      const value = this.value();
      if (Object.hasOwn(object, key)) throw new JsonParseError('duplicate key');
      setMember(object, key, value);
      const separator = this.#pop();
      if (separator === RCURLY) return object;
      if (separator !== COMMA) throw new JsonParseError('expected separator in dict');
    }
  }

  #array(): unknown[] {
    const array: unknown[] = [];
    this.#next++;
    if (this.#peek() === RSQUARE) {
      this.#next++;
      return array;
    }
    for (;;) {
      array.push(this.value());
      const separator = this.#pop();
      if (separator === RSQUARE) return array;
      if (separator !== COMMA) throw new JsonParseError('expected separator in list');
    }
  }
}

/**
 * Parses one message's tokens into a value.
 *
 * @param keepDoubles keep whole floats as {@link JsonDouble}
 * @throws JsonParseError with QEMU's text for the first fault
 * @see QEMU qobject/json-parser.c
 */
export function parseTokens(tokens: JsonTokens, keepDoubles: boolean): unknown {
  try {
    return new Parser(tokens, keepDoubles).value();
  } catch (error) {
    if (error instanceof JsonStringError) throw new JsonParseError(error.message);
    throw error;
  }
}
