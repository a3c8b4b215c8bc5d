import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import { readCommand } from '@wherry/stream';
import { DeviceRegistry } from '@wherry/vmstate';
import { expect, test } from 'vitest';
import { SourceFrames } from './source-frames.ts';

test('a discard of nothing is of a block that QEMU can discard nothing of', async () => {
  const ram = await GuestRam.create([
    { name: 'huge', lengthBytes: 2 ** 17, hostPageBytes: 2 ** 16 },
    { name: 'small', lengthBytes: 2 ** 16, hostPageBytes: 4096 },
  ]);
  const writer = new ByteWriter();
  new SourceFrames(writer, 'pc-q35-5.2', new DeviceRegistry([])).discards([], ram);
  const reader = ByteReader.over(writer.finish());
  reader.skip(1);
  const ranges = [{ start: 0, length: 0 }];
  const expected = { name: 'postcopy-ram-discard', block: 'small', ranges };
  expect(runParser(readCommand(reader), reader)).toEqual(expected);
});
