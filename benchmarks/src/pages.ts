import type { RamBlock } from '@wherry/page-engine';

const CHUNK_BYTES = 2 ** 20;

/** Fills a block with pseudo-random bytes, the same for the same seed. */
export function fillRandom(block: RamBlock, seed = 1): void {
  const words = new Uint32Array(CHUNK_BYTES / 4);
  const bytes = new Uint8Array(words.buffer);
  let state = seed | 1;
  for (let offset = 0; offset < block.lengthBytes; offset += CHUNK_BYTES) {
    for (let i = 0; i < words.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      words[i] = state;
    }
    const length = Math.min(CHUNK_BYTES, block.lengthBytes - offset);
    block.view(offset, length).set(bytes.subarray(0, length));
  }
}

/** Fills a block with zeroes that were written, so that each page has memory of its own. */
export function fillZero(block: RamBlock): void {
  const bytes = block.view(0, block.lengthBytes);
  bytes.fill(1);
  bytes.fill(0);
}

/** Fills a block with pages that are zero up to their last byte: the scan's longest way to "no". */
export function fillZeroButLast(block: RamBlock): void {
  fillZero(block);
  const bytes = block.view(0, block.lengthBytes);
  for (let end = 4096; end <= bytes.length; end += 4096) bytes[end - 1] = 1;
}

/** Changes 26 words of 8 bytes of each page, 5 % of it, as stores do. */
export function changeWords(block: RamBlock): void {
  change(block, 26, 8);
}

/** Changes 205 single bytes of each page, 5 % of it. */
export function changeBytes(block: RamBlock): void {
  change(block, 205, 1);
}

/** Changes so many places of each page, all of their bytes. */
function change(block: RamBlock, places: number, lengthBytes: number): void {
  const bytes = block.view(0, block.lengthBytes);
  const order = Uint16Array.from({ length: 4096 / lengthBytes }, (_, i) => i);
  let state = 1;
  for (let page = 0; page < bytes.length; page += 4096) {
    for (let i = 0; i < places; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      // The first of a shuffle: no place twice.
      const other = i + ((state >>> 0) % (order.length - i));
      const place = order[other]!;
      order[other] = order[i]!;
      order[i] = place;
      const at = page + place * lengthBytes;
      for (let byte = at; byte < at + lengthBytes; byte++) bytes[byte]! ^= 0xa5;
    }
  }
}
