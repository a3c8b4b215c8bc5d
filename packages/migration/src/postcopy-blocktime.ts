import type { Clock } from './clock.ts';
import type { FaultSource, WaitingThread } from './guest-port.ts';
import { MigrationError } from './migration-error.ts';
import type { BlocktimeStatistics } from './migration-info.ts';

/** Bucket b counts what took 2^b to 2^(b+1) microseconds; the last one all that took longer. */
const BUCKETS = 24;

interface Wait {
  readonly thread: WaitingThread;
  readonly since: number;
}

/**
 * Measures how long the threads of a guest wait for pages in postcopy, from their request to their
 * arrival. A wait that ends before anything was requested does not count. It costs nothing for pages
 * that nobody waits for.
 *
 * @see mark_postcopy_blocktime_begin, mark_postcopy_blocktime_end in QEMU's migration/postcopy-ram.c
 */
export class PostcopyBlocktime {
  readonly #clock: Clock;
  readonly #faults: FaultSource;
  /** By vCPU, in ms. */
  readonly #vcpuMs: number[];
  readonly #vcpuFaults: number[];
  readonly #buckets: number[] = new Array<number>(BUCKETS).fill(0);
  #otherMs = 0;
  #otherFaults = 0;
  #totalMs = 0;
  /** When the last vCPU began to wait. */
  #lastBegin = 0;
  #waits: Wait[] = [];

  /** @throws MigrationError `CAPABILITY_UNSUPPORTED` */
  constructor(clock: Clock, faults: FaultSource, vcpus: number) {
    if (faults.waiting === undefined) {
      throw new MigrationError(
        'CAPABILITY_UNSUPPORTED',
        "Capability 'postcopy-blocktime' needs a guest that tells who waits",
        { likely: 'The guest has no faults.waiting' },
      );
    }
    this.#clock = clock;
    this.#faults = faults;
    this.#vcpuMs = new Array<number>(vcpus).fill(0);
    this.#vcpuFaults = new Array<number>(vcpus).fill(0);
  }

  /** Looks who has begun to wait: call it when requests are sent. */
  begin(): void {
    this.end(); // whose page came may wait for another already
    const now = this.#clock.now();
    for (const thread of this.#faults.waiting?.() ?? []) {
      if (this.#waits.some((wait) => wait.thread.vcpu === thread.vcpu)) continue;
      this.#waits.push({ thread, since: now });
      if (thread.vcpu === undefined) this.#otherFaults += 1;
      else {
        this.#vcpuFaults[thread.vcpu]! += 1;
        this.#lastBegin = now;
      }
    }
  }

  /** Looks whose page has come: call it when some may have. */
  end(): void {
    if (this.#waits.length === 0) return;
    const isOver = ({ thread: { block, offsetBytes, lengthBytes } }: Wait): boolean =>
      block.isRangeReceived(offsetBytes, lengthBytes);
    const over = this.#waits.filter(isOver);
    if (over.length === 0) return;
    const now = this.#clock.now();
    const wereAllDown = this.#vcpusDown === this.#vcpuMs.length;
    this.#waits = this.#waits.filter((wait) => !over.includes(wait));
    if (wereAllDown && this.#vcpusDown < this.#vcpuMs.length) {
      this.#totalMs += now - this.#lastBegin;
    }
    for (const { thread, since } of over) {
      const ms = now - since;
      if (thread.vcpu === undefined) this.#otherMs += ms;
      else this.#vcpuMs[thread.vcpu]! += ms;
      const bucket = Math.floor(Math.log2(Math.max(1, ms * 1000)));
      this.#buckets[Math.min(bucket, BUCKETS - 1)]! += 1;
    }
  }

  get #vcpusDown(): number {
    return this.#waits.filter(({ thread }) => thread.vcpu !== undefined).length;
  }

  /** Makes the members of `query-migrate`. */
  get statistics(): BlocktimeStatistics {
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    const latency = (ms: number, faults: number): number =>
      faults === 0 ? 0 : Math.floor((ms * 1e6) / faults);
    return {
      'postcopy-blocktime': Math.floor(this.#totalMs),
      'postcopy-vcpu-blocktime': this.#vcpuMs.map(Math.floor),
      'postcopy-latency': latency(
        sum(this.#vcpuMs) + this.#otherMs,
        sum(this.#vcpuFaults) + this.#otherFaults,
      ),
      'postcopy-latency-dist': [...this.#buckets],
      'postcopy-vcpu-latency': this.#vcpuMs.map((ms, i) => latency(ms, this.#vcpuFaults[i]!)),
      'postcopy-non-vcpu-latency': latency(this.#otherMs, this.#otherFaults),
    };
  }
}
