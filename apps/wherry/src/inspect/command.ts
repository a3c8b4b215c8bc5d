import { Command } from 'commander';
import { CliError } from '../cli-error.ts';
import { inspectFile, nameOf } from './inspect-file.ts';
import { type InspectFlags, type InspectOptions, inspectOptions } from './options.ts';
import { escapeControls, writeAll } from './output.ts';
import { keepHeapSmall } from './small-heap.ts';

/** Makes the command `wherry inspect`. */
export function inspectCommand(): Command {
  return new Command('inspect')
    .description('show what a migration stream holds, whole or broken')
    .argument('[files...]', 'files with a migration stream, or - for standard input')
    .option('--json', 'print a JSON object for each file (described in docs/inspect.md)')
    .option('--device <glob>', 'show only devices whose name matches: * any text, ? one character')
    .option('--at <offset>', 'say what the byte at this offset is (0x… or decimal)')
    .option(
      '--schema <file>',
      'describe the devices by another stream of the machine, or by its -dump-vmstate file',
    )
    .option('--ram <dir>', 'write each RAM block to a sparse file in this directory')
    .option('--force', 'let --ram and -x replace files')
    .option('--as <tool>', "print what another tool prints: analyze-migration, QEMU's analyser")
    .option('--desc', 'with --as: the description of the devices, not their state')
    .option('-f, --file <file>', "QEMU's analyser's own option for the file: implies --as")
    .option('-d, --dump <what>', "QEMU's analyser's own option: state or desc; implies --as")
    .option(
      '-x, --extract',
      "QEMU's analyser's own option: desc.json, state.json and RAM into files here",
    )
    .addHelpText(
      'after',
      `
Examples:
  wherry inspect guest.stream
  wherry inspect guest.stream --device '*virtio*'
  wherry inspect guest.stream --at 0x1234
  wherry inspect guest.stream --ram ./ram
  wherry inspect guest.stream --json | jq '.devices[].idstr'
  wherry inspect -f guest.stream -d desc       as scripts/analyze-migration.py

Exit codes: 0 every stream is whole, 1 one is broken, 2 wrong usage.`,
    )
    .action((files: readonly string[], flags: InspectFlags) =>
      inspectAll(inspectOptions(files, flags)),
    );
}

/** Inspects each file in turn. @throws CliError 1 when one is broken, after the last; 2 for a file that cannot be opened */
async function inspectAll(options: InspectOptions): Promise<void> {
  keepHeapSmall();
  const { files, format, schemaPath } = options;
  const schema =
    schemaPath === undefined
      ? undefined
      : await (await import('./schema-file.ts')).readSchemaFile(schemaPath);
  if (files.length === 1) return inspectFile(files[0]!, options, schema);
  let exitCode = 0;
  for (const [i, file] of files.entries()) {
    if (format === 'text') {
      await writeAll(process.stdout, [`${i === 0 ? '' : '\n'}${escapeControls(nameOf(file))}\n`]);
    }
    try {
      await inspectFile(file, options, schema);
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      console.error(`wherry: ${error.message}`);
      exitCode = Math.max(exitCode, error.exitCode);
    }
  }
  if (exitCode !== 0) throw new CliError('', exitCode);
}
