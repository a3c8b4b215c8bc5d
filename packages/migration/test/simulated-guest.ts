import { GuestRam, type RamBlockSpec } from '@wherry/page-engine';
import { array, describe, field, timer, u32, u64, vbuffer, vmstateDevice } from '@wherry/vmstate';
import type { GuestPort, PageFault } from '../src/index.ts';
import type { VirtualClock } from './virtual-clock.ts';

const PAGE = 4096;

/** Small numbers from a seed. @see mulberry32 */
export function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const witness = (version: number) =>
  describe({
    name: 'witness',
    version,
    fields: [
      field('seed', u32),
      field('writes', u64),
      field('timers', array(timer, 2)),
      field('length', u32),
      field('generations', vbuffer('length')),
    ],
  });

/** Which guests of a simulation run now; two at once are an error. */
export class RunningGuests {
  readonly #running = new Set<string>();
  readonly violations: string[] = [];
  start(name: string): void {
    this.#running.add(name);
    if (this.#running.size > 1)
      this.violations.push(`two guests run: ${[...this.#running].join(', ')}`);
  }
  stop(name: string): void {
    this.#running.delete(name);
  }
  get names(): readonly string[] {
    return [...this.#running];
  }
}

/** A guest on a virtual clock: one vCPU that rewrites random pages and checks each before. */
export class SimulatedGuest implements GuestPort {
  readonly machineType: string;
  readonly ram: GuestRam;
  readonly name: string;
  /** What it was told to sleep, in percent of its time, oldest first. */
  readonly throttles: number[] = [];
  readonly violations: string[] = [];
  readonly devices: GuestPort['devices'];
  readonly blockers: readonly string[];
  readonly #clock: VirtualClock;
  readonly #all: RunningGuests;
  readonly #random: (below: number) => number;
  readonly #writeEveryMs: number;
  readonly #changesLittle: boolean;
  #generations: Uint8Array;
  #seed: number;
  #writes = 0n;
  #running = false;
  #loop: Promise<void> = Promise.resolve();
  #stops: (() => void)[] = [];
  #faults: PageFault[] = [];
  /** What the vCPU waits for now. */
  #awaited: PageFault | undefined;
  #wake = Promise.withResolvers<void>();

  private constructor(ram: GuestRam, options: SimulatedGuestOptions) {
    this.ram = ram;
    this.name = options.name;
    this.machineType = options.machineType ?? 'pc-q35-5.2';
    this.#clock = options.clock;
    this.#all = options.all;
    this.#seed = options.seed;
    this.#random = randomFrom(options.seed);
    this.#writeEveryMs = options.writeEveryMs ?? 1;
    this.#changesLittle = options.changesLittle ?? false;
    this.#generations = new Uint8Array(ram.totalBytes / PAGE);
    this.devices = [
      vmstateDevice({
        idstr: options.device ?? 'witness',
        description: witness(options.deviceVersion ?? 1),
        get: () => ({
          seed: this.#seed,
          writes: this.#writes,
          timers: [-1n, this.#writes * 7n],
          length: this.#generations.length,
          generations: this.#generations.slice(),
        }),
        set: (state) => {
          this.#seed = state.seed;
          this.#writes = state.writes;
          this.#generations = state.generations.slice();
        },
      }),
      ...(options.furtherDevices ?? []),
    ];
    this.blockers = options.blockers ?? [];
  }

  static async create(options: SimulatedGuestOptions): Promise<SimulatedGuest> {
    const ram = await GuestRam.create(options.blocks, {
      ioBufferBytes: 65536,
      multifdChannels: 4,
      ...(options.xbzrleCacheBytes === undefined
        ? {}
        : { xbzrleCacheBytes: options.xbzrleCacheBytes }),
    });
    return new SimulatedGuest(ram, options);
  }

  get running(): boolean {
    return this.#running;
  }
  get writes(): bigint {
    return this.#writes;
  }
  get generations(): Uint8Array {
    return this.#generations;
  }

  /** Writes most pages once, as a guest that has run before; the others stay zero. */
  fill(): void {
    for (let page = 0; page < this.#generations.length; page++) {
      if (page % 8 !== 7) this.#write(page);
    }
  }

  #write(page: number): void {
    this.#generations[page] = (this.#generations[page]! + 1) & 0xff;
    this.#writes += 1n;
    const { block, offset } = this.#place(page);
    block.write(offset, this.#content(page));
  }

  start(): void {
    this.#running = true;
    this.#all.start(this.name);
    this.#loop = this.#run();
  }

  setThrottle(percentage: number): void {
    this.throttles.push(percentage);
  }

  async stop(): Promise<void> {
    this.#running = false;
    for (const wake of this.#stops.splice(0)) wake();
    await this.#loop;
    this.#all.stop(this.name);
  }

  readonly faults: GuestPort['faults'] = {
    wait: async (signal) => {
      if (this.#faults.length > 0 || signal.aborted) return;
      signal.addEventListener('abort', () => this.#wake.resolve());
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    },
    take: () => this.#faults.splice(0),
    waiting: () => (this.#awaited === undefined ? [] : [{ ...this.#awaited, vcpu: 0 }]),
    repeat: () => {
      if (this.#awaited !== undefined) this.#faults = [this.#awaited];
    },
  };

  async #run(): Promise<void> {
    while (this.#running) {
      await this.#clock.sleep((this.#writeEveryMs * 100) / (100 - (this.throttles.at(-1) ?? 0)));
      if (!this.#running) return;
      const page = this.#random(this.#generations.length);
      if (!(await this.#touch(page))) return;
      this.checkPage(page);
      this.#write(page);
    }
  }

  /** Waits until a page is present. @returns false when the guest is stopped meanwhile */
  async #touch(page: number): Promise<boolean> {
    const { block, offset } = this.#place(page);
    const isPresent = (): boolean => block.isReceived(offset / PAGE);
    if (isPresent()) return true;
    const host = block.hostPageBytes;
    this.#awaited = { block, offsetBytes: offset - (offset % host), lengthBytes: host };
    this.#faults.push(this.#awaited);
    this.#wake.resolve();
    while (!isPresent() && this.#running) await this.#clock.sleep(0.2);
    this.#awaited = undefined;
    return isPresent();
  }

  /** Holds a page against what was last written to it. */
  checkPage(page: number): void {
    const { block, offset } = this.#place(page);
    const found = block.read(offset, PAGE);
    const expected = this.#content(page);
    if (expected.some((byte, i) => byte !== found[i])) {
      this.violations.push(
        `${this.name}: page ${page} of ${block.name} is not of generation ${this.#generations[page]}`,
      );
    }
  }

  checkAllPages(): void {
    for (let page = 0; page < this.#generations.length; page++) this.checkPage(page);
  }

  #place(page: number): { block: GuestRam['blocks'][number]; offset: number } {
    let offset = page * PAGE;
    for (const block of this.ram.blocks) {
      if (offset < block.lengthBytes) return { block, offset };
      offset -= block.lengthBytes;
    }
    throw new RangeError(`page ${page}`);
  }

  #content(page: number): Uint8Array {
    const generation = this.#generations[page]!;
    const bytes = new Uint8Array(PAGE);
    if (generation !== 0)
      bytes
        .fill((page * 31 + (this.#changesLittle ? 1 : generation)) & 0xff)
        .set([generation, page & 0xff, page >> 8]);
    return bytes;
  }
}

export interface SimulatedGuestOptions {
  readonly name: string;
  readonly blocks: readonly RamBlockSpec[];
  readonly clock: VirtualClock;
  readonly all: RunningGuests;
  readonly seed: number;
  readonly writeEveryMs?: number;
  /** A write changes three bytes of a page, rather than all. */
  readonly changesLittle?: boolean;
  readonly xbzrleCacheBytes?: number;
  readonly machineType?: string;
  readonly device?: string;
  readonly deviceVersion?: number;
  readonly furtherDevices?: GuestPort['devices'];
  readonly blockers?: readonly string[];
}
