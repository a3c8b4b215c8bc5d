import type { Architecture, MemorySegment } from './memory-map.ts';
import type { PlacedSegment } from './write-memory.ts';

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
const ALIGNMENT = 4096;
const ET_CORE = 4;
const PT_LOAD = 1;
const PT_NOTE = 4;
const MACHINES: Readonly<Record<Architecture, number>> = { x86_64: 62, aarch64: 183, riscv64: 243 };

/** The beginning of a core file, and where its memory follows. */
export interface CoreFile {
  readonly head: Buffer;
  readonly segments: readonly PlacedSegment[];
}

/**
 * Lays out an ELF core file: header, program headers, notes, then each segment at a multiple of 4 KiB. Virtual
 * addresses are the guest-physical ones, as QEMU's dump-guest-memory has them without paging.
 *
 * @see dump_begin in QEMU's dump/dump.c
 */
export function layOutCore(
  architecture: Architecture,
  notes: Buffer,
  segments: readonly MemorySegment[],
): CoreFile {
  const count = segments.length + 1;
  const notesOffset = HEADER_BYTES + count * PROGRAM_HEADER_BYTES;
  const head = Buffer.alloc(notesOffset);
  head.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // 64 bits, little-endian, version 1
  head.writeUInt16LE(ET_CORE, 16);
  head.writeUInt16LE(MACHINES[architecture], 18);
  head.writeUInt32LE(1, 20);
  head.writeBigUInt64LE(BigInt(HEADER_BYTES), 32);
  head.writeUInt16LE(HEADER_BYTES, 52);
  head.writeUInt16LE(PROGRAM_HEADER_BYTES, 54);
  head.writeUInt16LE(count, 56);
  let at = HEADER_BYTES;
  const programHeader = (type: number, offset: number, address: number, length: number): void => {
    head.writeUInt32LE(type, at);
    const words = [offset, address, address, length, type === PT_LOAD ? length : 0, 0];
    for (const [i, word] of words.entries()) head.writeBigUInt64LE(BigInt(word), at + 8 + i * 8);
    at += PROGRAM_HEADER_BYTES;
  };
  programHeader(PT_NOTE, notesOffset, 0, notes.length);
  let fileOffset = notesOffset + notes.length;
  const placed = segments.map((segment): PlacedSegment => {
    fileOffset = Math.ceil(fileOffset / ALIGNMENT) * ALIGNMENT;
    const here = { ...segment, fileOffset };
    programHeader(PT_LOAD, fileOffset, segment.gpa, segment.lengthBytes);
    fileOffset += segment.lengthBytes;
    return here;
  });
  return { head: Buffer.concat([head, notes]), segments: placed };
}
