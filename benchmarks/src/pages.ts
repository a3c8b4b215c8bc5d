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
