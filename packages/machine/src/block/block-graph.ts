import { MachineError } from '../machine-error.ts';
import type { BlockFile } from './block-file.ts';
import { BLOCK_DRIVERS, type BlockDriver, BlockNode, type BlockNodeInit } from './block-node.ts';
import { isQcow2, readQcow2Header } from './qcow2-header.ts';

/** How long a chain of backing files may be. */
const MAX_DEPTH = 200;
const MAX_NAME_BYTES = 31;

/** Where images come from. */
export interface BlockFiles {
  /** Gives the one name of a file, seen from the file that mentions it. */
  resolve(filename: string, relativeTo?: string): string;
  /** @throws Error as the platform gives it */
  open(path: string, readOnly: boolean): BlockFile;
}

/** Describes a node. @see BlockdevOptions in QEMU's qapi/block-core.json */
export interface BlockdevOptions {
  readonly driver: BlockDriver;
  readonly 'node-name'?: string;
  readonly 'read-only'?: boolean;
  /** Of `file`. */
  readonly filename?: string;
  /** Of `null-co`; default 1 GiB. */
  readonly size?: number;
  /** Of all others: a node's name, or a description of a new one. */
  readonly file?: string | BlockdevOptions;
  /** Of `qcow2`; without it the image says. */
  readonly backing?: string | BlockdevOptions | null;
}

/** A device's end of the graph. @see BlockBackend in QEMU's block/block-backend.c */
export interface BlockBackend {
  /** Empty where the user gave none. */
  readonly name: string;
  /** The device that uses it. */
  qdev: string | undefined;
  root: BlockNode;
}

/** What {@link BlockGraph} takes. */
export interface BlockGraphOptions {
  readonly files: BlockFiles;
  /** The guest arrives later: images are another host's until {@link BlockGraph.activate}. */
  readonly inactive?: boolean;
  /** A number from 0 to 1, for generated names. */
  readonly random: () => number;
}

/**
 * The nodes of a guest's disks, and the devices' ends of it.
 *
 * @see QEMU's block.c
 */
export class BlockGraph {
  readonly #options: BlockGraphOptions;
  readonly #nodes: BlockNode[] = [];
  readonly #backends: BlockBackend[] = [];
  #inactive: boolean;
  #generated = 0;

  constructor(options: BlockGraphOptions) {
    this.#options = options;
    this.#inactive = options.inactive === true;
  }

  /** All nodes, oldest first. */
  get nodes(): readonly BlockNode[] {
    return this.#nodes;
  }
  get backends(): readonly BlockBackend[] {
    return this.#backends;
  }

  /**
   * Adds a node, and those below it that are described with it; all of them or none.
   *
   * @throws MachineError `BLOCK_NODE`, `IMAGE_INVALID`, `IMAGE_UNSUPPORTED`
   * @see bdrv_open_inherit in QEMU's block.c
   */
  add(options: BlockdevOptions): BlockNode {
    const before = this.#nodes.length;
    try {
      return this.#open(options, []);
    } catch (error) {
      for (const node of this.#nodes.splice(before)) node.close();
      throw error;
    }
  }

  /** Adds a device's end; `name` is empty where the user gave none. @throws MachineError `BLOCK_NODE` */
  addBackend(name: string, root: BlockNode, qdev?: string): BlockBackend {
    if (name !== '' && this.#backends.some((backend) => backend.name === name)) {
      throw nodeError(`Device with id '${name}' already exists`);
    }
    if (name !== '' && this.#nodes.some(({ nodeName }) => nodeName === name)) {
      throw nodeError(`Device name '${name}' conflicts with an existing node name`);
    }
    const backend = { name, root, qdev };
    this.#backends.push(backend);
    return backend;
  }

  /** Finds a node by its own name or that of the device's end above it. @throws MachineError `BLOCK_NODE` */
  find(name: string): BlockNode {
    const node = this.lookUp(name);
    if (node !== undefined) return node;
    throw nodeError(`Cannot find device='${name}' nor node-name='${name}'`);
  }

  /** As {@link BlockGraph.find}, or undefined. */
  lookUp(name: string): BlockNode | undefined {
    const backend = name === '' ? undefined : this.#backends.find((known) => known.name === name);
    return backend?.root ?? this.#nodes.find(({ nodeName }) => nodeName === name);
  }

  /** Puts a mirror's filter over a node: devices go through it, and what they write goes to the target too. */
  insertMirror(over: BlockNode, target: BlockNode, nodeName?: string): BlockNode {
    const filter = this.#node({
      nodeName: this.#name(nodeName),
      driver: 'mirror_top',
      readOnly: over.readOnly,
      child: over,
      mirrorTarget: target,
      inactive: this.#inactive,
    });
    for (const backend of this.#backends) {
      if (backend.root === over) backend.root = filter;
    }
    return filter;
  }

  /** Takes a filter out: what was above it goes to `below`. */
  removeFilter(filter: BlockNode, below: BlockNode = filter.child!): void {
    for (const backend of this.#backends) {
      if (backend.root === filter) backend.root = below;
    }
    this.#nodes.splice(this.#nodes.indexOf(filter), 1);
  }

  /** Takes the images over from another host. @throws MachineError `IMAGE_INVALID` */
  activate(): void {
    this.#inactive = false;
    for (const node of this.#nodes) node.activate();
  }

  /** Leaves the images to another host: bitmaps are stored, nothing is written any more. */
  inactivate(): void {
    this.#inactive = true;
    for (const node of this.#nodes.toReversed()) node.inactivate();
  }

  /** Stores what is to be kept and lets go of all files. */
  close(): void {
    for (const node of this.#nodes.splice(0).reverse()) node.close();
    this.#backends.length = 0;
  }

  #open(options: BlockdevOptions, above: readonly string[]): BlockNode {
    const { driver, size, filename, 'read-only': readOnly = false } = options;
    if (!BLOCK_DRIVERS.includes(driver) || driver === 'mirror_top') {
      const known = BLOCK_DRIVERS.filter((name) => name !== 'mirror_top').join(', ');
      throw nodeError(`Unknown driver '${driver}': this host has ${known}`);
    }
    if (above.length > MAX_DEPTH)
      throw nodeError(`More than ${MAX_DEPTH} images lie below each other`);
    const nodeName = this.#name(options['node-name']);
    const common = { nodeName, driver, readOnly, inactive: this.#inactive };
    if (driver === 'null-co') return this.#node({ ...common, sizeBytes: size ?? 2 ** 30 });
    if (driver === 'file') return this.#openFile(common, filename, above);
    if (options.file === undefined) throw nodeError(`A block device must be specified for "file"`);
    const child = this.#child(options.file, above);
    if (driver !== 'qcow2') return this.#node({ ...common, child });
    const backing = this.#backing(options, child, [...above, child.filename]);
    return this.#node({ ...common, child, ...(backing === undefined ? {} : { backing }) });
  }

  #openFile(
    common: Pick<BlockNodeInit, 'nodeName' | 'driver' | 'readOnly' | 'inactive'>,
    filename: string | undefined,
    above: readonly string[],
  ): BlockNode {
    if (filename === undefined) throw nodeError("The 'file' block driver requires a file name");
    const { files } = this.#options;
    try {
      const path = this.#path(filename);
      if (above.includes(path)) {
        throw new MachineError('IMAGE_INVALID', 'An image lies below itself', {
          found: [...above.slice(above.indexOf(path)), path].join(' → '),
          path: ['backing file'],
          likely: 'Give one of them another backing file: `qemu-img rebase -u -b …`',
        });
      }
      const file = files.open(path, common.readOnly);
      return this.#node({ ...common, storage: { filename: path, file } });
    } catch (cause) {
      if (cause instanceof MachineError) throw cause;
      throw new MachineError(
        'BLOCK_NODE',
        `Could not open '${filename}': ${(cause as Error).message}`,
        { cause },
      );
    }
  }

  #path(filename: string, relativeTo?: string): string {
    const protocol = /^([a-z0-9+]+):/.exec(filename)?.[1];
    if (protocol !== undefined) {
      throw nodeError(`Unknown protocol '${protocol}': this host has files only`);
    }
    return this.#options.files.resolve(filename, relativeTo);
  }

  #child(child: string | BlockdevOptions, above: readonly string[]): BlockNode {
    return typeof child === 'string' ? this.find(child) : this.#open(child, above);
  }

  /** What lies below an image: what the user says, or else what the image says. */
  #backing(
    options: BlockdevOptions,
    child: BlockNode,
    above: readonly string[],
  ): BlockNode | undefined {
    if (options.backing === null) return undefined;
    if (options.backing !== undefined) return this.#child(options.backing, above);
    const header = readQcow2Header(child.asFile());
    if (header.backingFile === undefined) return undefined;
    const file = this.#open(
      {
        driver: 'file',
        filename: this.#path(header.backingFile, child.filename),
        'read-only': true,
      },
      above,
    );
    const format = header.backingFormat ?? (isQcow2(file.asFile()) ? 'qcow2' : 'raw');
    return this.#open(
      { driver: format as BlockDriver, file: file.nodeName, 'read-only': true },
      above,
    );
  }

  #node(init: BlockNodeInit): BlockNode {
    let node: BlockNode;
    try {
      node = new BlockNode(init);
    } catch (error) {
      init.storage?.file.close();
      throw error;
    }
    this.#nodes.push(node);
    return node;
  }

  /**
   * Checks a name that the user gave, or generates one.
   *
   * @see bdrv_assign_node_name in QEMU's block.c, id_generate in its util/id.c
   */
  #name(given: string | undefined): string {
    if (given === undefined) {
      const random = Math.floor(this.#options.random() * 100);
      return `#block${this.#generated++}${String(random).padStart(2, '0')}`;
    }
    if (!isWellFormed(given)) throw nodeError(`Invalid node-name: '${given}'`);
    if (new TextEncoder().encode(given).length > MAX_NAME_BYTES)
      throw nodeError('Node name too long');
    if (this.#backends.some(({ name }) => name === given)) {
      throw nodeError(`node-name=${given} is conflicting with a device id`);
    }
    if (this.#nodes.some(({ nodeName }) => nodeName === given)) {
      throw nodeError(`Duplicate nodes with node-name='${given}'`);
    }
    return given;
  }
}

/** Tells whether a user may give this name. @see id_wellformed in QEMU's util/id.c */
function isWellFormed(id: string): boolean {
  return /^[a-zA-Z][a-zA-Z0-9._-]*$/.test(id);
}

function nodeError(message: string): MachineError {
  return new MachineError('BLOCK_NODE', message);
}
