import type { StateNode } from './state-node.ts';

/** Where and how bytes first differed from what describes them. */
export interface Mismatch {
  readonly expected: string;
  readonly found: string;
  /** Offset in the body. */
  readonly at: number;
  /** Names from the outermost group to the field. */
  readonly path: string[];
}

/** More values than any device has: a vmdesc may claim elements that take no bytes. */
const MAX_NODES = 1 << 19;

/** More subsections than any device has inside one another, or behind one another. */
export const MAX_DEPTH = 64;

/** Reads a body from its start; once something does not fit, `mismatch` stands and nothing more is read. */
export class Cursor {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Absolute offset of the body. */
  readonly base: number;
  at = 0;
  mismatch: Mismatch | undefined;
  #nodes = 0;
  #depth = 0;

  /** Whether bytes are refused that a type could hold but QEMU does not send. */
  readonly isStrict: boolean;

  constructor(bytes: Uint8Array, base: number, isStrict = false) {
    this.isStrict = isStrict;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.base = base;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  fail(expected: string, found: string, at: number = this.at): undefined {
    this.mismatch ??= { expected, found, at, path: [] };
  }

  /** Counts a node about to be made. @returns whether there may be one more */
  spend(): boolean {
    this.#nodes++;
    if (this.#nodes > MAX_NODES) this.fail(`at most ${MAX_NODES} values`, 'more');
    return this.#nodes <= MAX_NODES;
  }

  /** Reads what is inside a subsection. */
  nested<T>(read: () => T): T | undefined {
    if (this.#depth === MAX_DEPTH)
      return this.fail(`at most ${MAX_DEPTH} nested subsections`, 'more');
    this.#depth++;
    const result = read();
    this.#depth--;
    return result;
  }

  /** Makes the node of what was read since `start`, whole or up to the mismatch. */
  group(
    name: string,
    type: string,
    start: number,
    children: readonly StateNode[],
    index: number | undefined,
    description?: StateNode['description'],
  ): StateNode {
    this.mismatch?.path.unshift(name);
    this.spend();
    return {
      name,
      type,
      offset: this.base + start,
      lengthBytes: this.at - start,
      children,
      ...(index === undefined ? {} : { index }),
      ...(description === undefined ? {} : { description }),
    };
  }
}
