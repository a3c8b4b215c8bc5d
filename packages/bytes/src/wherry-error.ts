/** What a {@link WherryError} knows about the input that caused it. */
export interface ErrorDetail {
  /** Absolute byte offset in the input at which the expectation was broken. */
  readonly offset?: number;
  /** Where in the input's structure: section, device, field or RAM block, page; outermost first. */
  readonly path?: readonly string[];
  /** What the reader expected there. */
  readonly expected?: string;
  /** What it found instead. */
  readonly found?: string;
  /** One sentence: why this usually happens, and what to do. */
  readonly likely?: string;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/**
 * The base of every package's error class: a stable code, and for anything read from outside where it
 * went wrong and what to do about it. `message` holds all of it on one line.
 */
export class WherryError<Code extends string = string> extends Error implements ErrorDetail {
  override readonly name: string = 'WherryError';
  /** Stable, documented identifier of the failure. */
  readonly code: Code;
  /** The failure in a few words, without the details. */
  readonly what: string;
  readonly offset?: number;
  readonly path: readonly string[];
  readonly expected?: string;
  readonly found?: string;
  readonly likely?: string;

  constructor(code: Code, what: string, detail: ErrorDetail = {}) {
    super(describe(what, detail), detail.cause === undefined ? undefined : { cause: detail.cause });
    this.code = code;
    this.what = what;
    this.path = detail.path ?? [];
    if (detail.offset !== undefined) this.offset = detail.offset;
    if (detail.expected !== undefined) this.expected = detail.expected;
    if (detail.found !== undefined) this.found = detail.found;
    if (detail.likely !== undefined) this.likely = detail.likely;
  }
}

function describe(what: string, detail: ErrorDetail): string {
  let text = what;
  if (detail.expected !== undefined) text += `: expected ${detail.expected}`;
  if (detail.found !== undefined)
    text += `${detail.expected === undefined ? ':' : ','} found ${detail.found}`;
  if (detail.offset !== undefined) text += `, at offset ${formatOffset(detail.offset)}`;
  if (detail.path !== undefined && detail.path.length > 0)
    text += `, in ${detail.path.join(' > ')}`;
  if (detail.likely !== undefined) text += `. ${detail.likely}`;
  return text;
}

/** Formats a byte offset as people read streams: hexadecimal, with the decimal value behind it. */
export function formatOffset(offset: number): string {
  return `0x${offset.toString(16)} (${offset})`;
}

/** Codes of {@link BytesError}. */
export type BytesErrorCode =
  | 'UNEXPECTED_END'
  | 'LIMIT_EXCEEDED'
  | 'VALUE_OUT_OF_RANGE'
  | 'NOT_TEXT';

/** Says that bytes could not be read or written as asked. */
export class BytesError extends WherryError<BytesErrorCode> {
  override readonly name = 'BytesError';
}
