import type { GuestRam } from '@wherry/page-engine';
import type { VcpuControl } from './vcpu-control.ts';
import { PLAIN_WASM_BASE64, SHARED_WASM_BASE64 } from './vcpu-wasm.gen.ts';

/** What a vCPU executes. Each call may block its thread on a page that is not here yet. */
export interface VcpuCore {
  /** Writes up to `maxPages` pages, each checked before. @returns the pages written */
  run(maxPages: number): number;
  /** Makes a request on each virtqueue. */
  kick(): void;
  /** Writes `share` of the pages once, spread evenly, going on where it was. @returns the pages looked at, 0 at the end */
  fill(share: number, maxPages: number): number;
  /** Checks pages, going on where it was. @returns their number, 0 at the end */
  verify(maxPages: number): number;
}

/** Lists the functions of assembly/vcpu.ts. */
interface VcpuModule {
  readonly access: WebAssembly.ExportValue;
  kick(control: number, slot: number, write: number): void;
  run(control: number, slot: number, pages: number): number;
  fill(control: number, slot: number, share: number, pages: number): number;
  verify(control: number, slot: number, pages: number): number;
}

/** Executes a workload in WebAssembly, on the memory of the guest. */
export class WorkloadCore implements VcpuCore {
  readonly #module: VcpuModule;
  readonly #control: number;
  readonly #slot: number;

  private constructor(module: VcpuModule, control: VcpuControl, ram: GuestRam) {
    this.#module = module;
    this.#control = control.ptr;
    this.#slot = ram.vcpuSlotPtr(control.vcpu);
  }

  /**
   * Binds the workload's module to every bank of `ram`.
   *
   * @param now a clock in milliseconds, for the latency of faults
   */
  static async create(
    ram: GuestRam,
    control: VcpuControl,
    now: () => number,
  ): Promise<WorkloadCore> {
    const shared = !(ram.reserved.memory.buffer instanceof ArrayBuffer);
    const base64 = shared ? SHARED_WASM_BASE64 : PLAIN_WASM_BASE64;
    const module = await WebAssembly.compile(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
    const table = new WebAssembly.Table({ element: 'anyfunc', initial: ram.banks.length });
    const instances: VcpuModule[] = [];
    for (const [bank, { memory }] of ram.banks.entries()) {
      const instance = await WebAssembly.instantiate(module, { env: { memory, table, now } });
      const exports = instance.exports as unknown as VcpuModule;
      table.set(bank, exports.access);
      instances.push(exports);
    }
    return new WorkloadCore(instances[0]!, control, ram);
  }

  run(maxPages: number): number {
    return this.#module.run(this.#control, this.#slot, maxPages);
  }

  kick(): void {
    this.#module.kick(this.#control, this.#slot, 1);
  }

  fill(share: number, maxPages: number): number {
    return this.#module.fill(this.#control, this.#slot, share, maxPages);
  }

  verify(maxPages: number): number {
    const pages = this.#module.verify(this.#control, this.#slot, maxPages);
    if (pages === 0) this.#module.kick(this.#control, this.#slot, 0);
    return pages;
  }
}
