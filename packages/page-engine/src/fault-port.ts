import type { Bank } from './bank.ts';
import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import {
  DOORBELL_PTR,
  HISTOGRAM_BUCKETS,
  SLOT_BLOCK,
  SLOT_BYTES,
  SLOT_COUNT,
  SLOT_HISTOGRAM,
  SLOT_PAGE,
  SLOT_STATE,
  SLOT_TOTAL_MS,
  SLOTS_PTR,
  TARGET_PAGE_BYTES,
  WAITING_PTR,
} from './layout.ts';
import type { RamBlock } from './ram-block.ts';

/** Looks again after this long even if no wake came. */
const RECHECK_MS = 100;

/** Names the host page that a vCPU waits for. */
export interface PageFault {
  readonly block: RamBlock;
  /** A multiple of the block's host page size. */
  readonly offsetBytes: number;
  /** The block's host page size. */
  readonly lengthBytes: number;
}

/** Sums up the faults of all vCPUs. */
export interface FaultStatistics {
  readonly count: number;
  readonly totalMs: number;
  /** The upper end of the histogram's bucket that holds the percentile; 0 without faults. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Lists the buckets that are not empty; a bucket reaches to at most 1.25 of its start. */
  readonly histogram: readonly {
    readonly fromMs: number;
    readonly toMs: number;
    readonly count: number;
  }[];
}

function bucketStartMs(bucket: number): number {
  return (2 ** (bucket >> 2) * (1 + (bucket & 3) / 4)) / 1000;
}

/** Serves the faults of the vCPUs to the thread that runs the migration. */
export class FaultPort {
  readonly #ram: GuestRam;
  /** By bank: the doorbell's value at the last look. */
  readonly #seen: number[];
  /** The banks whose doorbell is being waited for. */
  readonly #armed = new Set<Bank>();
  readonly #waiters: (() => void)[] = [];
  /** What ends the waits, too. */
  #signal: AbortSignal | undefined;
  #touching: Promise<void> = Promise.resolve();
  readonly #outstanding = new Map<string, PageFault>();

  constructor(ram: GuestRam) {
    this.#ram = ram;
    this.#seen = ram.banks.map(() => 0);
  }

  /**
   * Resolves once a vCPU has begun to wait since the last {@link take}, or after {@link ring}, or once
   * `signal` is aborted.
   * @throws PageEngineError NOT_SHARED, UNSUPPORTED_PLATFORM (no Atomics.waitAsync)
   */
  async wait(signal?: AbortSignal): Promise<void> {
    this.#checkPlatform();
    const { banks } = this.#ram;
    if (signal !== undefined && signal !== this.#signal) {
      this.#signal = signal; // one listener for all its waits: each is on a vCPU's way to its page
      signal.addEventListener('abort', () => this.ring(), { once: true });
    }
    if (signal?.aborted || banks.some((bank, i) => doorbell(bank) !== this.#seen[i])) return;
    const rung = new Promise<void>((resolve) => this.#waiters.push(resolve));
    for (const bank of banks) this.#arm(bank);
    await rung;
  }

  /**
   * Resolves once all pages that the bytes of a block touch are present; missing ones are asked for
   * as a vCPU does, through {@link take}. For devices, which run where they must not block.
   * @throws PageEngineError RANGE, NOT_SHARED, UNSUPPORTED_PLATFORM
   */
  touch(block: RamBlock, offsetBytes: number, lengthBytes: number): Promise<void> {
    const touched = this.#touching.then(() => this.#touch(block, offsetBytes, lengthBytes));
    // One at a time: the devices have one slot. A failed one does not fail the next.
    this.#touching = touched.catch(() => undefined);
    return touched;
  }

  async #touch(block: RamBlock, offsetBytes: number, lengthBytes: number): Promise<void> {
    if (block.isRangeReceived(offsetBytes, lengthBytes)) return;
    this.#checkPlatform();
    const slot = SLOTS_PTR + this.#ram.vcpus * SLOT_BYTES;
    const end = Math.ceil((offsetBytes + lengthBytes) / TARGET_PAGE_BYTES);
    for (let page = Math.floor(offsetBytes / TARGET_PAGE_BYTES); page < end; page++) {
      const segment = block.segments.findLast(({ firstPage }) => firstPage <= page)!;
      const words = new Int32Array(segment.memory.buffer);
      Atomics.store(words, (slot + SLOT_BLOCK) >> 2, block.index);
      Atomics.store(words, (slot + SLOT_PAGE) >> 2, page - segment.firstPage);
      Atomics.add(words, WAITING_PTR >> 2, 1);
      for (;;) {
        Atomics.store(words, (slot + SLOT_STATE) >> 2, 1);
        if (block.isReceived(page)) break;
        Atomics.add(words, DOORBELL_PTR >> 2, 1);
        Atomics.notify(words, DOORBELL_PTR >> 2);
        await Atomics.waitAsync(words, (slot + SLOT_STATE) >> 2, 1, RECHECK_MS).value;
      }
      Atomics.store(words, (slot + SLOT_STATE) >> 2, 0);
      Atomics.sub(words, WAITING_PTR >> 2, 1);
    }
  }

  #checkPlatform(): void {
    if (!this.#ram.plan.options.shared) {
      throw new PageEngineError('NOT_SHARED', 'only vCPUs on shared guest memory wait for pages');
    }
    if (typeof Atomics.waitAsync !== 'function') {
      throw new PageEngineError(
        'UNSUPPORTED_PLATFORM',
        'this platform has no Atomics.waitAsync, which faults need',
      );
    }
  }

  /** Ends a {@link wait}, for a caller that wants its loop to look around. */
  ring(): void {
    const [bank] = this.#ram.banks;
    const words = bank!.i32;
    Atomics.add(words, DOORBELL_PTR >> 2, 1);
    Atomics.notify(words, DOORBELL_PTR >> 2);
  }

  /** Returns the host pages that vCPUs have begun to wait for, each once while it is missing. */
  take(): PageFault[] {
    for (const [key, { block, offsetBytes, lengthBytes }] of this.#outstanding) {
      if (block.isRangeReceived(offsetBytes, lengthBytes)) this.#outstanding.delete(key);
    }
    const taken: PageFault[] = [];
    this.#ram.banks.forEach((bank, i) => {
      // Before the slots: a ring from here on ends the next wait.
      this.#seen[i] = doorbell(bank);
      for (let slot = 0; slot < this.#ram.plan.slots; slot++) {
        const fault = this.#faultOf(bank, SLOTS_PTR + slot * SLOT_BYTES);
        if (fault === undefined) continue;
        const key = `${fault.block.index}:${fault.offsetBytes}`;
        if (this.#outstanding.has(key)) continue;
        this.#outstanding.set(key, fault);
        taken.push(fault);
      }
    });
    return taken;
  }

  /** Returns who waits now, a vCPU by its number, the devices without one. */
  waiting(): (PageFault & { readonly vcpu: number | undefined })[] {
    const { vcpus, banks, plan } = this.#ram;
    return banks.flatMap((bank) =>
      Array.from({ length: plan.slots }, (_, slot) => {
        const fault = this.#faultOf(bank, SLOTS_PTR + slot * SLOT_BYTES);
        return fault && { ...fault, vcpu: slot < vcpus ? slot : undefined };
      }).filter((fault) => fault !== undefined),
    );
  }

  /** Makes every waiting vCPU look again at its page. */
  wakeAll(): void {
    for (const { engine } of this.#ram.banks) engine.wakeAll(this.#ram.plan.slots);
  }

  /** Forgets what {@link take} returned: what is still missing is returned again (a new connection). */
  forgetOutstanding(): void {
    this.#outstanding.clear();
  }

  /** Sums up the faults that have ended. */
  statistics(): FaultStatistics {
    const counts = new Array<number>(HISTOGRAM_BUCKETS).fill(0);
    let count = 0;
    let totalMs = 0;
    for (const bank of this.#ram.banks) {
      for (let slot = 0; slot < this.#ram.plan.slots; slot++) {
        const ptr = SLOTS_PTR + slot * SLOT_BYTES;
        count += Atomics.load(bank.u32, (ptr + SLOT_COUNT) >> 2);
        totalMs += bank.view.getFloat64(ptr + SLOT_TOTAL_MS, true);
        for (let bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
          counts[bucket]! += bank.getU32(ptr + SLOT_HISTOGRAM + bucket * 4);
        }
      }
    }
    const recorded = counts.reduce((sum, n) => sum + n, 0);
    const percentile = (share: number): number => {
      let left = Math.ceil(recorded * share);
      for (let bucket = 0; bucket < HISTOGRAM_BUCKETS && left > 0; bucket++) {
        left -= counts[bucket]!;
        if (left <= 0) return bucketStartMs(bucket + 1);
      }
      return 0;
    };
    return {
      count,
      totalMs,
      p50Ms: percentile(0.5),
      p99Ms: percentile(0.99),
      histogram: counts.flatMap((n, bucket) =>
        n === 0
          ? []
          : [{ fromMs: bucketStartMs(bucket), toMs: bucketStartMs(bucket + 1), count: n }],
      ),
    };
  }

  /** Reads a slot; a vCPU that moves on meanwhile can only make it name another page of the guest. */
  #faultOf(bank: Bank, slot: number): PageFault | undefined {
    if (Atomics.load(bank.u32, (slot + SLOT_STATE) >> 2) !== 1) return undefined;
    const block = this.#ram.blocks[Atomics.load(bank.u32, (slot + SLOT_BLOCK) >> 2)];
    const page = Atomics.load(bank.u32, (slot + SLOT_PAGE) >> 2);
    const segment = block?.segments.find((candidate) => candidate.bank === bank.index);
    if (block === undefined || segment === undefined || page >= segment.pages) return undefined;
    if (block.isReceived(segment.firstPage + page)) return undefined;
    const offset = (segment.firstPage + page) * TARGET_PAGE_BYTES;
    return {
      block,
      offsetBytes: offset - (offset % block.hostPageBytes),
      lengthBytes: block.hostPageBytes,
    };
  }

  #arm(bank: Bank): void {
    if (this.#armed.has(bank)) return;
    this.#armed.add(bank);
    const seen = this.#seen[bank.index]! | 0;
    const { value } = Atomics.waitAsync(bank.i32, DOORBELL_PTR >> 2, seen);
    // "not-equal" comes at once, as a string.
    void Promise.resolve(value).then(() => {
      this.#armed.delete(bank);
      for (const resolve of this.#waiters.splice(0)) resolve();
    });
  }
}

function doorbell(bank: Bank): number {
  return Atomics.load(bank.u32, DOORBELL_PTR >> 2);
}
