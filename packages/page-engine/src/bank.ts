import { type Engine, instantiateEngine } from './engine-module.ts';
import type { BankPlan } from './layout.ts';

/** Holds one WebAssembly memory of a guest, the engine bound to it and views of the whole. */
export class Bank {
  readonly index: number;
  readonly plan: BankPlan;
  readonly memory: WebAssembly.Memory;
  readonly engine: Engine;
  readonly bytes: Uint8Array;
  readonly u32: Uint32Array;
  /** For what threads wait at. */
  readonly i32: Int32Array;
  readonly view: DataView;

  private constructor(index: number, plan: BankPlan, memory: WebAssembly.Memory, engine: Engine) {
    this.index = index;
    this.plan = plan;
    this.memory = memory;
    this.engine = engine;
    // A bank never grows, so its views stay valid.
    this.bytes = new Uint8Array(memory.buffer);
    this.u32 = new Uint32Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.view = new DataView(memory.buffer);
  }

  static async bind(
    index: number,
    plan: BankPlan,
    memory: WebAssembly.Memory,
    module: WebAssembly.Module,
  ): Promise<Bank> {
    return new Bank(index, plan, memory, await instantiateEngine(module, memory));
  }

  /** Reads the u32 at a pointer that is a multiple of 4. */
  getU32(ptr: number): number {
    return this.u32[ptr >>> 2]!;
  }

  /** Writes the u32 at a pointer that is a multiple of 4. */
  setU32(ptr: number, value: number): void {
    this.u32[ptr >>> 2] = value;
  }
}
