import { addWays, type Chart, type Ends } from './chart.ts';
import type { Cursor } from './cursor.ts';
import { type Layout, LeafLayout } from './layout.ts';
import type { StateNode } from './state-node.ts';

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

/** Bytes behind their own count. */
export class CountedLayout implements Layout {
  readonly fixedBytes: undefined;
  readonly fitsAnything = false;
  readonly minBytes: number;
  readonly #type: string;

  constructor(type: string, countBytes: 1 | 4) {
    this.#type = type;
    this.minBytes = countBytes;
  }

  read(cursor: Cursor, name: string, index?: number): StateNode | undefined {
    return new LeafLayout(this.#type, this.#length(cursor, cursor.at)).read(cursor, name, index);
  }

  #length({ view, bytes }: Cursor, at: number): number {
    const { minBytes } = this;
    if (at + minBytes > bytes.length) return minBytes;
    return minBytes + (minBytes === 1 ? view.getUint8(at) : view.getUint32(at));
  }

  ends(chart: Chart, start: number): Ends {
    const end = start + this.#length(chart.cursor, start);
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
