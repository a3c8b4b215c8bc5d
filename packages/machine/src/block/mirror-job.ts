import { MachineError } from '../machine-error.ts';
import type { BlockGraph } from './block-graph.ts';
import type { BlockNode } from './block-node.ts';

const STEP_BYTES = 1024 * 1024;

/** What {@link MirrorJob} takes. */
export interface MirrorOptions {
  readonly id: string;
  readonly source: BlockNode;
  readonly target: BlockNode;
  /** `none` copies nothing but what is written from now on. */
  readonly sync: 'full' | 'none';
  readonly filterNodeName?: string;
}

/**
 * Copies a disk to another one while it is in use: what devices write goes to both, through a filter above
 * the disk, while {@link MirrorJob.step} brings the rest.
 *
 * @see QEMU's block/mirror.c
 */
export class MirrorJob {
  readonly id: string;
  readonly lengthBytes: number;
  readonly #graph: BlockGraph;
  readonly #source: BlockNode;
  readonly #target: BlockNode;
  readonly #filter: BlockNode;
  #offset: number;

  /** Begins. @throws MachineError `BLOCK_NODE` */
  constructor(graph: BlockGraph, options: MirrorOptions) {
    const { id, source, target, sync, filterNodeName } = options;
    if (source === target) {
      throw new MachineError('BLOCK_NODE', "Can't mirror node into itself");
    }
    if (target.sizeBytes < source.sizeBytes) {
      throw new MachineError('BLOCK_NODE', 'The target is smaller than what is to be mirrored', {
        expected: `at least ${source.sizeBytes} bytes`,
        found: `${target.sizeBytes}`,
        path: [target.nodeName],
      });
    }
    this.id = id;
    this.lengthBytes = source.sizeBytes;
    this.#graph = graph;
    this.#source = source;
    this.#target = target;
    this.#offset = sync === 'full' ? 0 : this.lengthBytes;
    this.#filter = graph.insertMirror(source, target, filterNodeName);
  }

  /** How far the copy has come. */
  get offset(): number {
    return this.#offset;
  }
  /** Whether both disks are the same, and stay so. */
  get isReady(): boolean {
    return this.#offset === this.lengthBytes;
  }

  /** Copies the next piece. @throws MachineError */
  step(): void {
    const piece = new Uint8Array(Math.min(STEP_BYTES, this.lengthBytes - this.#offset));
    if (piece.length === 0) return;
    this.#source.read(this.#offset, piece);
    this.#target.write(this.#offset, piece);
    this.#offset += piece.length;
  }

  /** Ends: devices use the disk alone again, or from now on its copy. */
  end(useCopy: boolean): void {
    this.#graph.removeFilter(this.#filter, useCopy ? this.#target : this.#source);
  }
}
