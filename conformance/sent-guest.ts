import { join } from 'node:path';
import { expect } from 'vitest';
import type { QemuProcess } from './qemu.ts';
import { type EndedCommand, WherryCommand } from './wherry-command.ts';

/** Runs `wherry send --json` to its end. */
export async function send(...argv: readonly string[]): Promise<EndedCommand> {
  await using command = WherryCommand.start(['send', ...argv, '--json']);
  return await command.ended;
}

/** Has a running guest saved, in rounds, so that some pages are in the stream more than once. */
export async function save(
  source: QemuProcess,
  format: 'stream' | 'mapped-ram' = 'stream',
): Promise<string> {
  await source.waitForPass(5);
  const file = join(source.directory, 'guest.saved');
  if (format === 'stream') await source.migrate(`exec:cat > ${file}`);
  else await source.migrate(`file:${file}`, { capabilities: ['mapped-ram'] });
  return file;
}

/** Expects that the guest goes on behind the last mark of its file. */
export async function expectGoesOn(source: QemuProcess, destination: QemuProcess): Promise<void> {
  const last = source.marks.at(-1)!.pass;
  const marks = await destination.waitForPass(last + 20);
  expect(marks).toEqual(marks.map((_, i) => ({ pass: last + 1 + i, wrongWords: 0 })));
}
