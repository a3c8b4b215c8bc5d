/** One row of the result: a figure, what it stands beside, and the mark that it is to reach. */
export interface Measurement {
  readonly name: string;
  /** Undefined where it could not be measured. */
  readonly figure: Quantity | undefined;
  /** What the figure stands beside, measured in the same run; undefined where it could not be. */
  readonly limit: (Quantity & { readonly what: string }) | undefined;
  /** Figure to limit, above 1 when the figure is the faster one. */
  readonly ratio: number | undefined;
  /** The least ratio that is good enough. */
  readonly mark: number | undefined;
  readonly verdict: Verdict;
  /** Why something was left out, or what else was seen. */
  readonly note?: string;
}

/** `none`: there is no mark; `skipped`: there is one, but nothing to measure it against. */
export type Verdict = 'met' | 'missed' | 'none' | 'skipped';

export interface Quantity {
  readonly value: number;
  readonly unit: 'GiB/s' | 'MB/s' | 'ms' | 'µs' | 'ns' | 'MiB';
  readonly samples: number;
  readonly min: number;
  readonly max: number;
}

/** Judges a ratio by its mark. */
export function judge(ratio: number | undefined, mark: number | undefined): Verdict {
  if (mark === undefined) return 'none';
  if (ratio === undefined) return 'skipped';
  return ratio >= mark ? 'met' : 'missed';
}

/** Sums samples up by their median. @throws RangeError without samples */
export function summarize(samples: readonly number[], unit: Quantity['unit']): Quantity {
  const sorted = Float64Array.from(samples).sort();
  const [min, max] = [sorted[0], sorted.at(-1)];
  if (min === undefined || max === undefined) throw new RangeError('a summary of no samples');
  const value = (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
  return { value, unit, samples: samples.length, min, max };
}

/** Takes the median. @throws RangeError without samples */
export function median(samples: readonly number[]): number {
  return summarize(samples, 'ms').value;
}
