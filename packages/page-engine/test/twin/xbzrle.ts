// XBZRLE in plain TypeScript: the reference of the property tests and of the benchmark.

const PAGE_BYTES = 4096;

/** Encodes what has changed from `old` to `page`. @returns undefined where that is longer than a page */
export function encodeXbzrle(old: Uint8Array, page: Uint8Array): Uint8Array | undefined {
  const out = new Uint8Array(2 * PAGE_BYTES + 4);
  let length = 0;
  const putLength = (run: number): void => {
    if (run < 128) {
      out[length++] = run;
    } else {
      out[length++] = (run & 0x7f) | 0x80;
      out[length++] = run >> 7;
    }
  };
  for (let at = 0; at < PAGE_BYTES; ) {
    const unchanged = at;
    while (at < PAGE_BYTES && old[at] === page[at]) at++;
    if (at === PAGE_BYTES) break;
    putLength(at - unchanged);
    const changed = at;
    while (at < PAGE_BYTES && old[at] !== page[at]) at++;
    putLength(at - changed);
    for (let i = changed; i < at; i++) out[length++] = page[i]!;
    if (length > PAGE_BYTES) return undefined;
  }
  return out.subarray(0, length);
}

/** Applies an encoding to a page. @returns where the encoding is wrong, in bytes from its start, or -1 */
export function decodeXbzrle(encoding: Uint8Array, page: Uint8Array): number {
  if (encoding.length > PAGE_BYTES) return 0;
  const result = page.slice();
  let at = 0;
  let offset = 0;
  for (let isChanged = false; at < encoding.length || isChanged; isChanged = !isChanged) {
    const begin = at;
    if (encoding.length - at < 2) return begin;
    let run = encoding[at++]!;
    if (run >= 128) {
      if (encoding[at]! >= 128) return begin;
      run = (run & 0x7f) | (encoding[at++]! << 7);
    }
    if (run === 0 && begin !== 0) return begin;
    if (offset + run > PAGE_BYTES || (isChanged && at + run > encoding.length)) return begin;
    if (isChanged) {
      result.set(encoding.subarray(at, at + run), offset);
      at += run;
    }
    offset += run;
  }
  page.set(result);
  return -1;
}
