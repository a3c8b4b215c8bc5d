import {
  LCURLY,
  LEXICAL_ERROR,
  LOOKAHEAD,
  LSQUARE,
  RCURLY,
  RECOVERY,
  RSQUARE,
  START,
  transition,
} from './json-lexer.ts';
import { JsonParseError, parseTokens } from './json-parser.ts';

/** One JSON value of the stream, or what is wrong in its place, in QEMU's words. */
export type JsonItem =
  | { readonly kind: 'value'; readonly value: unknown; readonly offset: number }
  | { readonly kind: 'error'; readonly message: string; readonly offset: number };

export interface JsonStreamOptions {
  /** Limit of one value's tokens, white space not counted; 16 MiB unless told. */
  readonly maxMessageBytes?: number;
  /** Limit of one value's tokens; 1 Mi unless told. */
  readonly maxTokens?: number;
  /** Limit of open brackets and braces; 1024 unless told. */
  readonly maxNesting?: number;
  /** Keeps floats with a whole value apart from integers, as {@link JsonDouble}. */
  readonly keepDoubles?: boolean;
}

const SMALL_BUFFER = 4096;
/** A buffer that grew beyond this is given back once it is empty. */
const LARGE_BUFFER = 256 * 1024;
const MAX_STRAY_BYTES = 1024;

/**
 * Splits a stream of bytes into JSON values, whatever the chunk boundaries: values may follow each
 * other with or without white space. Integers beyond 2^53 come as `bigint`. Answers broken input
 * with QEMU's error texts and goes on at the same place as QEMU.
 *
 * @see QEMU qobject/json-streamer.c
 */
export class JsonStream {
  readonly #maxMessageBytes: number;
  readonly #maxTokens: number;
  readonly #maxNesting: number;
  readonly #keepDoubles: boolean;

  /** What is pushed and unread is `#unread[#from, #to)`; `#from` stands at offset `#offset`. */
  #unread = new Uint8Array(SMALL_BUFFER);
  #from = 0;
  #to = 0;
  #offset = 0;
  #highSurrogate = '';

  #state = START;
  #braces = 0;
  #brackets = 0;
  #bytes = new Uint8Array(SMALL_BUFFER);
  #length = 0;
  #tokenStart = 0;
  #messageOffset = 0;
  #types: number[] = [];
  #starts: number[] = [];

  constructor(options: JsonStreamOptions = {}) {
    this.#maxMessageBytes = options.maxMessageBytes ?? 16 << 20;
    this.#maxTokens = options.maxTokens ?? 1 << 20;
    this.#maxNesting = options.maxNesting ?? 1024;
    this.#keepDoubles = options.keepDoubles ?? false;
  }

  /** Counts the bytes pushed and not yet looked at by {@link next}. */
  get pendingBytes(): number {
    return this.#to - this.#from;
  }

  /** Appends a chunk; copies it, so that its buffer can be used again. */
  push(chunk: Uint8Array | string): void {
    const bytes = typeof chunk === 'string' ? this.#encode(chunk) : chunk;
    if (this.#to + bytes.length > this.#unread.length) this.#makeRoom(bytes.length);
    this.#unread.set(bytes, this.#to);
    this.#to += bytes.length;
  }

  /** Returns the next value or error, or `undefined` when more bytes are needed. */
  next(): JsonItem | undefined {
    while (this.#from < this.#to) {
      const byte = this.#unread[this.#from]!;
      const result = transition(this.#state, byte);
      if ((result & LOOKAHEAD) === 0) {
        if (this.#length === 0) this.#messageOffset = this.#offset;
        this.#append(byte);
        this.#from++;
        this.#offset++;
      }
      const item = this.#enter(result & ~LOOKAHEAD);
      if (item !== undefined) return item;
    }
    this.#from = 0;
    this.#to = 0;
    if (this.#unread.length > LARGE_BUFFER) this.#unread = new Uint8Array(SMALL_BUFFER);
    return undefined;
  }

  #makeRoom(lengthBytes: number): void {
    const pending = this.#unread.subarray(this.#from, this.#to);
    const needed = pending.length + lengthBytes;
    if (needed * 2 > this.#unread.length) {
      this.#unread = new Uint8Array(Math.max(needed * 2, SMALL_BUFFER));
    }
    this.#unread.set(pending);
    this.#from = 0;
    this.#to = pending.length;
  }

  #encode(text: string): Uint8Array {
    let whole = this.#highSurrogate + text;
    this.#highSurrogate = '';
    if (/[\ud800-\udbff]$/.test(whole)) {
      this.#highSurrogate = whole.slice(-1);
      whole = whole.slice(0, -1);
    }
    return new TextEncoder().encode(whole);
  }

  #append(byte: number): void {
    if (this.#length === this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#length++] = byte;
  }

  #enter(result: number): JsonItem | undefined {
    if (result > LEXICAL_ERROR && result < START) {
      this.#state = START;
      return this.#token(result);
    }
    if (result === LEXICAL_ERROR) {
      this.#state = RECOVERY;
      return this.#fail(`JSON parse error, stray '${this.#strayText()}'`);
    }
    this.#state = result;
    if (result === START || result === RECOVERY) {
      this.#length = this.#tokenStart;
      return undefined;
    }
    if (this.#length >= this.#maxMessageBytes) {
      this.#state = RECOVERY; // QEMU would read the rest of the token as values
      return this.#fail('JSON token size limit exceeded');
    }
    return undefined;
  }

  /** The token that broke, cut as C would at a NUL and at 1 KiB. */
  #strayText(): string {
    const token = this.#bytes.subarray(this.#tokenStart, this.#length);
    const nul = token.indexOf(0);
    const end = Math.min(nul < 0 ? token.length : nul, MAX_STRAY_BYTES);
    return new TextDecoder().decode(token.subarray(0, end));
  }

  #token(type: number): JsonItem | undefined {
    if (type === LCURLY) this.#braces++;
    else if (type === RCURLY) this.#braces--;
    else if (type === LSQUARE) this.#brackets++;
    else if (type === RSQUARE) this.#brackets--;
    if (this.#length + 1 > this.#maxMessageBytes) {
      return this.#fail('JSON token size limit exceeded');
    }
    if (this.#types.length >= this.#maxTokens) {
      return this.#fail('JSON token count limit exceeded');
    }
    if (this.#braces + this.#brackets > this.#maxNesting) {
      return this.#fail('JSON nesting depth limit exceeded');
    }
    this.#types.push(type);
    this.#starts.push(this.#tokenStart);
    this.#tokenStart = this.#length;
    const isOpen = this.#braces > 0 || this.#brackets > 0;
    if (isOpen && this.#braces >= 0 && this.#brackets >= 0) return undefined;
    return this.#message();
  }

  #message(): JsonItem {
    const tokens = {
      count: this.#types.length,
      types: this.#types,
      starts: this.#starts,
      bytes: this.#bytes,
      length: this.#length,
    };
    try {
      const value = parseTokens(tokens, this.#keepDoubles);
      const item: JsonItem = { kind: 'value', value, offset: this.#messageOffset };
      this.#reset();
      return item;
    } catch (error) {
      if (!(error instanceof JsonParseError)) throw error;
      return this.#fail(`JSON parse error, ${error.message}`);
    }
  }

  #fail(message: string): JsonItem {
    const item: JsonItem = { kind: 'error', message, offset: this.#messageOffset };
    this.#reset();
    return item;
  }

  #reset(): void {
    this.#braces = 0;
    this.#brackets = 0;
    this.#types = [];
    this.#starts = [];
    this.#length = 0;
    this.#tokenStart = 0;
    if (this.#bytes.length > LARGE_BUFFER) this.#bytes = new Uint8Array(SMALL_BUFFER);
  }
}
