import { StreamError } from './stream-error.ts';

/** Where an encoding lies, for the errors of {@link applyXbzrle}. */
export interface XbzrlePlace {
  /** Absolute offset of the encoding's first byte. */
  readonly offset: number;
  /** Section, RAM block and page; outermost first. */
  readonly path: readonly string[];
}

/**
 * Lays an XBZRLE encoding over the page that was sent before, in place.
 *
 * An encoding is pairs of runs: so many bytes stay, so many follow and replace. What the last pair
 * leaves of the page stays too.
 *
 * @param page the page as it was last sent; only validated against when undefined
 * @param pageBytes the page's length
 * @throws StreamError `XBZRLE_INVALID`; the page may hold a part of the change then
 * @see xbzrle_decode_buffer in QEMU's migration/xbzrle.c
 */
export function applyXbzrle(
  page: Uint8Array | undefined,
  encoded: Uint8Array,
  pageBytes: number,
  place: XbzrlePlace,
): void {
  let from = 0;
  let to = 0;
  while (from < encoded.length) {
    const pairAt = from;
    const keep = readRun(encoded, from, place);
    from += encoded[from]! < 128 ? 1 : 2;
    if (keep === 0 && pairAt > 0) {
      throw invalid('bytes that stay between two changes', 'none', pairAt, place);
    }
    to += keep;
    const replace = readRun(encoded, from, place);
    if (replace === 0) throw invalid('bytes that change', 'none', from, place);
    from += encoded[from]! < 128 ? 1 : 2;
    if (to + replace > pageBytes) {
      throw invalid(`at most ${pageBytes} bytes of page`, `${to + replace}`, pairAt, place);
    }
    if (replace > encoded.length - from) {
      throw invalid(`${replace} new bytes`, `${encoded.length - from} left`, from, place);
    }
    page?.set(encoded.subarray(from, from + replace), to);
    from += replace;
    to += replace;
  }
}

/** Reads the length of a run: seven bits, and seven more in a second byte when the first has its high bit. */
function readRun(encoded: Uint8Array, at: number, place: XbzrlePlace): number {
  // QEMU wants two bytes even for a length of one: a run of new bytes follows it in any case.
  if (encoded.length - at < 2) {
    throw invalid('the length of a run and what follows it', 'the end', at, place);
  }
  const low = encoded[at]!;
  if (low < 128) return low;
  const high = encoded[at + 1]!;
  if (high > 127) {
    throw invalid('at most 127 as the high part of a length', `${high}`, at + 1, place);
  }
  return (low & 127) | (high << 7);
}

function invalid(expected: string, found: string, at: number, place: XbzrlePlace): StreamError {
  return new StreamError('XBZRLE_INVALID', 'An XBZRLE page cannot be decoded', {
    expected,
    found,
    offset: place.offset + at,
    path: place.path,
    likely: 'The stream is damaged here, or before this point',
  });
}
