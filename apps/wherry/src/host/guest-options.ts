import type { MachineOptions, VcpuSpec } from '@wherry/machine';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { formatBytes, parseSize } from '../sizes.ts';

/** A RAM block, and whether other processes share the file that it lies in. */
type RamOption = NonNullable<MachineOptions['blocks']>[number] & {
  readonly share: boolean;
  /** The file, where another host is to find it. */
  readonly memPath?: string;
};

const WORKLOADS: readonly VcpuSpec['workload'][] = ['idle', 'sequential', 'random', 'hotset'];
const HOST_PAGES = [4 * 2 ** 10, 2 * 2 ** 20, 2 ** 30];

/** Options that describe a guest, as commander gives them. */
export interface GuestOptions {
  readonly ram: readonly RamOption[];
  readonly vcpu: readonly VcpuSpec[];
  readonly fill: number;
  readonly machine: string;
  readonly seed: number;
}

const DEFAULT_RAM = ['pc.ram=512M', 'hugemem=128M,page=2M'];
const DEFAULT_VCPU = ['hotset,rate=20000'];

/** Adds the options that describe a guest. */
export function addGuestOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--ram <block>',
        'a RAM block, repeatable: NAME=SIZE[,page=4K|2M|1G][,share=on|off] [,mem-path=FILE]',
      )
        .argParser(collect(parseRam))
        .default(DEFAULT_RAM.map(parseRam), DEFAULT_RAM.join(' ')),
    )
    .addOption(
      new Option(
        '--vcpu <workload>',
        `a vCPU, repeatable: ${WORKLOADS.join('|')}, then [,rate=N] [,hot-pages=X] [,hot-writes=X] [,changes=X]; N in pages/s, 0 for no limit, X a share from 0 to 1`,
      )
        .argParser(collect(parseVcpu))
        .default(DEFAULT_VCPU.map(parseVcpu), DEFAULT_VCPU.join(' ')),
    )
    .addOption(
      new Option('--fill <share>', 'share of the pages that hold data at the start, 0 to 1')
        .argParser((text) => parseNumber(text, 0, 1))
        .default(0.5),
    )
    .option('--machine <type>', 'machine type, as the stream names it', 'pc-q35-5.2')
    .addOption(new Option('--seed <n>', 'seed of the workloads').argParser(parseSeed).default(1));
}

/** The options again as arguments, to start another process with. */
export function guestArguments(options: GuestOptions): string[] {
  return [
    ...options.ram.flatMap(({ name, lengthBytes, hostPageBytes, share, memPath }) => [
      '--ram',
      [
        `${name}=${lengthBytes},page=${hostPageBytes},share=${share ? 'on' : 'off'}`,
        ...(memPath === undefined ? [] : [`mem-path=${memPath}`]),
      ].join(','),
    ]),
    ...options.vcpu.flatMap((v) => ['--vcpu', formatVcpu(v)]),
    ...['--fill', `${options.fill}`, '--machine', options.machine, '--seed', `${options.seed}`],
  ];
}

function formatVcpu(vcpu: VcpuSpec): string {
  const { workload, pagesPerSecond, hotPages, hotWrites, changes } = vcpu;
  const rate = Number.isFinite(pagesPerSecond) ? pagesPerSecond : 0;
  return [
    `${workload},rate=${rate}`,
    ...(hotPages === undefined ? [] : [`hot-pages=${hotPages}`]),
    ...(hotWrites === undefined ? [] : [`hot-writes=${hotWrites}`]),
    ...(changes === undefined ? [] : [`changes=${changes}`]),
  ].join(',');
}

/** Gathers repeated or listed values; the first one given replaces the default. */
function collect<T>(parse: (text: string) => T): (text: string, previous: T[]) => T[] {
  const given: T[] = [];
  return (text) => {
    given.push(parse(text));
    return given;
  };
}

function parseRam(text: string): RamOption {
  const [head = '', ...properties] = text.split(',');
  const equals = head.indexOf('=');
  const name = head.slice(0, equals);
  if (equals < 1)
    throw new InvalidArgumentError(
      `'${text}' is no RAM block: use NAME=SIZE[,page=SIZE][,share=on], as pc.ram=512M.`,
    );
  const lengthBytes = parseSize(head.slice(equals + 1));
  let hostPageBytes = HOST_PAGES[0]!;
  let share = false;
  let memPath: string | undefined;
  for (const [key, value] of parseProperties(properties)) {
    if (key === 'page') hostPageBytes = parseSize(value);
    else if (key === 'share') share = parseSwitch(value);
    else if (key === 'mem-path') memPath = value;
    else {
      throw new InvalidArgumentError(
        `A RAM block has no property '${key}': use page=SIZE, share=on or mem-path=FILE.`,
      );
    }
  }
  if (!HOST_PAGES.includes(hostPageBytes)) {
    throw new InvalidArgumentError(
      `Pages of ${formatBytes(hostPageBytes)} do not exist: use 4K, 2M or 1G.`,
    );
  }
  if (lengthBytes === 0 || lengthBytes % hostPageBytes !== 0) {
    throw new InvalidArgumentError(
      `The size of ${name} is no multiple of its page size (${formatBytes(hostPageBytes)}).`,
    );
  }
  if (memPath !== undefined && !share) {
    throw new InvalidArgumentError(`The file of ${name} is for sharing: add share=on.`);
  }
  return { name, lengthBytes, hostPageBytes, share, ...(memPath === undefined ? {} : { memPath }) };
}

function parseVcpu(text: string): VcpuSpec {
  const [name = '', ...properties] = text.split(',');
  const workload = WORKLOADS.find((w) => w === name);
  if (workload === undefined) {
    throw new InvalidArgumentError(`'${name}' is no workload: use ${WORKLOADS.join(', ')}.`);
  }
  const spec: { -readonly [K in keyof VcpuSpec]: VcpuSpec[K] } = {
    workload,
    pagesPerSecond: 20_000,
  };
  for (const [key, value] of parseProperties(properties)) {
    if (key === 'rate')
      spec.pagesPerSecond = parseNumber(value, 0, 1e9) || Number.POSITIVE_INFINITY;
    else if (key === 'hot-pages') spec.hotPages = parseNumber(value, 0, 1);
    else if (key === 'hot-writes') spec.hotWrites = parseNumber(value, 0, 1);
    else if (key === 'changes') spec.changes = parseNumber(value, 0, 1);
    else {
      throw new InvalidArgumentError(
        `A vCPU has no property '${key}': use rate, hot-pages, hot-writes, changes.`,
      );
    }
  }
  return spec;
}

function parseProperties(properties: readonly string[]): [string, string][] {
  return properties.map((property) => {
    const [key = '', value] = property.split('=', 2);
    if (value === undefined)
      throw new InvalidArgumentError(`'${property}' needs a value: ${key}=….`);
    return [key, value];
  });
}

function parseSwitch(text: string): boolean {
  if (text === 'on' || text === 'off') return text === 'on';
  throw new InvalidArgumentError(`'${text}' is neither on nor off.`);
}

function parseSeed(text: string): number {
  const seed = parseNumber(text, 0, 2 ** 32 - 1);
  if (Number.isInteger(seed)) return seed;
  throw new InvalidArgumentError(`'${text}' is no whole number.`);
}

/** @throws InvalidArgumentError */
export function parseNumber(text: string, least: number, most: number): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= least && value <= most)) {
    throw new InvalidArgumentError(`'${text}' is no number from ${least} to ${most}.`);
  }
  return value;
}
