import {
  BLOCK_DRIVERS,
  type BlockdevOptions,
  BlockGraph,
  type BlockNode,
  MachineError,
} from '@wherry/machine';
import { CliError } from '../cli-error.ts';
import { parseSize } from '../sizes.ts';
import { blockFiles } from './block-files.ts';

/** `--drive`: a disk with a device's end. */
export interface Drive {
  readonly id: string | undefined;
  readonly node: BlockdevOptions;
}

/** `--device virtio-blk-pci,drive=…`: the guest's disk. */
export interface DiskDevice {
  /** A device's end or a node, by name. */
  readonly drive: string;
  readonly id: string | undefined;
}

/** The disks of a host. */
export interface BlockOptions {
  readonly blockdev: readonly BlockdevOptions[];
  readonly drive: readonly Drive[];
  readonly disk: DiskDevice | undefined;
}

type Flat = ReadonlyMap<string, string>;

/** Reads QEMU's `key=value,…`, with `,,` for a comma in a value. @throws RangeError */
function parsePairs(text: string): Flat {
  const pairs = new Map<string, string>();
  for (const piece of text.replaceAll(',,', '\0').split(',')) {
    const pair = piece.replaceAll('\0', ',');
    const equals = pair.indexOf('=');
    if (equals < 1) throw new RangeError(`'${pair}' is no key=value.`);
    const key = pair.slice(0, equals);
    if (pairs.has(key)) throw new RangeError(`'${key}' is given twice.`);
    pairs.set(key, pair.slice(equals + 1));
  }
  return pairs;
}

/**
 * Reads a node as QEMU's `-blockdev` has it: `driver=qcow2,node-name=disk0,file.driver=file,file.filename=a.qcow2`,
 * or a JSON object.
 *
 * @throws RangeError
 */
export function parseBlockdev(text: string): BlockdevOptions {
  if (!text.startsWith('{')) return nodeOf(nest(parsePairs(text)), '');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new RangeError(`That is no JSON: ${(error as Error).message}.`);
  }
  return nodeOf(value as Nested, '');
}

type Nested = { [key: string]: string | number | boolean | null | Nested };

/** Turns `file.driver=x` into `{ file: { driver: x } }`. */
function nest(pairs: Flat): Nested {
  const root: Nested = {};
  for (const [path, value] of pairs) {
    const keys = path.split('.');
    const last = keys.pop() ?? '';
    let at = root;
    for (const key of keys) {
      if (!Object.hasOwn(at, key)) at[key] = {};
      const below = at[key];
      if (typeof below !== 'object' || below === null) {
        throw new RangeError(`'${key}' is both a value and a group.`);
      }
      at = below;
    }
    at[last] = value;
  }
  return root;
}

function nodeOf(value: Nested, path: string): BlockdevOptions {
  const options: { -readonly [K in keyof BlockdevOptions]: BlockdevOptions[K] } = { driver: 'raw' };
  if (!Object.hasOwn(value, 'driver'))
    throw new RangeError(`Parameter '${path}driver' is missing.`);
  for (const [key, member] of Object.entries(value)) {
    const name = `${path}${key}`;
    if (key === 'driver') options.driver = driverOf(String(member));
    else if (key === 'node-name' || key === 'filename') options[key] = String(member);
    else if (key === 'read-only') options[key] = isOn(name, String(member));
    else if (key === 'size')
      options.size = typeof member === 'number' ? member : parseSize(String(member));
    else if (key === 'file' || key === 'backing') {
      if (typeof member === 'object' && member !== null) options[key] = nodeOf(member, `${name}.`);
      else if (key === 'backing' && (member === null || member === '')) options.backing = null;
      else options[key] = String(member);
    } else if (!(key === 'read-zeroes' && isOn(name, String(member)))) {
      // QEMU's null-co gives garbage unless told; here it always reads as zeros.
      throw new RangeError(`Parameter '${name}' is unexpected.`);
    }
  }
  return options;
}

function driverOf(name: string): BlockdevOptions['driver'] {
  const driver = BLOCK_DRIVERS.find((known) => known === name && known !== 'mirror_top');
  if (driver !== undefined) return driver;
  const known = BLOCK_DRIVERS.filter((driver) => driver !== 'mirror_top').join(', ');
  throw new RangeError(`'${name}' is no driver here: use ${known}.`);
}

function isOn(key: string, value: string): boolean {
  if (value === 'on' || value === 'true') return true;
  if (value === 'off' || value === 'false') return false;
  throw new RangeError(`Parameter '${key}' expects 'on' or 'off'.`);
}

/**
 * Reads a disk as QEMU's `-drive` has it: `file=a.qcow2,format=qcow2,if=none,id=disk0[,node-name=N][,readonly=on]`.
 *
 * @throws RangeError
 */
export function parseDrive(text: string): Drive {
  const pairs = parsePairs(text);
  let id: string | undefined;
  const node: { -readonly [K in keyof BlockdevOptions]: BlockdevOptions[K] } = { driver: 'raw' };
  let filename: string | undefined;
  for (const [key, value] of pairs) {
    if (key === 'id') id = value;
    else if (key === 'file') filename = value;
    else if (key === 'format') node.driver = driverOf(value);
    else if (key === 'node-name') node[key] = value;
    else if (key === 'readonly') node['read-only'] = isOn(key, value);
    else if (key !== 'if' || value !== 'none') {
      throw new RangeError(
        key === 'if'
          ? `if=${value} is not supported here: use if=none, and --device virtio-blk-pci,drive=ID.`
          : `Block format does not support the option '${key}': use file, format, id, node-name, readonly, if=none.`,
      );
    }
  }
  if (pairs.get('if') === undefined)
    throw new RangeError('if=none is missing: no other interface is supported here.');
  if (!pairs.has('format'))
    throw new RangeError(
      'format is missing: a guest could turn a raw image into one of another format.',
    );
  if (filename === undefined) throw new RangeError('file is missing.');
  const readOnly = node['read-only'] === true;
  return { id, node: { ...node, file: { driver: 'file', filename, 'read-only': readOnly } } };
}

/** Tells whether a `--device` is a disk, which has its drive. */
export function isDiskDevice(text: string): boolean {
  return /^virtio-blk(-pci)?(,|$)/.test(text);
}

/** Reads `virtio-blk-pci,drive=NAME[,id=ID]`. @throws RangeError */
export function parseDiskDevice(text: string): DiskDevice {
  const comma = text.indexOf(',');
  const pairs = comma < 0 ? new Map<string, string>() : parsePairs(text.slice(comma + 1));
  for (const key of pairs.keys()) {
    if (key !== 'drive' && key !== 'id')
      throw new RangeError(`Property 'virtio-blk-pci.${key}' not found.`);
  }
  const drive = pairs.get('drive');
  if (drive === undefined) throw new RangeError('drive property not set');
  return { drive, id: pairs.get('id') };
}

/**
 * Opens the disks.
 *
 * @param inactive the guest arrives later: another host may still write them
 * @throws CliError
 */
export function openDisks(options: BlockOptions, inactive: boolean): BlockGraph {
  const graph = new BlockGraph({ files: blockFiles, inactive, random: Math.random });
  try {
    for (const blockdev of options.blockdev) {
      if (blockdev['node-name'] === undefined) {
        throw new CliError("'node-name' must be specified for the root node", 2);
      }
      graph.add(blockdev);
    }
    for (const [index, { id, node }] of options.drive.entries()) {
      graph.addBackend(id ?? `none${index}`, graph.add(node));
    }
    if (options.disk !== undefined) attach(graph, options.disk);
  } catch (error) {
    graph.close();
    if (error instanceof MachineError) throw new CliError(error.message, 2);
    throw error;
  }
  return graph;
}

function attach(graph: BlockGraph, { drive, id }: DiskDevice): void {
  const qdev =
    id === undefined
      ? '/machine/peripheral-anon/device[0]/virtio-backend'
      : `/machine/peripheral/${id}/virtio-backend`;
  const backend = graph.backends.find(({ name }) => name === drive);
  if (backend !== undefined) {
    backend.qdev = qdev;
    return;
  }
  const root: BlockNode = graph.find(drive);
  graph.addBackend('', root, qdev);
}
