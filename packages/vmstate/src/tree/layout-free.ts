import { addWays, type Chart, type Ends } from './chart.ts';
import type { Cursor } from './cursor.ts';
import { type Layout, LeafLayout } from './layout.ts';
import { NULL_POINTER, type StateNode } from './state-node.ts';

/** Bytes whose number the description does not tell; the reading that fills the body does. */
export class FreeLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly fitsAnything = false;
  readonly minBytes: number;
  readonly #type: string;
  readonly #described: Layout;

  constructor(type: string, describedBytes: number, minBytes = 0) {
    this.#type = type;
    this.#described = new LeafLayout(type, describedBytes);
    this.minBytes = minBytes;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    return this.#described.read(cursor, name, index);
  }

  ends(chart: Chart, start: number): Ends {
    const ends = new Map<number, number>();
    for (let end = start + this.minBytes; end <= chart.limit; end++) {
      chart.step();
      ends.set(end, 1);
    }
    return ends;
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    return chart.readAt(new LeafLayout(this.#type, end - start), start, name, index);
  }
}

/**
 * An array of pointers whose first is NULL, as QEMU before 10.0 describes it: nothing is known of the
 * others, so that what is not NULL throughout stays bytes.
 */
export class UndescribedArrayLayout extends FreeLayout {
  readonly #count: number;

  constructor(count: number) {
    super('undescribed', count, count);
    this.#count = count;
  }

  override build(
    chart: Chart,
    start: number,
    end: number,
    name: string,
    index?: number,
  ): StateNode {
    const bytes = chart.cursor.bytes.subarray(start, end);
    if (end - start !== this.#count || bytes.some((byte) => byte !== NULL_POINTER)) {
      return super.build(chart, start, end, name, index);
    }
    const none = new LeafLayout('nullptr', 1);
    const children = [...bytes].map((_, i) => chart.readAt(none, start + i, `${i}`));
    return chart.cursor.group(name, 'array', start, children, index);
  }
}

/** Bytes behind their own count. */
export class CountedLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly fitsAnything = false;
  readonly minBytes = 4;
  readonly #type: string;

  constructor(type: string) {
    this.#type = type;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    const count = cursor.left < 4 ? 0 : cursor.view.getUint32(cursor.at);
    return new LeafLayout(this.#type, 4 + count).read(cursor, name, index);
  }

  ends(chart: Chart, start: number): Ends {
    if (start + 4 > chart.limit) return new Map();
    const end = start + 4 + chart.cursor.view.getUint32(start);
    return new Map(end <= chart.limit ? [[end, 1]] : []);
  }

  build(chart: Chart, start: number, _end: number, name: string, index?: number): StateNode {
    return chart.readAt(this, start, name, index);
  }
}

/** One of several layouts; the reading that fills the body tells which. */
export class ChoiceLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly fitsAnything = false;
  readonly minBytes: number;
  readonly #choices: readonly [Layout, ...Layout[]];

  constructor(choices: readonly [Layout, ...Layout[]]) {
    this.#choices = choices;
    this.minBytes = Math.min(...choices.map(({ minBytes }) => minBytes));
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    return this.#choices[0].read(cursor, name, index);
  }

  ends(chart: Chart, start: number): Ends {
    return chart.once(this, start, () => {
      const ends = new Map<number, number>();
      for (const layout of this.#choices) {
        for (const [end, ways] of layout.ends(chart, start)) addWays(ends, end, ways);
      }
      return ends;
    });
  }

  build(chart: Chart, start: number, end: number, name: string, index?: number): StateNode {
    const layout = this.#choices.find((choice) => choice.ends(chart, start).has(end))!;
    return layout.build(chart, start, end, name, index);
  }
}
