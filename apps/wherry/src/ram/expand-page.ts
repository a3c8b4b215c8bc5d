import { inflateSync } from 'node:zlib';
import type { RamBlockModel } from '@wherry/snapshot';
import { StreamError } from '@wherry/stream';

/**
 * Expands a page of `lengthBytes` that came as a zlib stream at `offset` of the input.
 *
 * @throws StreamError `RAM_RECORD_INVALID` when it is none, or has another length
 */
export function expandPage(
  block: RamBlockModel,
  lengthBytes: number,
  packed: Uint8Array,
  offset: number,
): Uint8Array {
  const fail = (expected: string, found: string): StreamError =>
    new StreamError('RAM_RECORD_INVALID', 'A compressed page cannot be expanded', {
      expected,
      found,
      offset,
      path: ['ram', block.name],
      likely: 'The stream is damaged at this page',
    });
  let page: Buffer;
  try {
    page = inflateSync(packed, { maxOutputLength: lengthBytes });
  } catch (cause) {
    throw fail('a zlib stream of one page', cause instanceof Error ? cause.message : String(cause));
  }
  if (page.length !== lengthBytes) throw fail(`${lengthBytes} bytes of page`, `${page.length}`);
  return page;
}
