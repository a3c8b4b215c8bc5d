import { ByteReader } from '@wherry/bytes';
import { SectionType } from '@wherry/stream';
import { parseVmdesc } from '@wherry/vmstate';
import type { VmdescModel } from './stream-model.ts';

/** Bytes of a file's tail in which {@link findVmdesc} finds any that a walk parses. */
export const VMDESC_TAIL_BYTES: number = 16 * 1024 * 1024 + 16;

/** Bytes that only look like a vmdesc's beginning are rare; made ones must not cost a parse each. */
const MAX_TRIES = 16;

/**
 * Finds the vmdesc in the tail of a file whose stream has no section footers.
 *
 * @param tail the last bytes of the file, {@link VMDESC_TAIL_BYTES} or all
 * @param offset absolute offset of the tail's first byte
 * @returns undefined when the file does not end with one
 */
export function findVmdesc(tail: Uint8Array, offset: number): VmdescModel | undefined {
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  for (let at = tail.length - 7, tries = 0; at >= 0 && tries < MAX_TRIES; at--) {
    if (tail[at] !== SectionType.vmdescription || tail[at + 5] !== 0x7b) continue;
    const lengthBytes = view.getUint32(at + 1);
    if (at + 5 + lengthBytes !== tail.length) continue;
    tries++;
    try {
      const text = ByteReader.over(tail.subarray(at + 5)).text(lengthBytes);
      return { offset: offset + at, lengthBytes, text, value: parseVmdesc(text, offset + at + 5) };
    } catch {
      // It only looked like one.
    }
  }
  return undefined;
}
