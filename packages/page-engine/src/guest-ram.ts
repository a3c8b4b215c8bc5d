import { Bank } from './bank.ts';
import { engineModule } from './engine-module.ts';
import { PageEngineError } from './errors.ts';
import { FaultPort } from './fault-port.ts';
import {
  ENTRY_BLOCK_PAGES,
  ENTRY_BYTES,
  ENTRY_DIRTY,
  ENTRY_FIRST_PAGE,
  ENTRY_HOST_PAGES,
  ENTRY_NAME,
  ENTRY_NAME_BYTES,
  ENTRY_OWED,
  ENTRY_PAGES,
  ENTRY_RAM,
  ENTRY_RECEIVED,
  ENTRY_WRITTEN,
  type GuestRamOptions,
  planRam,
  type RamBlockSpec,
  type RamPlan,
  SLOT_BYTES,
  SLOTS_PTR,
  TARGET_PAGE_BYTES,
} from './layout.ts';
import { RamBlock } from './ram-block.ts';

/** Carries a shared guest memory to another thread, through postMessage. */
export interface GuestRamHandle {
  readonly blocks: readonly RamBlockSpec[];
  readonly options: GuestRamOptions;
  readonly module: WebAssembly.Module;
  readonly memories: readonly WebAssembly.Memory[];
}

/**
 * Holds a guest's RAM blocks in WebAssembly memories ("banks") of at most 4 GiB.
 *
 * New memory is zero and all of its pages are missing: a destination receives into it as it is, a
 * guest that starts here calls `setAllReceived(true)` first.
 */
export class GuestRam {
  readonly blocks: readonly RamBlock[];
  readonly totalBytes: number;
  /** The most that is gathered before it becomes present. */
  readonly largestHostPageBytes: number;
  readonly vcpus: number;
  readonly banks: readonly Bank[];
  readonly plan: RamPlan;
  readonly faults: FaultPort;
  readonly #specs: readonly RamBlockSpec[];
  readonly #module: WebAssembly.Module;

  private constructor(
    specs: readonly RamBlockSpec[],
    plan: RamPlan,
    module: WebAssembly.Module,
    banks: readonly Bank[],
  ) {
    this.#specs = specs;
    this.#module = module;
    this.plan = plan;
    this.banks = banks;
    this.vcpus = plan.options.vcpus;
    this.blocks = specs.map((spec, index) => new RamBlock(spec, index, banks));
    this.totalBytes = specs.reduce((total, spec) => total + spec.lengthBytes, 0);
    this.largestHostPageBytes = Math.max(...specs.map((spec) => spec.hostPageBytes));
    this.faults = new FaultPort(this);
  }

  /**
   * Allocates the memory of a guest.
   * @throws PageEngineError BAD_BLOCK, BAD_OPTION, BANK_TOO_SMALL, OUT_OF_MEMORY
   */
  static async create(
    blocks: readonly RamBlockSpec[],
    options: GuestRamOptions = {},
  ): Promise<GuestRam> {
    const specs = blocks.map(({ name, lengthBytes, hostPageBytes }) => ({
      name,
      lengthBytes,
      hostPageBytes,
    }));
    const plan = planRam(specs, options);
    const { shared } = plan.options;
    const memories = plan.banks.map(({ wasmPages }) => {
      try {
        return new WebAssembly.Memory({ initial: wasmPages, maximum: wasmPages, shared });
      } catch (cause) {
        throw new PageEngineError(
          'OUT_OF_MEMORY',
          `no memory for a bank of ${wasmPages * 64} KiB: ${cause instanceof Error ? cause.message : cause}`,
        );
      }
    });
    const ram = await GuestRam.#bind(specs, plan, await engineModule(shared), memories);
    for (const bank of ram.banks) writeTable(bank, plan, specs);
    return ram;
  }

  /** Binds a guest memory that another thread created. */
  static attach(handle: GuestRamHandle): Promise<GuestRam> {
    const plan = planRam(handle.blocks, handle.options);
    return GuestRam.#bind(handle.blocks, plan, handle.module, handle.memories);
  }

  static async #bind(
    specs: readonly RamBlockSpec[],
    plan: RamPlan,
    module: WebAssembly.Module,
    memories: readonly WebAssembly.Memory[],
  ): Promise<GuestRam> {
    const banks = await Promise.all(
      plan.banks.map((bankPlan, i) => Bank.bind(i, bankPlan, memories[i]!, module)),
    );
    return new GuestRam(specs, plan, module, banks);
  }

  /**
   * Returns what a worker needs to attach.
   * @throws PageEngineError NOT_SHARED
   */
  handle(): GuestRamHandle {
    if (!this.plan.options.shared) {
      throw new PageEngineError(
        'NOT_SHARED',
        'only shared guest memory can be handed to a worker: create it with { shared: true }',
      );
    }
    return {
      blocks: this.#specs,
      options: this.plan.options,
      module: this.#module,
      memories: this.banks.map(({ memory }) => memory),
    };
  }

  block(name: string): RamBlock | undefined {
    return this.blocks.find((block) => block.name === name);
  }

  /** Locates the user's region, page aligned and zero at first. */
  get reserved(): {
    readonly memory: WebAssembly.Memory;
    readonly ptr: number;
    readonly lengthBytes: number;
  } {
    const { memory, plan } = this.banks[0]!;
    return { memory, ptr: plan.reservedPtr, lengthBytes: this.plan.options.reservedBytes };
  }

  /**
   * Locates a vCPU's fault slot; the pointer holds in every bank.
   * @throws PageEngineError RANGE
   */
  vcpuSlotPtr(vcpu: number): number {
    if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= this.vcpus) {
      throw new PageEngineError('RANGE', `vCPU ${vcpu} of ${this.vcpus}`);
    }
    return SLOTS_PTR + vcpu * SLOT_BYTES;
  }

  /** Makes every page present (a guest that runs; wakes waiting vCPUs) or missing (about to receive). */
  setAllReceived(present: boolean): void {
    if (!present) {
      for (const block of this.blocks) block.discardRange(0, block.lengthBytes);
      return;
    }
    for (const { engine, plan } of this.banks) {
      for (const { pages, receivedPtr } of plan.segments) engine.setRange(receivedPtr, 0, pages);
    }
    this.faults.wakeAll();
  }
}

/** Writes the block table, which every bank holds for all blocks. */
function writeTable(bank: Bank, plan: RamPlan, specs: readonly RamBlockSpec[]): void {
  specs.forEach((spec, index) => {
    const entry = plan.tablePtr + index * ENTRY_BYTES;
    const name = new TextEncoder().encode(spec.name);
    bank.bytes.set(name, entry + ENTRY_NAME);
    bank.setU32(entry + ENTRY_NAME_BYTES, name.length);
    bank.setU32(entry + ENTRY_BLOCK_PAGES, spec.lengthBytes / TARGET_PAGE_BYTES);
    bank.setU32(entry + ENTRY_HOST_PAGES, spec.hostPageBytes / TARGET_PAGE_BYTES);
    const segment = bank.plan.segments.find(({ block }) => block === index);
    if (segment === undefined) return;
    bank.setU32(entry + ENTRY_RAM, segment.ptr);
    bank.setU32(entry + ENTRY_DIRTY, segment.dirtyPtr);
    bank.setU32(entry + ENTRY_OWED, segment.owedPtr);
    bank.setU32(entry + ENTRY_RECEIVED, segment.receivedPtr);
    bank.setU32(entry + ENTRY_WRITTEN, segment.writtenPtr);
    bank.setU32(entry + ENTRY_FIRST_PAGE, segment.firstPage);
    bank.setU32(entry + ENTRY_PAGES, segment.pages);
  });
}
