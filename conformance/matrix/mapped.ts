import { join } from 'node:path';
import { QemuProcess } from '../qemu.ts';
import { WherryCommand } from '../wherry-command.ts';
import type { Way } from './cell.ts';
import { expectGoesOn } from './received.ts';

/** Has QEMU write a mapped-ram file, and a QEMU go on from the stream that `wherry convert` makes of it. */
export const fromMappedFile: Way = async ({ peer, machine, folder, mode }) => {
  await using source = await QemuProcess.start(peer, machine);
  await source.waitForPass(5);
  await source.migrate(`file:${folder}/guest`, mode.settings);
  await convert(folder, 'stream');
  await using loaded = await QemuProcess.start(peer, { ...machine, incoming: 'defer' });
  await loaded.listen(`exec:cat ${folder}/kept`);
  await loaded.waitForMigration();
  await expectGoesOn(loaded, source.marks.at(-1)!.pass);
};

/** Has QEMU go on from the mapped-ram file that `wherry convert` makes of a stream. */
export const intoMappedFile: Way = async ({ peer, machine, folder, mode }) => {
  await using source = await QemuProcess.start(peer, machine);
  await source.waitForPass(5);
  await source.migrate(`exec:cat > ${folder}/guest`);
  await convert(folder, 'mapped-ram');
  await using loaded = await QemuProcess.start(peer, { ...machine, incoming: 'defer' });
  await loaded.listen(`file:${folder}/kept`, mode.settings);
  await loaded.waitForMigration();
  await expectGoesOn(loaded, source.marks.at(-1)!.pass);
};

async function convert(folder: string, format: 'stream' | 'mapped-ram'): Promise<void> {
  const files = [join(folder, 'guest'), join(folder, 'kept')];
  await using command = WherryCommand.start(['convert', ...files, '--to', format]);
  await command.succeeded();
}
