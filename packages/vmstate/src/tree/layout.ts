import { addWays, type Chart, type Ends, subsectionNameAt } from './chart.ts';
import type { Cursor } from './cursor.ts';
import { implausible, isChecked, type Leaf, leafOf, unlikely } from './leaf.ts';
import type { StateNode } from './state-node.ts';

/**
 * How one value or group of values lies on the wire. Where the bytes themselves say how long it is,
 * `read` reads it; otherwise `ends` tells where it could end, and `build` reads it once that is known.
 */
export interface Layout {
  /** Bytes of every value; absent where they differ. */
  readonly fixedBytes: number | undefined;
  readonly minBytes: number;
  /** Whether any bytes of its size fit. */
  readonly fitsAnything: boolean;
  /** Reads what begins at the cursor; its mismatch is set where that does not fit. */
  read(cursor: Cursor, name: string, index?: number): StateNode | undefined;
  ends(chart: Chart, start: number): Ends;
  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode;
}

/** One value of a known number of bytes. */
export class LeafLayout implements Layout {
  readonly fixedBytes: number;
  readonly minBytes: number;
  readonly fitsAnything: boolean;
  readonly #type: string;
  readonly #leaf: Leaf | undefined;

  constructor(type: string, size: number) {
    this.fixedBytes = size;
    this.minBytes = size;
    this.fitsAnything = !isChecked(type);
    this.#type = type;
    this.#leaf = leafOf(type, size);
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    const { at } = cursor;
    const size = this.fixedBytes;
    if (size > cursor.left) {
      cursor.fail(`${size} bytes`, `${cursor.left} left`);
      cursor.mismatch?.path.unshift(name);
      return undefined;
    }
    if (!cursor.spend()) return undefined;
    const type = this.#type;
    const offset = cursor.base + at;
    let value = this.#leaf?.read(cursor.view, at);
    if (value === undefined || cursor.isStrict) {
      const bytes = cursor.bytes.subarray(at, at + size);
      const wrong = (cursor.isStrict ? unlikely : implausible)(type, bytes);
      if (wrong !== undefined) {
        cursor.fail(`a ${type}`, wrong);
        cursor.mismatch?.path.unshift(name);
        return undefined;
      }
      value ??= bytes;
    }
    cursor.at = at + size;
    return index === undefined
      ? { name, type, offset, lengthBytes: size, value }
      : { name, type, offset, lengthBytes: size, value, index };
  }

  ends(chart: Chart, start: number): Ends {
    chart.step();
    const end = start + this.fixedBytes;
    const fits =
      end <= chart.limit &&
      unlikely(this.#type, chart.cursor.bytes.subarray(start, end)) === undefined;
    return fits ? new Map([[end, 1]]) : NOWHERE;
  }

  build(chart: Chart, start: number, _end: number, name: string, index?: number): StateNode {
    return chart.readAt(this, start, name, index);
  }
}

const NOWHERE: Ends = new Map();

/** A field of a group. */
export interface Item {
  readonly name: string;
  readonly index?: number | undefined;
  readonly layout: Layout;
  /** Whether it may be missing. */
  readonly isOptional?: boolean;
}

/** The subsections that may follow a group's fields. */
export interface Subsections {
  /** Names that must follow, in order; absent where the bytes say which do. */
  readonly required?: readonly string[];
  /** Gives the layout of a subsection by its name. */
  get(name: string): GroupLayout | undefined;
}

/** Fields one behind the other, with their description's subsections. */
export class GroupLayout implements Layout {
  readonly fixedBytes: number | undefined;
  readonly minBytes: number;
  readonly fitsAnything: boolean;
  readonly #type: string;
  readonly #description: StateNode['description'];
  readonly #items: readonly Item[];
  readonly #subsections: Subsections;
  /** Bytes of the items behind each: at least, and exactly where that is known. */
  readonly #restMin: readonly number[];
  readonly #restFixed: readonly (number | undefined)[];
  readonly #stepsKey: object = {};
  readonly #subsectionsKey: object = {};

  constructor(
    type: string,
    description: StateNode['description'],
    items: readonly Item[],
    subsections: Subsections,
  ) {
    this.#type = type;
    this.#description = description;
    this.#items = items;
    this.#subsections = subsections;
    const restMin = [0];
    const restFixed: (number | undefined)[] = [0];
    for (const { layout, isOptional } of [...items].reverse()) {
      restMin.unshift(restMin[0]! + (isOptional ? 0 : layout.minBytes));
      const rest = restFixed[0];
      const fixed = isOptional ? undefined : layout.fixedBytes;
      restFixed.unshift(rest === undefined || fixed === undefined ? undefined : rest + fixed);
    }
    this.#restMin = restMin;
    this.#restFixed = restFixed;
    this.minBytes = restMin[0]!;
    this.fixedBytes = subsections.required?.length === 0 ? restFixed[0] : undefined;
    this.fitsAnything =
      this.fixedBytes !== undefined && items.every(({ layout }) => layout.fitsAnything);
  }

  knowsSubsection(name: string): boolean {
    return this.#subsections.get(name) !== undefined;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode {
    const start = cursor.at;
    const children = this.readInside(cursor);
    return cursor.group(name, this.#type, start, children, index, this.#description);
  }

  readInside(cursor: Cursor): StateNode[] {
    const children: StateNode[] = [];
    for (const { name, index, layout } of this.#items) {
      const node = layout.read(cursor, name, index);
      if (node !== undefined) children.push(node);
      if (cursor.mismatch !== undefined) return children;
    }
    const { required } = this.#subsections;
    for (let i = 0; required === undefined || i < required.length; i++) {
      const found = subsectionNameAt(cursor.bytes, cursor.at);
      const name = required === undefined ? found : required[i]!;
      if (name === undefined) break;
      const layout = this.#subsections.get(name);
      if (layout === undefined) {
        if (this.#mustKnow(name)) cursor.fail('a subsection that is known', `subsection ${name}`);
        break;
      }
      if (name !== found) {
        cursor.fail(`subsection ${name}`, foundAt(cursor, found));
        cursor.mismatch?.path.unshift(name);
        break;
      }
      children.push(layout.#readSubsection(cursor, name));
      if (cursor.mismatch !== undefined) break;
    }
    return children;
  }

  /** Whether QEMU's loader takes a subsection for one of this description by its name, and refuses it if it is none. */
  #mustKnow(name: string): boolean {
    const own = this.#description?.name;
    return own !== undefined && name.length > own.length && name.startsWith(own);
  }

  #readSubsection(cursor: Cursor, name: string): StateNode {
    const start = cursor.at;
    const version = cursor.view.getInt32(start + 2 + name.length);
    cursor.at += 6 + name.length;
    const children = cursor.nested(() => this.readInside(cursor)) ?? [];
    const description = { name, version };
    return cursor.group(name, 'subsection', start, children, undefined, description);
  }

  ends(chart: Chart, start: number): Ends {
    if (this.fitsAnything) return chart.fixedEnd(this, start);
    return chart.once(this, start, () => {
      const ends = new Map<number, number>();
      for (const [at, ways] of this.#steps(chart, start).at(-1)!) {
        for (const [end, more] of this.#subsectionEnds(chart, at)) addWays(ends, end, ways * more);
      }
      return ends;
    });
  }

  /** Gives where each item can begin, and at last where the fields can end. */
  #steps(chart: Chart, start: number): readonly Ends[] {
    return chart.once(this.#stepsKey, start, () => {
      const isWhole = chart.root === this && start === 0;
      const steps: Ends[] = [new Map([[start, 1]])];
      for (const [i, item] of this.#items.entries()) {
        const next = new Map<number, number>();
        const rest = this.#restFixed[i + 1];
        const restMin = this.#restMin[i + 1]!;
        for (const [at, ways] of steps[i]!) {
          for (const [end, more] of chart.before(restMin, () => itemEnds(chart, item, at))) {
            chart.step();
            if (end + restMin > chart.limit) continue;
            if (isWhole && rest !== undefined && !chart.isEndOfFields(end + rest)) continue;
            addWays(next, end, ways * more);
          }
        }
        steps.push(next);
        if (next.size === 0) break;
      }
      return steps.length > this.#items.length ? steps : [...steps, NOWHERE];
    });
  }

  #subsectionEnds(chart: Chart, start: number): Ends {
    return chart.once(this.#subsectionsKey, start, () => {
      // QEMU's loader takes a subsection wherever one of this description's begins: there is no choice.
      const name = subsectionNameAt(chart.cursor.bytes, start);
      const layout = name === undefined ? undefined : this.#subsections.get(name);
      if (name === undefined || layout === undefined) {
        return name !== undefined && this.#mustKnow(name) ? NOWHERE : new Map([[start, 1]]);
      }
      const ends = new Map<number, number>();
      chart.nested(() => {
        for (const [at, ways] of layout.ends(chart, start + 6 + name.length)) {
          for (const [end, more] of this.#subsectionEnds(chart, at))
            addWays(ends, end, ways * more);
        }
      });
      return ends;
    });
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    if (this.fitsAnything) return chart.readAt(this, start, name, index);
    const children = this.buildInside(chart, start, end);
    chart.cursor.at = end;
    return chart.cursor.group(name, this.#type, start, children, index, this.#description);
  }

  buildInside(chart: Chart, start: number, end: number): StateNode[] {
    const steps = this.#steps(chart, start);
    const fieldsEnd = [...steps.at(-1)!.keys()].find((at) =>
      this.#subsectionEnds(chart, at).has(end),
    )!;
    const starts: number[] = [];
    for (let i = this.#items.length - 1, to = fieldsEnd; i >= 0; i--) {
      to = [...steps[i]!.keys()].find((at) => itemEnds(chart, this.#items[i]!, at).has(to))!;
      starts.unshift(to);
    }
    const children: StateNode[] = [];
    for (const [i, { name, index, layout }] of this.#items.entries()) {
      const [from, to] = [starts[i]!, starts[i + 1] ?? fieldsEnd];
      if (layout.ends(chart, from).has(to)) {
        children.push(layout.build(chart, from, to, name, index));
      }
    }
    for (let at = fieldsEnd; at < end; ) {
      const name = subsectionNameAt(chart.cursor.bytes, at)!;
      const layout = this.#subsections.get(name)!;
      const inside = at + 6 + name.length;
      const to = [...layout.ends(chart, inside).keys()].find((next) =>
        this.#subsectionEnds(chart, next).has(end),
      )!;
      const description = { name, version: chart.cursor.view.getInt32(inside - 4) };
      const nodes = layout.buildInside(chart, inside, to);
      chart.cursor.at = to;
      children.push(chart.cursor.group(name, 'subsection', at, nodes, undefined, description));
      at = to;
    }
    return children;
  }
}

function itemEnds(chart: Chart, { layout, isOptional }: Item, start: number): Ends {
  const ends = layout.ends(chart, start);
  if (!isOptional) return ends;
  const withNothing = new Map(ends);
  addWays(withNothing, start, 1);
  return withNothing;
}

function foundAt(cursor: Cursor, subsection: string | undefined): string {
  if (subsection !== undefined) return `subsection ${subsection}`;
  const byte = cursor.bytes[cursor.at];
  return byte === undefined ? 'the end of the section' : `byte 0x${byte.toString(16)}`;
}
