import type { ByteReader, Parser } from '@wherry/bytes';
import { readSectionBody, StreamError } from '@wherry/stream';

/** Keeps the bodies of sections, up to a limit on all of them together. */
export class BodyStore {
  readonly #maxBytes: number;
  #keptBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Reads a body as {@link readSectionBody} and returns a copy. @throws StreamError also when the store is full */
  *read(reader: ByteReader, sectionId: number, section: string): Parser<Uint8Array> {
    let body = new Uint8Array(1024);
    let length = 0;
    yield* readSectionBody(reader, sectionId, section, (piece) => {
      if (this.#keptBytes + length + piece.length > this.#maxBytes) {
        throw new StreamError('SECTION_TOO_LARGE', 'The device sections are too large to keep', {
          expected: `at most ${this.#maxBytes} bytes in all`,
          offset: reader.offset,
          path: [section],
          likely: 'The stream is damaged, or something other than a virtual machine wrote it',
        });
      }
      if (length + piece.length > body.length) {
        const larger = new Uint8Array(Math.max(length + piece.length, body.length * 2));
        larger.set(body.subarray(0, length));
        body = larger;
      }
      body.set(piece, length);
      length += piece.length;
    });
    this.#keptBytes += length;
    return body.slice(0, length);
  }
}
