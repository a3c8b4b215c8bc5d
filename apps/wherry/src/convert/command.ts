import { fstatSync, fsyncSync, ftruncateSync, writeSync } from 'node:fs';
import { WherryError } from '@wherry/bytes';
import { Command, InvalidArgumentError, Option } from 'commander';
import { CliError } from '../cli-error.ts';
import { diagnose, formatDiagnosis } from '../inspect/diagnosis.ts';
import { escapeControls } from '../inspect/output.ts';
import { formatTable } from '../inspect/table.ts';
import { KeptFile } from '../receive/kept-file.ts';
import { formatBytes, formatMs, parseSize } from '../sizes.ts';
import { type OpenedGuest, openStoredGuest } from '../stored/open-guest.ts';
import { layOutCore } from './core-file.ts';
import { x86Notes } from './core-notes.ts';
import { type Architecture, type MapOption, memoryMap } from './memory-map.ts';
import { Pace } from './pace.ts';
import { x86Registers } from './vcpu-registers.ts';
import { writeMappedRam } from './write-mapped-ram.ts';
import { writeMemory } from './write-memory.ts';
import { writeStream } from './write-stream.ts';

type Format = 'stream' | 'mapped-ram' | 'raw' | 'elf';

interface ConvertOptions {
  readonly to: Format;
  readonly map?: readonly MapOption[];
  readonly arch?: Architecture;
  readonly json?: boolean;
}

/** What came of a conversion, as `--json` prints it. */
interface ConvertReport {
  readonly status: 'completed';
  readonly file: string;
  readonly format: Format;
  readonly machineType: string | null;
  /** Length of the file; holes count. */
  readonly lengthBytes: number;
  /** Room that it takes on the disk. */
  readonly diskBytes: number;
  /** vCPUs whose registers are in a core file. */
  readonly vcpus?: number;
  readonly timeMs: number;
}

/** Makes the command `wherry convert`. */
export function convertCommand(): Command {
  return new Command('convert')
    .description('turn a guest in a file into another format')
    .argument(
      '<in>',
      'a migration stream, a mapped-ram file or a libvirt save image; - for standard input',
    )
    .argument('<out>', 'the file to write; it appears when it is whole')
    .addOption(
      new Option('--to <format>', 'what to write')
        .choices(['stream', 'mapped-ram', 'raw', 'elf'])
        .makeOptionMandatory(),
    )
    .option(
      '--map <block[@start-end]=address>',
      'where the guest has a RAM block, or a range of it, for raw and elf; repeatable',
      addMap,
    )
    .addOption(
      new Option('--arch <name>', 'processor of a core file, with --map').choices([
        'x86_64',
        'aarch64',
        'riscv64',
      ]),
    )
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      `
Formats:
  stream      each page once: -incoming "exec:cat FILE" of any release
  mapped-ram  each page in its place: -incoming file:FILE, from QEMU 9.0 on
  raw         the guest's physical memory: an address is an offset in the file
  elf         a core file of physical memory and registers, for gdb and the like

Examples:
  wherry convert guest.qevm guest.mapped --to mapped-ram
  wherry convert guest.qevm guest.core --to elf`,
    )
    .action((from: string, to: string, options: ConvertOptions) => convert(from, to, options));
}

async function convert(from: string, to: string, options: ConvertOptions): Promise<void> {
  const isImage = options.to === 'raw' || options.to === 'elf';
  if (!isImage && (options.map !== undefined || options.arch !== undefined)) {
    throw new CliError('--map and --arch are for raw and elf: streams have no addresses', 2);
  }
  const startMs = performance.now();
  const interrupt = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    const exitCode = signal === 'SIGINT' ? 130 : 143;
    interrupt.abort(new CliError(`Interrupted: nothing was written to ${to}`, exitCode));
  };
  using opened = await openStoredGuest(from, options.json === true);
  const file = await KeptFile.create(to);
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const vcpus = await write(file.fd, opened, options, to, interrupt.signal);
    fsyncSync(file.fd);
    interrupt.signal.throwIfAborted();
    const { size, blocks } = fstatSync(file.fd);
    await file.keep();
    const report: ConvertReport = {
      status: 'completed',
      file: to,
      format: options.to,
      machineType: opened.model.configuration?.machineType ?? null,
      lengthBytes: size,
      diskBytes: blocks * 512,
      ...(vcpus === undefined ? {} : { vcpus }),
      timeMs: Math.round(performance.now() - startMs),
    };
    console.log(options.json === true ? JSON.stringify(report) : escapeControls(format(report)));
  } catch (error) {
    throw toFailure(interrupt.signal.aborted ? interrupt.signal.reason : error, to);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    await file.discard();
  }
}

/** Writes the file. @returns for a core file, how many vCPUs are in it */
async function write(
  fd: number,
  { guest, model }: OpenedGuest,
  options: ConvertOptions,
  name: string,
  signal: AbortSignal,
): Promise<number | undefined> {
  const total = guest.blocks.reduce((sum, { usedBytes }) => sum + usedBytes, 0);
  using pace = new Pace(name, total, signal, options.json === true);
  if (options.to === 'stream') {
    await writeStream(fd, guest, pace, signal);
    return undefined;
  }
  if (options.to === 'mapped-ram') {
    await writeMappedRam(fd, guest, pace);
    return undefined;
  }
  const machineType = model.configuration?.machineType;
  const { segments, architecture } = memoryMap(machineType, guest.blocks, options.map ?? []);
  const last = segments.at(-1)!;
  if (options.to === 'raw') {
    const placed = segments.map((segment) => ({ ...segment, fileOffset: segment.gpa }));
    await writeMemory(fd, guest, placed, pace);
    ftruncateSync(fd, last.gpa + last.lengthBytes);
    return undefined;
  }
  const processor = options.arch ?? architecture;
  if (processor === undefined) {
    throw new CliError(
      `The processor of ${machineType ?? 'this machine'} is not known: name it with --arch`,
      2,
    );
  }
  const vcpus = processor === 'x86_64' ? x86Registers(model) : [];
  const core = layOutCore(processor, x86Notes(vcpus), segments);
  writeSync(fd, core.head, 0, core.head.length, 0);
  await writeMemory(fd, guest, core.segments, pace);
  const end = core.segments.at(-1)!;
  ftruncateSync(fd, end.fileOffset + end.lengthBytes);
  return vcpus.length;
}

function toFailure(error: unknown, path: string): unknown {
  if (error instanceof WherryError) {
    const lines = formatDiagnosis(diagnose(error, []));
    return new CliError(escapeControls(`Nothing was written to ${path}: ${lines}`), 1);
  }
  if (error instanceof CliError || !(error instanceof Error) || !('code' in error)) return error;
  return new CliError(`Nothing was written to ${path}: ${error.message}`, 1);
}

function format(report: ConvertReport): string {
  const { lengthBytes, diskBytes, vcpus } = report;
  return formatTable(
    ['status', report.status],
    [
      ['file', report.file],
      ['format', report.format],
      ['machine type', report.machineType ?? 'not stated'],
      ['length', `${formatBytes(lengthBytes)}, ${formatBytes(diskBytes)} on the disk`],
      ...(vcpus === undefined ? [] : [['vCPUs with registers', `${vcpus}`]]),
      ['time', formatMs(report.timeMs)],
    ],
  );
}

/** Adds one `--map`. @throws InvalidArgumentError */
function addMap(text: string, maps: readonly MapOption[] = []): readonly MapOption[] {
  const number = '(0x[0-9a-f]{1,13}|\\d{1,15}[KMGT]?)';
  const match = new RegExp(`^(.+?)(?:@${number}-${number})?=${number}$`, 'i').exec(text);
  if (match === null) {
    throw new InvalidArgumentError(
      `'${text}' is no BLOCK=ADDRESS or BLOCK@START-END=ADDRESS, such as pc.ram@0-3G=0.`,
    );
  }
  const [, block = '', start, end, gpa = ''] = match;
  const map: MapOption = {
    block,
    start: start === undefined ? 0 : numberOf(start),
    ...(end === undefined ? {} : { end: numberOf(end) }),
    gpa: numberOf(gpa),
  };
  return [...maps, map];
}

function numberOf(text: string): number {
  return text.startsWith('0x') ? Number(text) : parseSize(text);
}
