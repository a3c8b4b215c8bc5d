import { Bench } from 'tinybench';
import { judge, type Measurement, median, summarize } from './measurement.ts';

/** What is timed: a run over all bytes. */
export interface Timed {
  /** Does what is not timed, before each run. */
  readonly prepare?: () => void | Promise<void>;
  /** @returns a number: the milliseconds that count; anything else: those of the call count */
  readonly run: () => unknown;
}

/** One case in this process: a figure beside a limit, both over the same count of bytes. */
export interface EngineCase {
  readonly name: string;
  readonly lengthBytes: number;
  readonly mark?: number;
  readonly limitIs: string;
  /** Default `GiB/s`. */
  readonly unit?: 'GiB/s' | 'MB/s';
  /** Makes memory, checks that the result is right, and gives what to time. @throws Error if it is not */
  set(): Promise<{ readonly figure: Timed; readonly limit: Timed }>;
  /** Runs that each need memory of their own are few. */
  readonly expensive?: true;
}

export interface SampleCounts {
  /** How often figure and limit take turns. */
  readonly rounds: number;
  /** Runs of each in its turn, at least. */
  readonly iterations: number;
  /** Milliseconds of each in its turn, at least. */
  readonly timeMs: number;
}

const GiB = 2 ** 30;

/**
 * Measures a case: figure and limit take turns, so that whatever else the machine does meets both, and
 * the ratio is the median of what each turn gave.
 */
export async function measure(each: EngineCase, counts: SampleCounts): Promise<Measurement> {
  const { figure, limit } = await each.set();
  const { unit = 'GiB/s' } = each;
  const unitBytes = unit === 'GiB/s' ? GiB : 1e6;
  const rate = (ms: number): number => each.lengthBytes / unitBytes / (ms / 1000);
  const rates = { figure: [] as number[], limit: [] as number[] };
  const ratios: number[] = [];
  for (let round = 0; round < counts.rounds; round++) {
    const bench = new Bench({
      iterations: each.expensive ? 1 : counts.iterations,
      time: each.expensive ? 0 : counts.timeMs,
      warmup: round === 0 && !each.expensive,
      warmupIterations: 2,
      warmupTime: 50,
      retainSamples: true,
      throws: true,
    });
    for (const [name, timed] of Object.entries({ figure, limit })) {
      bench.add(
        name,
        () => {
          const ms = timed.run();
          return typeof ms === 'number' ? { overriddenDuration: ms } : undefined;
        },
        { async: false, ...(timed.prepare && { beforeEach: timed.prepare }) },
      );
    }
    await bench.run();
    const medianOf = (name: 'figure' | 'limit'): number => {
      const result = bench.getTask(name)?.result;
      if (result === undefined || !('latency' in result)) throw new Error(`${name} did not run`);
      const samples = [...(result.latency.samples ?? [])].map(rate);
      for (const sample of samples) rates[name].push(sample);
      return median(samples);
    };
    ratios.push(medianOf('figure') / medianOf('limit'));
  }
  const ratio = median(ratios);
  return {
    name: each.name,
    figure: summarize(rates.figure, unit),
    limit: { ...summarize(rates.limit, unit), what: each.limitIs },
    ratio,
    mark: each.mark,
    verdict: judge(ratio, each.mark),
  };
}
