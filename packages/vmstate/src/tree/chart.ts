import { Cursor, MAX_DEPTH } from './cursor.ts';
import type { Layout } from './layout.ts';
import { type StateNode, SUBSECTION } from './state-node.ts';

/** Offsets in the body at which something that begins at one offset can end, with the number of ways: 1, or 2 for more. */
export type Ends = ReadonlyMap<number, number>;

/** Steps after which the search for a reading ends without a result. */
const MAX_STEPS = 1 << 18;

class OutOfSteps extends Error {}

/** What a search over all readings of a body found. */
export type Reading = readonly StateNode[] | 'none' | 'several' | 'too many';

/**
 * Finds the one way in which a layout of undetermined lengths fills a body.
 *
 * @param read reads the children of the layout once their ends are known
 */
export function findReading(root: RootLayout, bytes: Uint8Array, offset: number): Reading {
  const chart = new Chart(root, bytes, offset);
  try {
    const ways = root.ends(chart, 0).get(bytes.length) ?? 0;
    if (ways === 0) return 'none';
    return ways === 1 ? chart.build(bytes.length) : 'several';
  } catch (cause) {
    if (cause instanceof OutOfSteps) return 'too many';
    throw cause;
  }
}

/** A layout of a whole body. */
export interface RootLayout extends Layout {
  knowsSubsection(name: string): boolean;
  buildInside(chart: Chart, start: number, end: number): readonly StateNode[];
}

/** All that a search has found out about one body: which layout can end where. */
export class Chart {
  readonly root: RootLayout;
  readonly cursor: Cursor;
  /** Where what is being looked at must end at the latest, for what must still follow it. */
  limit: number;
  readonly #memo = new Map<
    object,
    Map<number, { readonly limit: number; readonly result: unknown }>
  >();
  #isBuilding = false;
  #steps = 0;
  #depth = 0;

  constructor(root: RootLayout, bytes: Uint8Array, offset: number) {
    this.root = root;
    this.cursor = new Cursor(bytes, offset);
    this.limit = bytes.length;
  }

  get end(): number {
    return this.cursor.bytes.length;
  }

  /** Reads the whole body, of which there is one reading. */
  build(end: number): readonly StateNode[] {
    this.#isBuilding = true;
    return this.root.buildInside(this, 0, end);
  }

  /** Looks for ends with so many bytes to follow. */
  before<T>(restBytes: number, look: () => T): T {
    this.limit -= restBytes;
    const result = look();
    this.limit += restBytes;
    return result;
  }

  /** Counts a step of the search. */
  step(): void {
    this.#steps++;
    if (this.#steps > MAX_STEPS) throw new OutOfSteps();
  }

  /** Searches on behind the head of a subsection. */
  nested(search: () => void): void {
    if (this.#depth === MAX_DEPTH) throw new OutOfSteps();
    this.#depth++;
    search();
    this.#depth--;
  }

  /** Gives what `make` found for a layout at an offset, which it is asked for once. */
  once<T>(layout: object, start: number, make: () => T): T {
    let results = this.#memo.get(layout);
    if (results === undefined) this.#memo.set(layout, (results = new Map()));
    const known = results.get(start);
    if (known !== undefined && (known.limit >= this.limit || this.#isBuilding)) {
      return known.result as T;
    }
    this.step();
    const result = make();
    results.set(start, { limit: this.limit, result });
    return result;
  }

  /** Gives the end of a layout of fixed size. */
  fixedEnd({ fixedBytes = 0 }: Layout, start: number): Ends {
    this.step();
    const end = start + fixedBytes;
    return new Map(end <= this.limit ? [[end, 1]] : []);
  }

  /** Whether the fields of the whole body can end here: at its end or before one of its subsections. */
  isEndOfFields(at: number): boolean {
    if (at === this.end) return true;
    const name = subsectionNameAt(this.cursor.bytes, at);
    return name !== undefined && this.root.knowsSubsection(name);
  }

  /** Reads a layout whose bytes determine it. */
  readAt(layout: Layout, start: number, name: string, index?: number): StateNode {
    this.cursor.at = start;
    const node = layout.read(this.cursor, name, index);
    if (node === undefined) throw new OutOfSteps(); // the search fits, but it has too many nodes
    return node;
  }
}

/** Adds the ways to get somewhere; more than one is as good as many. */
export function addWays(ends: Map<number, number>, at: number, ways: number): void {
  ends.set(at, Math.min(2, (ends.get(at) ?? 0) + ways));
}

/** Gives the name in the head of a subsection that begins at an offset of the body, if one does. */
export function subsectionNameAt(bytes: Uint8Array, at: number): string | undefined {
  const length = bytes[at + 1];
  if (bytes[at] !== SUBSECTION || length === undefined || at + 6 + length > bytes.length) {
    return undefined;
  }
  return String.fromCharCode(...bytes.subarray(at + 2, at + 2 + length));
}
