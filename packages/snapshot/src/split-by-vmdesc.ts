import { type ByteReader, need, type Parser } from '@wherry/bytes';
import { SectionType, StreamError } from '@wherry/stream';
import type { VmdescDevice, VmdescState } from '@wherry/vmstate';
import type { VmdescModel } from './stream-model.ts';

/** The bytes before an idstr in a section's head: type, section id and the length of the name. */
const HEAD_BYTES = 6;
/** How far the next section is looked for where a length is wrong; no such machine has more state. */
const MAX_SCAN_BYTES = 16 * 1024 * 1024;

const encoder = new TextEncoder();

/**
 * Finds where device sections end in a stream without section footers, by its vmdesc read beforehand.
 *
 * The vmdesc lists the sections in stream order with their lengths. A length can be wrong (QEMU before
 * 10.0 describes arrays of pointers with holes wrongly), so what follows decides: the head of the next
 * listed section, or the end with the vmdesc behind it.
 */
export class VmdescSplit {
  readonly #devices: readonly VmdescDevice[];
  /** The end of the sections, then the vmdesc's type and length. */
  readonly #ending: Uint8Array;
  #next = 0;
  #nextName: Uint8Array = new Uint8Array(0);

  constructor({ value, lengthBytes }: VmdescModel) {
    this.#devices = value?.devices ?? [];
    this.#ending = new Uint8Array(6);
    this.#ending.set([SectionType.eof, SectionType.vmdescription]);
    new DataView(this.#ending.buffer).setUint32(2, lengthBytes);
  }

  /**
   * Reads the body of the section whose head was just read.
   *
   * @param sink gets each piece of the body, a view that is valid during the call
   * @returns the body's length in bytes
   * @throws StreamError `FOOTERS_ABSENT` when the vmdesc does not tell where the section ends
   */
  *readBody(
    reader: ByteReader,
    idstr: string,
    instanceId: number,
    sink: (piece: Uint8Array) => void,
  ): Parser<number> {
    const { offset } = reader;
    const index = this.#find(idstr, instanceId);
    if (index < 0) throw unknownEnd(idstr, 'no entry for it in the vmdesc', offset);
    this.#next = index + 1;
    this.#nextName = encoder.encode(this.#devices[this.#next]?.name);
    const described = lengthOf(this.#devices[index]!);
    const longestEnd = HEAD_BYTES + 255 + 4;
    if (described + longestEnd <= reader.capacityBytes) {
      while (reader.available < described + longestEnd && !reader.ended) {
        yield described + longestEnd;
      }
      if (this.#isEnd(reader, described)) {
        sink(reader.view(described));
        return described;
      }
    }
    for (let length = 0; length <= MAX_SCAN_BYTES; length++) {
      while (reader.available < longestEnd && !reader.ended) yield longestEnd;
      if (this.#isNextListed(reader, 0)) return length;
      yield* need(reader, 1);
      sink(reader.view(1));
    }
    throw unknownEnd(idstr, `no other section within ${MAX_SCAN_BYTES} bytes`, offset);
  }

  /** Finds the entry of a section among those that were not passed. */
  #find(idstr: string, instanceId: number): number {
    for (let i = this.#next; i < this.#devices.length; i++) {
      const { name, instance_id: id } = this.#devices[i]!;
      if (name === idstr && id === instanceId) return i;
    }
    return -1;
  }

  /** Tells whether an item can begin `at` bytes ahead. */
  #isEnd(reader: ByteReader, at: number): boolean {
    if (reader.available <= at) return false;
    const type = reader.peekU8(at);
    if (type === SectionType.eof || type === SectionType.full)
      return this.#isNextListed(reader, at);
    return type <= SectionType.full || type === SectionType.command;
  }

  #isNextListed(reader: ByteReader, at: number): boolean {
    const start = reader.start + at;
    const bytes = reader.storage.subarray(start, reader.end);
    const next = this.#devices[this.#next];
    if (next === undefined) return this.#ending.every((byte, i) => bytes[i] === byte);
    const name = this.#nextName;
    if (bytes[0] !== SectionType.full || bytes[HEAD_BYTES - 1] !== name.length) return false;
    if (bytes.length < HEAD_BYTES + name.length + 4) return false;
    if (!name.every((byte, i) => bytes[HEAD_BYTES + i] === byte)) return false;
    return reader.peekU32(at + HEAD_BYTES + name.length) === next.instance_id;
  }
}

function lengthOf(state: Partial<VmdescState> & { readonly size?: number }): number {
  if (state.vmsd_name === undefined && state.size !== undefined) return state.size;
  let length = 0;
  for (const { array_len: elements = 1, size } of state.fields ?? []) length += elements * size;
  for (const subsection of state.subsections ?? []) {
    length += 2 + encoder.encode(subsection.vmsd_name).length + 4 + lengthOf(subsection);
  }
  return length;
}

function unknownEnd(idstr: string, found: string, offset: number): StreamError {
  return new StreamError('FOOTERS_ABSENT', 'The end of a section without footer cannot be found', {
    expected: 'a vmdesc that lists the sections in their order',
    found,
    offset,
    path: [idstr],
    likely: 'The stream is damaged here, or its sections are others than its vmdesc says',
  });
}
