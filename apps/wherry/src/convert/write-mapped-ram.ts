import { ByteWriter } from '@wherry/bytes';
import type { FileRange, StoredGuest } from '@wherry/snapshot';
import { SectionType, writeCommand } from '@wherry/stream';
import { CliError } from '../cli-error.ts';
import { MappedRamWriter } from '../ram/mapped-ram-writer.ts';
import type { Pace } from './pace.ts';
import { runsOf } from './write-memory.ts';

const COPY_BYTES = 1024 * 1024;

/**
 * Writes a guest as a mapped-ram file, synced.
 *
 * @throws CliError 1 for a guest without section footers: no release that loads such files takes it
 */
export async function writeMappedRam(fd: number, guest: StoredGuest, pace: Pace): Promise<void> {
  if (!guest.hasFooters) {
    throw new CliError(
      'The sections of this guest have no footers, which mapped-ram files have: convert it --to stream',
      1,
    );
  }
  const writer = new MappedRamWriter(fd);
  writer.start(guest.configuration, guest.targetPageBytes);
  copy(writer, guest, guest.beforeRam);
  writer.beginRam(guest.ramSectionId);
  for (const block of guest.blocks) writer.begin(block);
  writer.endRam();
  copy(writer, guest, guest.beforePages);
  if (guest.announcesSwitchover) {
    const command = new ByteWriter();
    writeCommand(command, { name: 'switchover-start' });
    writer.append(command.bytes);
  }
  copy(writer, guest, guest.behindPages);
  writer.append(Uint8Array.of(SectionType.eof));
  if (guest.vmdesc !== undefined) copy(writer, guest, [guest.vmdesc]);
  for (const [index, block] of guest.blocks.entries()) {
    for (const { offset, bytes } of runsOf(guest, index, 0, block.usedBytes)) {
      writer.page(block, offset, bytes, 0);
      await pace.wrote(bytes.length);
    }
  }
  await writer.finish();
}

function copy(writer: MappedRamWriter, guest: StoredGuest, ranges: readonly FileRange[]): void {
  const buffer = new Uint8Array(COPY_BYTES);
  for (const { offset, lengthBytes } of ranges) {
    for (let at = 0; at < lengthBytes; ) {
      const room = buffer.subarray(0, Math.min(COPY_BYTES, lengthBytes - at));
      const count = guest.readBytes(room, offset + at);
      if (count === 0) throw new CliError('The file has become shorter since it was opened', 1);
      writer.append(room.subarray(0, count));
      at += count;
    }
  }
}
