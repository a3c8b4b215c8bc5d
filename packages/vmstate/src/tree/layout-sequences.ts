import { addWays, type Chart, type Ends } from './chart.ts';
import type { Cursor } from './cursor.ts';
import { type Layout, LeafLayout } from './layout.ts';
import { NULL_POINTER, type StateNode } from './state-node.ts';

/** Elements one behind the other, by the same description: a known number, or as many as fit. */
export class ArrayLayout implements Layout {
  readonly fixedBytes: number | undefined;
  readonly minBytes: number;
  readonly fitsAnything: boolean;
  readonly #element: Layout;
  readonly #stepsKey: object = {};
  readonly #count: number | undefined;

  /** @param count absent where the body's length decides it; an element must then take bytes */
  constructor(element: Layout, count: number | undefined) {
    this.#element = element;
    this.#count = count;
    this.minBytes = (count ?? 0) * element.minBytes;
    this.fixedBytes =
      count === undefined || element.fixedBytes === undefined
        ? undefined
        : count * element.fixedBytes;
    this.fitsAnything = this.fixedBytes !== undefined && element.fitsAnything;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode {
    const start = cursor.at;
    const children: StateNode[] = [];
    for (let i = 0; i < (this.#count ?? 0); i++) {
      const node = this.#element.read(cursor, `${i}`);
      if (node !== undefined) children.push(node);
      if (cursor.mismatch !== undefined) break;
    }
    return cursor.group(name, 'array', start, children, index);
  }

  ends(chart: Chart, start: number): Ends {
    if (this.fitsAnything) return chart.fixedEnd(this, start);
    return chart.once(this, start, () => {
      if (this.#count !== undefined) return this.#steps(chart, start).at(-1)!;
      const ends = new Map<number, number>();
      for (const step of this.#steps(chart, start)) {
        for (const [at, ways] of step) addWays(ends, at, ways);
      }
      return ends;
    });
  }

  /** Gives where the elements before each number of them can end. */
  #steps(chart: Chart, start: number): readonly Ends[] {
    return chart.once(this.#stepsKey, start, () => {
      const count = this.#count ?? Number.POSITIVE_INFINITY;
      const steps: Map<number, number>[] = [new Map([[start, 1]])];
      for (let i = 0; i < count; i++) {
        const next = new Map<number, number>();
        for (const [at, ways] of steps[i]!) {
          for (const [end, more] of this.#element.ends(chart, at)) {
            chart.step();
            if (end > at || this.#count !== undefined) addWays(next, end, ways * more);
          }
        }
        if (next.size === 0) return this.#count === undefined ? steps : [...steps, next];
        steps.push(next);
      }
      return steps;
    });
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    if (this.fitsAnything) return chart.readAt(this, start, name, index);
    const steps = this.#steps(chart, start);
    const count = this.#count ?? steps.findIndex((step) => step.has(end));
    const bounds = [end];
    for (let i = count - 1; i >= 0; i--) {
      const from = [...steps[i]!.keys()].find((at) =>
        this.#element.ends(chart, at).has(bounds[0]!),
      )!;
      bounds.unshift(from);
    }
    const children: StateNode[] = [];
    for (let i = 0; i < count; i++) {
      children.push(this.#element.build(chart, bounds[i]!, bounds[i + 1]!, `${i}`));
    }
    chart.cursor.at = end;
    return chart.cursor.group(name, 'array', start, children, index);
  }
}

/** What an element of an array of pointers points to, or the marker of none. */
export class NullableLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly minBytes = 1;
  readonly fitsAnything = false;
  readonly #pointee: Layout;
  readonly #none: Layout = new LeafLayout('nullptr', 1);

  constructor(pointee: Layout) {
    this.#pointee = pointee;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    return this.#pointee.read(cursor, name, index);
  }

  ends(chart: Chart, start: number): Ends {
    const ends = new Map(this.#pointee.ends(chart, start));
    if (chart.cursor.bytes[start] === NULL_POINTER && start < chart.limit)
      addWays(ends, start + 1, 1);
    return ends;
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    const layout = this.#pointee.ends(chart, start).has(end) ? this.#pointee : this.#none;
    return layout.build(chart, start, end, name, index);
  }
}

/** Elements with a byte 1 before each and a byte 0 behind the last. */
export class ListLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly minBytes: number;
  readonly fitsAnything = false;
  readonly #type: string;
  readonly #elements: readonly Layout[];
  readonly #stepsKey: object = {};
  /** Bytes of the count before the first element, which a tree has. */
  readonly #headBytes: number;

  readonly #others: readonly Layout[];

  /**
   * @param elements one an element that is described; those beyond them are as the last
   * @param others what the elements of a tree are if it has as many as these
   */
  constructor(type: string, elements: readonly Layout[], others: readonly Layout[] = []) {
    this.#type = type;
    this.#elements = elements;
    this.#others = others;
    this.#headBytes = type === 'gtree' ? 4 : 0;
    this.minBytes = this.#headBytes + 1;
  }

  /** Gives how the list that begins at an offset reads its elements. */
  #elementsAt(view: DataView, start: number): (i: number) => Layout | undefined {
    const isOther = this.#others.length > 0 && view.getUint32(start) === this.#others.length;
    const elements = isOther ? this.#others : this.#elements;
    return (i) => elements[Math.min(i, elements.length - 1)];
  }

  read(cursor: Cursor, name: string, index?: number): StateNode {
    const start = cursor.at;
    const children: StateNode[] = [];
    if (cursor.left < this.minBytes) cursor.fail(`${this.minBytes} bytes`, `${cursor.left} left`);
    else this.#readElements(cursor, children);
    return cursor.group(name, this.#type, start, children, index);
  }

  #readElements(cursor: Cursor, children: StateNode[]): undefined {
    const { view, at: start } = cursor;
    const elementAt = this.#elementsAt(view, start);
    cursor.at += this.#headBytes;
    for (;;) {
      if (cursor.left === 0) return cursor.fail('an element or the end of a list', '0 left');
      const marker = view.getUint8(cursor.at);
      const element = elementAt(children.length);
      if (marker > 1 || (marker === 1 && element === undefined)) {
        return cursor.fail('the end of a list', `byte ${marker}`);
      }
      cursor.at++;
      if (marker === 0) break;
      const node = element!.read(cursor, `${children.length}`);
      if (node !== undefined) children.push(node);
      if (cursor.mismatch !== undefined) return undefined;
    }
    if (this.#headBytes > 0 && view.getUint32(start) !== children.length) {
      cursor.fail(`${view.getUint32(start)} entries`, `${children.length}`, start);
    }
    return undefined;
  }

  ends(chart: Chart, start: number): Ends {
    return chart.once(this, start, () => {
      const ends = new Map<number, number>();
      const { bytes, view } = chart.cursor;
      const steps = this.#steps(chart, start);
      for (const [i, step] of steps.entries()) {
        if (this.#headBytes > 0 && view.getUint32(start) !== i) continue;
        for (const [at, ways] of step) {
          if (bytes[at] === 0) addWays(ends, at + 1, ways);
        }
      }
      return ends;
    });
  }

  /** Gives where the marker behind each number of elements can be. */
  #steps(chart: Chart, start: number): readonly Ends[] {
    return chart.once(this.#stepsKey, start, () => {
      const first = start + this.#headBytes;
      const steps: Map<number, number>[] = [];
      if (first >= chart.limit) return steps;
      steps.push(new Map([[first, 1]]));
      const elementAt = this.#elementsAt(chart.cursor.view, start);
      for (let i = 0; i < steps.length; i++) {
        const next = new Map<number, number>();
        const element = elementAt(i);
        for (const [at, ways] of steps[i]!) {
          if (element === undefined || chart.cursor.bytes[at] !== 1) continue;
          for (const [end, more] of element.ends(chart, at + 1)) {
            chart.step();
            addWays(next, end, ways * more);
          }
        }
        if (next.size > 0) steps.push(next);
      }
      return steps;
    });
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    const steps = this.#steps(chart, start);
    const count =
      this.#headBytes > 0
        ? chart.cursor.view.getUint32(start)
        : steps.findIndex((step) => step.has(end - 1));
    const elementAt = this.#elementsAt(chart.cursor.view, start);
    const markers = [end - 1];
    for (let i = count - 1; i >= 0; i--) {
      const from = [...steps[i]!.keys()].find(
        (at) =>
          chart.cursor.bytes[at] === 1 &&
          elementAt(i)!
            .ends(chart, at + 1)
            .has(markers[0]!),
      )!;
      markers.unshift(from);
    }
    const children: StateNode[] = [];
    for (let i = 0; i < count; i++) {
      const layout = elementAt(i)!;
      children.push(layout.build(chart, markers[i]! + 1, markers[i + 1]!, `${i}`));
    }
    chart.cursor.at = end;
    return chart.cursor.group(name, this.#type, start, children, index);
  }
}
