import { TARGET_PAGE_BYTES } from '@wherry/page-engine';
import type { Clock } from './clock.ts';
import type { Parameters } from './parameters.ts';

/** How long bytes are counted before they are judged. @see migration_bitmap_sync in QEMU's migration/ram.c */
const PERIOD_MS = 1000;
/** How long a round may take before the dirty log is looked at within it. @see CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS in QEMU's migration/cpu-throttle.c */
const SYNC_INTERVAL_MS = 5000;

/** What {@link AutoConverge} needs. */
export interface AutoConvergeOptions {
  readonly clock: Clock;
  readonly parameters: () => Parameters;
  /** Makes each vCPU sleep this percentage of its time. */
  readonly setThrottle: (percentage: number) => void;
}

/**
 * Slows the guest down, step by step, while it dirties memory faster than a share of what is sent.
 *
 * @see migration_trigger_throttle, mig_throttle_guest_down in QEMU's migration/ram.c
 */
export class AutoConverge {
  readonly #options: AutoConvergeOptions;
  #percentage = 0;
  #timesHigh = 0;
  #syncs = 0;
  #syncedAt = 0;
  #periodStartedAt = 0;
  #periodStartBytes = 0;
  #dirtyPages = 0;

  constructor(options: AutoConvergeOptions) {
    this.#options = options;
  }

  /** How much each vCPU sleeps now; 0 for not at all. */
  get percentage(): number {
    return this.#percentage;
  }

  /** Whether a round has taken so long that its end is not to be waited for; the first one may. */
  get isSyncDue(): boolean {
    return this.#syncs > 1 && this.#options.clock.now() - this.#syncedAt >= SYNC_INTERVAL_MS;
  }

  /**
   * Takes a synchronisation of the dirty log into account.
   *
   * @param dirtyPages pages that came to be owed by it
   * @param streamBytes bytes sent so far
   */
  synced(dirtyPages: number, streamBytes: number): void {
    const now = this.#options.clock.now();
    this.#syncs += 1;
    this.#syncedAt = now;
    if (this.#syncs === 1) this.#periodStartedAt = now;
    this.#dirtyPages += dirtyPages;
    if (now - this.#periodStartedAt <= PERIOD_MS) return;
    const threshold = this.#options.parameters()['throttle-trigger-threshold'] / 100;
    this.#judge(
      this.#dirtyPages * TARGET_PAGE_BYTES,
      (streamBytes - this.#periodStartBytes) * threshold,
    );
    this.#periodStartedAt = now;
    this.#periodStartBytes = streamBytes;
    this.#dirtyPages = 0;
  }

  /** Lets the vCPUs run at full speed again. */
  stop(): void {
    if (this.#percentage !== 0) this.#set(0);
  }

  #judge(dirtyBytes: number, thresholdBytes: number): void {
    if (dirtyBytes <= thresholdBytes) return;
    this.#timesHigh += 1;
    if (this.#timesHigh < 2) return;
    this.#timesHigh = 0;
    const parameters = this.#options.parameters();
    if (this.#percentage === 0) {
      this.#set(parameters['cpu-throttle-initial']);
      return;
    }
    let increment = parameters['cpu-throttle-increment'];
    if (parameters['cpu-throttle-tailslow']) {
      const running = 100 - this.#percentage;
      const ideal = Math.floor((running * thresholdBytes) / dirtyBytes);
      increment = Math.min(increment, running - ideal);
    }
    this.#set(Math.min(this.#percentage + increment, parameters['max-cpu-throttle']));
  }

  #set(percentage: number): void {
    this.#percentage = percentage;
    this.#options.setThrottle(percentage);
  }
}
