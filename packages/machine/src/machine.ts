import {
  type FaultStatistics,
  GuestRam,
  MAX_XBZRLE_CACHE_BYTES,
  type RamBlockSpec,
} from '@wherry/page-engine';
import { type Device, DeviceRegistry } from '@wherry/vmstate';
import {
  CHECKS,
  KICKS,
  OWNED,
  PAGES_WRITTEN,
  POSITION,
  VIOLATIONS,
  WRITES,
} from './control-layout.ts';
import { GuestDevices } from './guest-devices.ts';
import { MachineError } from './machine-error.ts';
import { shareOfPages } from './page-ownership.ts';
import { controlRegionBytes, type VcpuCommand, VcpuControl } from './vcpu-control.ts';
import { vcpuDevice } from './vcpu-device.ts';
import { share, type VcpuSpec, workloadOptions } from './vcpu-spec.ts';
import type { VcpuThread, VcpuThreadInit } from './vcpu-thread.ts';
import type { WitnessReport } from './witness.ts';

const MiB = 2 ** 20;
const DEFAULT_BLOCKS: readonly RamBlockSpec[] = [
  { name: 'pc.ram', lengthBytes: 512 * MiB, hostPageBytes: 4096 },
  { name: 'hugemem', lengthBytes: 128 * MiB, hostPageBytes: 2 * MiB },
];
const DEFAULT_VCPUS: readonly VcpuSpec[] = [{ workload: 'hotset', pagesPerSecond: 20_000 }];
/** The most that a migration can use: the room for packets is set apart when the memory is made. */
const MULTIFD_CHANNELS = 16;
const GOLDEN_RATIO = 0x9e37_79b9_7f4a_7c15n;

/** What {@link Machine.create} takes. */
export interface MachineOptions {
  /** Default `pc-q35-5.2`. */
  readonly machineType?: string;
  /** Default `pc.ram` of 512 MiB in 4 KiB pages and `hugemem` of 128 MiB in 2 MiB pages. */
  readonly blocks?: readonly RamBlockSpec[];
  /** Default one `hotset` at 20000 pages a second. Of an incoming machine only the number counts. */
  readonly vcpus?: readonly VcpuSpec[];
  /** Share of each vCPU's pages (of all pages where every vCPU is idle) that are written once before it starts, 0 … 1; default 0.5. */
  readonly fill?: number;
  /** Decides all contents and choices; a whole number, default 0. */
  readonly seed?: number;
  /** Makes a destination: no page is there, and what the vCPUs do comes with their sections. */
  readonly incoming?: boolean;
  /** Starts a thread whose program is `runVcpuThread(init)`. */
  readonly spawn: (init: VcpuThreadInit) => VcpuThread;
  /** Wall clock, ms since the epoch. */
  readonly now: () => number;
}

/** A guest: RAM blocks, vCPUs in threads of their own, and devices. */
export class Machine {
  readonly machineType: string;
  readonly ram: GuestRam;
  /**
   * The devices, in QEMU's order of registration; those whose `isNeeded` is false send none.
   * Save and load them while the machine is stopped.
   */
  readonly devices: readonly Device[];
  readonly #controls: readonly VcpuControl[];
  readonly #guestDevices: GuestDevices;
  readonly #threads: VcpuThread[] = [];
  readonly #errorCallbacks: ((error: MachineError) => void)[] = [];
  readonly #failed = Promise.withResolvers<never>();
  #failure: MachineError | undefined;
  #running = false;
  /** Operations under way that keep the vCPUs from running. */
  #holds = 0;
  #verifying: Promise<WitnessReport> | undefined;

  private constructor(options: MachineOptions, ram: GuestRam) {
    this.machineType = options.machineType ?? 'pc-q35-5.2';
    this.ram = ram;
    this.#controls = Array.from({ length: ram.vcpus }, (_, i) => new VcpuControl(ram, i));
    this.#guestDevices = new GuestDevices({
      now: options.now,
      ramBytes: ram.blocks[0]?.lengthBytes ?? 0,
      rounds: () => this.#controls.find((control) => control.drives)?.u32(KICKS),
    });
    const registry = new DeviceRegistry();
    this.#guestDevices.registerClock(registry);
    for (const control of this.#controls) {
      registry.add(
        vcpuDevice(ram, control, () => this.#controls.filter((other) => other !== control)),
      );
    }
    this.#guestDevices.registerOthers(registry);
    this.devices = registry.devices;
    this.#failed.promise.catch(() => {}); // is looked at where something waits for the threads
  }

  /**
   * Makes a guest that is stopped; unless it is incoming, its memory is filled.
   *
   * @throws MachineError `OPTION_INVALID`, `PLATFORM_UNSUPPORTED`, `VCPU_FAILED`
   * @throws PageEngineError for RAM blocks that cannot be
   */
  static async create(options: MachineOptions): Promise<Machine> {
    const { blocks = DEFAULT_BLOCKS, vcpus = DEFAULT_VCPUS, incoming = false } = options;
    const fill = share('fill', options.fill ?? 0.5);
    const workloads = vcpus.map(workloadOptions);
    const { seed = 0 } = options;
    if (!Number.isSafeInteger(seed)) {
      throw new MachineError('OPTION_INVALID', 'seed is out of range', {
        expected: 'a whole number',
        found: String(seed),
      });
    }
    if (typeof Atomics.waitAsync !== 'function') {
      throw new MachineError('PLATFORM_UNSUPPORTED', 'The platform cannot wait for threads', {
        expected: 'Atomics.waitAsync',
        likely: 'The JavaScript engine is too old: Node 22, Chrome 87 and Firefox 145 have it',
      });
    }
    const ramBytes = blocks.reduce((total, block) => total + block.lengthBytes, 0);
    const ram = await GuestRam.create(blocks, {
      shared: true,
      vcpus: vcpus.length,
      reservedBytes: controlRegionBytes(vcpus.length, ramBytes),
      // Address space for a slot a page: a migration takes what it is told to use, others none.
      xbzrleCacheBytes: Math.min(2 ** Math.ceil(Math.log2(ramBytes)), MAX_XBZRLE_CACHE_BYTES),
      multifdChannels: MULTIFD_CHANNELS,
    });
    const machine = new Machine(options, ram);
    const active = machine.#controls.filter((_, i) => workloads[i]!.workload !== 0);
    const fillers = active.length > 0 ? active : machine.#controls.slice(0, 1);
    if (!incoming) {
      ram.setAllReceived(true);
      for (const [i, control] of fillers.entries()) {
        const workload = workloads[control.vcpu]!;
        control.setWorkload(workload, BigInt(seed), (BigInt(seed) + BigInt(i)) * GOLDEN_RATIO);
        control.setRanges(shareOfPages(ram, i, fillers.length, workload.hotPages));
        control.setDrivers(i === 0 && active.length > 0);
        control.fillShare = fill;
      }
      if (active.some((control) => control.drives)) machine.#guestDevices.boot();
    }
    try {
      await machine.#spawn(options.spawn);
      if (!incoming) {
        await machine.#perform('fill');
        // Nobody checks an idle guest's pages: no section tells the destination what they hold.
        if (active.length === 0) for (const control of fillers) control.setRanges([]);
      }
    } catch (error) {
      await machine.close();
      throw error;
    }
    return machine;
  }

  /** Whether the guest runs, as far as it was asked to. */
  get running(): boolean {
    return this.#running;
  }

  /** Pages that the workloads wrote so far, on every host that ran the guest. */
  get writes(): number {
    return this.#sum((control) => Number(control.u64(WRITES)));
  }

  /** Lets the vCPUs run. @throws MachineError `VCPU_FAILED`, `CLOSED` */
  start(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#running) return;
    this.#running = true;
    this.#guestDevices.started();
    if (this.#holds === 0) this.#command('run');
  }

  /**
   * Stops the vCPUs; resolves when every one is parked. One that waits for a missing page parks
   * after the page came, as in QEMU. A verification that is under way is finished first.
   *
   * @throws MachineError `VCPU_FAILED`, `CLOSED`
   */
  stop(): Promise<void> {
    this.#running = false;
    return this.#held(async () => {
      if (this.#verifying !== undefined) await this.#verifying;
      this.#command('park');
      await this.#parked();
      if (!this.#running) this.#guestDevices.stopped();
    });
  }

  /**
   * Makes each vCPU sleep a percentage of its time, from 0 to 99, until told otherwise.
   *
   * @throws MachineError `OPTION_INVALID`
   */
  setThrottle(percentage: number): void {
    if (!(Number.isInteger(percentage) && percentage >= 0 && percentage <= 99)) {
      throw new MachineError('OPTION_INVALID', 'The throttle is out of range', {
        expected: 'a whole number from 0 to 99',
        found: String(percentage),
      });
    }
    for (const control of this.#controls) control.throttle = percentage;
  }

  /** Reports what the vCPUs saw so far; waits for nothing. */
  witness(): WitnessReport {
    const sum = (counter: number): number => this.#sum((control) => Number(control.u64(counter)));
    return {
      pagesOwned: this.#sum((control) => control.u32(OWNED)),
      pagesWritten: this.#sum((control) => control.u32(PAGES_WRITTEN)),
      writes: this.writes,
      checks: sum(CHECKS),
      violations: sum(VIOLATIONS),
      firstViolations: this.#controls.flatMap((control) => control.violations()),
    };
  }

  /**
   * Lets every vCPU check each page that it owns, which also brings in missing ones. Running vCPUs
   * are parked meanwhile.
   *
   * @throws MachineError `VCPU_FAILED`, `CLOSED`
   */
  verify(): Promise<WitnessReport> {
    this.#verifying ??= this.#held(async () => {
      this.#command('park');
      await this.#parked();
      await this.#perform('verify');
      this.#verifying = undefined;
      return this.witness();
    });
    return this.#verifying;
  }

  /** Sums up how long vCPUs waited for missing pages. */
  faultStatistics(): FaultStatistics {
    return this.ram.faults.statistics();
  }

  /** Calls back when a vCPU's thread fails; at once if one has. */
  onError(callback: (error: MachineError) => void): void {
    this.#errorCallbacks.push(callback);
    if (this.#failure?.code === 'VCPU_FAILED') callback(this.#failure);
  }

  /** Ends the vCPUs' threads, wherever they are. */
  async close(): Promise<void> {
    this.#running = false;
    this.#failure ??= new MachineError('CLOSED', 'The machine is closed');
    this.#failed.reject(this.#failure);
    this.#command('exit');
    await Promise.all(this.#threads.map((thread) => thread.terminate()));
  }

  #command(command: VcpuCommand): void {
    for (const control of this.#controls) control.command = command;
  }

  async #spawn(spawn: MachineOptions['spawn']): Promise<void> {
    const ram = this.ram.handle();
    for (const { vcpu } of this.#controls) {
      const thread = spawn({ ram, vcpu });
      this.#threads.push(thread);
      thread.onError((cause) => this.#fail(vcpu, cause));
    }
    await this.#parked();
  }

  /** Has every vCPU do something from its first page to its last. */
  async #perform(command: 'fill' | 'verify'): Promise<void> {
    for (const control of this.#controls) control.setU32(POSITION, 0);
    this.#command(command);
    const ends = this.#controls.map((control) => control.commandEnds(command));
    await Promise.race([Promise.all(ends), this.#failed.promise]);
    await this.#parked();
  }

  /** Does something with the vCPUs parked; afterwards they run if the machine was started meanwhile or before. */
  async #held<T>(operation: () => Promise<T>): Promise<T> {
    this.#holds++;
    try {
      return await operation();
    } finally {
      this.#holds--;
      if (this.#holds === 0 && this.#running && this.#failure === undefined) this.#command('run');
    }
  }

  async #parked(): Promise<void> {
    const parks = this.#controls.map((control) => control.parks());
    await Promise.race([Promise.all(parks), this.#failed.promise]);
  }

  #fail(vcpu: number, cause: unknown): void {
    if (this.#failure !== undefined) return;
    this.#running = false;
    this.#failure = new MachineError('VCPU_FAILED', `The thread of vCPU ${vcpu} failed`, {
      found: cause instanceof Error ? cause.message : String(cause),
      path: [`vcpus[${vcpu}]`],
      likely: 'The thread could not start, or its program has a fault: see the cause',
      cause,
    });
    this.#failed.reject(this.#failure);
    for (const callback of this.#errorCallbacks) callback(this.#failure);
  }

  #sum(value: (control: VcpuControl) => number): number {
    return this.#controls.reduce((total, control) => total + value(control), 0);
  }
}
