import type { GuestRam } from '@wherry/page-engine';
import * as at from './control-layout.ts';
import { LOW_MEMORY_BYTES, RING_GPA } from './devices/virtio-driver.ts';
import { MachineError } from './machine-error.ts';
import { hasLowMemory, type OwnedRange } from './page-ownership.ts';
import type { WorkloadOptions } from './vcpu-spec.ts';
import type { Violation } from './witness.ts';

const TARGET_PAGE_BYTES = 4096;

/** What a vCPU's thread is to do. */
export type VcpuCommand = 'park' | 'run' | 'fill' | 'verify' | 'exit';

/** Commands by number. */
const COMMANDS: readonly VcpuCommand[] = ['park', 'run', 'fill', 'verify', 'exit'];

/** States of a vCPU's thread by number. */
const STATES = ['starting', 'parked', 'busy'] as const;
export type VcpuThreadState = (typeof STATES)[number];

/** Bytes that vCPUs need of the user region of guest memory. */
export function controlRegionBytes(vcpus: number, ramBytes: number): number {
  return vcpus * at.CONTROL_BYTES + (ramBytes / TARGET_PAGE_BYTES) * 4;
}

/**
 * Views a vCPU's control block: the memory through which the machine, the vCPU's thread and the
 * workload's module tell each other what to do and how far they are.
 *
 * The user region holds a block for every vCPU, then a u32 generation for every page of every RAM
 * block: how often its vCPU wrote it. It lies outside guest RAM, so it bears witness independently.
 */
export class VcpuControl {
  readonly vcpu: number;
  readonly ptr: number;
  /** What {@link setRanges} was given; not known to the thread's own view. */
  ranges: readonly OwnedRange[] = [];
  readonly #ram: GuestRam;
  readonly #view: DataView<ArrayBufferLike>;
  readonly #words: Int32Array<ArrayBufferLike>;
  readonly #longs: BigInt64Array<ArrayBufferLike>;
  readonly #generationsPtr: number;

  constructor(ram: GuestRam, vcpu: number) {
    const { memory, ptr } = ram.reserved;
    this.vcpu = vcpu;
    this.ptr = ptr + vcpu * at.CONTROL_BYTES;
    this.#ram = ram;
    this.#view = new DataView(memory.buffer);
    this.#words = new Int32Array(memory.buffer);
    this.#longs = new BigInt64Array(memory.buffer);
    this.#generationsPtr = ptr + ram.vcpus * at.CONTROL_BYTES;
  }

  get command(): VcpuCommand {
    return COMMANDS[Atomics.load(this.#words, this.#word(at.COMMAND))]!;
  }

  /** Gives the thread a command and wakes it. */
  set command(command: VcpuCommand) {
    Atomics.store(this.#words, this.#word(at.COMMAND), COMMANDS.indexOf(command));
    Atomics.notify(this.#words, this.#word(at.COMMAND));
  }

  /** Ends a command from the thread's side, unless there is a newer one. */
  finish(command: VcpuCommand): void {
    const word = this.#word(at.COMMAND);
    Atomics.compareExchange(this.#words, word, COMMANDS.indexOf(command), 0);
    Atomics.notify(this.#words, word);
  }

  /** Blocks the thread while its command is `command`. */
  waitWhile(command: VcpuCommand, timeoutMs: number = Infinity): void {
    Atomics.wait(this.#words, this.#word(at.COMMAND), COMMANDS.indexOf(command), timeoutMs);
  }

  get state(): VcpuThreadState {
    return STATES[Atomics.load(this.#words, this.#word(at.STATE))]!;
  }

  set state(state: VcpuThreadState) {
    Atomics.store(this.#words, this.#word(at.STATE), STATES.indexOf(state));
    Atomics.notify(this.#words, this.#word(at.STATE));
  }

  /** Resolves when the command is no longer `command`. */
  async commandEnds(command: VcpuCommand): Promise<void> {
    while (this.command === command) {
      await Atomics.waitAsync(this.#words, this.#word(at.COMMAND), COMMANDS.indexOf(command)).value;
    }
  }

  /** Resolves when the thread is parked. */
  async parks(): Promise<void> {
    for (let state = this.state; state !== 'parked'; state = this.state) {
      await Atomics.waitAsync(this.#words, this.#word(at.STATE), STATES.indexOf(state)).value;
    }
  }

  /** Whether the vCPU has anything to do. */
  get active(): boolean {
    return this.u32(at.WORKLOAD) !== 0 && this.u32(at.OWNED) !== 0;
  }

  u32(field: number): number {
    return Atomics.load(this.#words, this.#word(field)) >>> 0;
  }

  setU32(field: number, value: number): void {
    Atomics.store(this.#words, this.#word(field), value | 0);
  }

  u64(field: number): bigint {
    return BigInt.asUintN(64, Atomics.load(this.#longs, (this.ptr + field) / 8));
  }

  setU64(field: number, value: bigint): void {
    Atomics.store(this.#longs, (this.ptr + field) / 8, BigInt.asIntN(64, value));
  }

  get fillShare(): number {
    return this.#view.getFloat64(this.ptr + at.FILL_SHARE, true);
  }

  set fillShare(share: number) {
    this.#view.setFloat64(this.ptr + at.FILL_SHARE, share, true);
  }

  /** Percent of its time that the vCPU sleeps while it runs. */
  get throttle(): number {
    return this.u32(at.THROTTLE);
  }

  /** Also ends the sleep that the thread is in. */
  set throttle(percentage: number) {
    this.setU32(at.THROTTLE, percentage);
    Atomics.notify(this.#words, this.#word(at.COMMAND));
  }

  /** Sets what the vCPU does, from the beginning. */
  setWorkload(options: WorkloadOptions, seed: bigint, rng: bigint): void {
    this.setU32(at.WORKLOAD, options.workload);
    this.setU32(at.PAGES_PER_SECOND, options.pagesPerSecond);
    this.setU32(at.HOT_WRITES, options.hotWrites);
    this.setU32(at.CHANGED_LINES, options.changedLines);
    this.setU64(at.SEED, seed);
    this.setU64(at.RNG, rng);
  }

  /** Sets the pages that the vCPU owns, split where a segment of a block ends. */
  setRanges(ranges: readonly OwnedRange[]): void {
    this.ranges = ranges;
    let count = 0;
    let owned = 0;
    let hotOwned = 0;
    for (const range of ranges) {
      for (const segment of range.block.segments) {
        const first = Math.max(range.firstPage, segment.firstPage);
        const end = Math.min(range.firstPage + range.pages, segment.firstPage + segment.pages);
        if (first >= end) continue;
        if (count === at.RANGE_LIMIT) {
          throw new MachineError('OPTION_INVALID', 'A vCPU owns pages in too many places', {
            expected: `at most ${at.RANGE_LIMIT} segments of RAM blocks`,
            path: [`vcpus[${this.vcpu}]`],
            likely: 'The guest has very many RAM blocks: give it fewer and larger ones',
          });
        }
        const hot = Math.min(Math.max(range.firstPage + range.hotPages - first, 0), end - first);
        const segmentPage = first - segment.firstPage;
        const base = at.RANGES + count++ * at.RANGE_BYTES;
        this.setU32(base + at.RANGE_PAGES, end - first);
        this.setU32(base + at.RANGE_HOT, hot);
        this.setU32(base + at.RANGE_BLOCK, range.block.index);
        this.setU32(base + at.RANGE_BANK, segment.bank);
        this.setU32(base + at.RANGE_SEGMENT_PAGE, segmentPage);
        this.setU32(base + at.RANGE_BLOCK_PAGE, first);
        this.setU32(base + at.RANGE_RAM, segment.ptr + segmentPage * TARGET_PAGE_BYTES);
        this.setU32(base + at.RANGE_RECEIVED, segment.receivedPtr);
        this.setU32(base + at.RANGE_DIRTY, segment.dirtyPtr);
        this.setU32(base + at.RANGE_GENERATIONS, this.#generationPtr(range.block.index, first));
        this.setU32(base + at.RANGE_KEY, hashName(range.block.name));
        owned += end - first;
        hotOwned += hot;
      }
    }
    this.setU32(at.RANGE_COUNT, count);
    this.setU32(at.OWNED, owned);
    this.setU32(at.HOT_OWNED, hotOwned);
  }

  /** Whether the vCPU runs the guest's drivers. */
  get drives(): boolean {
    return this.u32(at.RING_RAM) !== 0;
  }

  /** Gives the vCPU the guest's drivers, with their virtqueues in low memory, if there is any. */
  setDrivers(drives: boolean): void {
    this.setU32(at.RING_RAM, 0);
    if (!drives) return;
    const segment = this.#ram.blocks[0]?.segments[0];
    if (segment === undefined || !hasLowMemory(this.#ram)) return;
    if (segment.bank !== 0 || segment.pages * TARGET_PAGE_BYTES < LOW_MEMORY_BYTES) return;
    this.setU32(at.RING_RAM, segment.ptr + RING_GPA);
    this.setU32(at.RING_RECEIVED, segment.receivedPtr);
    this.setU32(at.RING_DIRTY, segment.dirtyPtr);
    this.setU32(at.RING_PAGE, RING_GPA / TARGET_PAGE_BYTES);
  }

  /** Reads or writes how often each page of a range was written; a view of the live memory. */
  generations(range: OwnedRange): Uint32Array<ArrayBufferLike> {
    const ptr = this.#generationPtr(range.block.index, range.firstPage);
    return new Uint32Array(this.#view.buffer, ptr, range.pages);
  }

  /** Lists the first violations that the vCPU found. */
  violations(): Violation[] {
    const found: Violation[] = [];
    for (let i = 0; i < Math.min(this.u32(at.RECORDED), at.RECORD_LIMIT); i++) {
      const record = at.RECORDS + i * at.RECORD_BYTES;
      const age = this.u32(record + at.RECORD_FOUND);
      const expectedGeneration = this.u32(record + at.RECORD_EXPECTED);
      const stale = age !== at.FOUND_ZERO && age !== at.FOUND_OTHER;
      found.push({
        vcpu: this.vcpu,
        block: this.#ram.blocks[this.u32(record + at.RECORD_BLOCK)]!.name,
        page: this.u32(record + at.RECORD_PAGE),
        expectedGeneration,
        found: stale ? 'stale' : age === at.FOUND_ZERO ? 'zero' : 'other',
        ...(stale ? { foundGeneration: expectedGeneration - age } : {}),
      });
    }
    return found;
  }

  #generationPtr(block: number, page: number): number {
    let pages = page;
    for (let i = 0; i < block; i++) pages += this.#ram.blocks[i]!.pageCount;
    return this.#generationsPtr + pages * 4;
  }

  #word(field: number): number {
    return (this.ptr + field) / 4;
  }
}

/** Hashes a block's name, FNV-1a, so that patterns do not depend on the order of the blocks. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) {
    hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  }
  return hash >>> 0;
}
