import type { Bank } from './bank.ts';
import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { RamBlock } from './ram-block.ts';

/** Does what memory allows at best with a block's bytes, for benchmarks to stand beside. */
export class EngineLimits {
  readonly #banks: readonly Bank[];

  constructor(ram: GuestRam) {
    this.#banks = ram.banks;
  }

  /** Reads one word of each cache line of the block. @returns their sum */
  read(block: RamBlock): bigint {
    let sum = 0n;
    for (const { bank, ptr, pages } of block.segments) {
      sum += this.#banks[bank]!.engine.readTouch(ptr, pages * 4096);
    }
    return BigInt.asUintN(64, sum);
  }

  /**
   * Copies the bytes of one block over another by memory.copy; no page becomes dirty.
   * @throws PageEngineError RANGE when the blocks are not in one bank or differ in length
   */
  copy(to: RamBlock, from: RamBlock): void {
    const [target] = to.segments;
    const [source] = from.segments;
    if (
      target!.bank !== source!.bank ||
      to.segments.length + from.segments.length !== 2 ||
      to.lengthBytes !== from.lengthBytes
    ) {
      throw new PageEngineError('RANGE', 'the copy limit needs two equal blocks in one bank');
    }
    this.#banks[target!.bank]!.engine.copy(target!.ptr, source!.ptr, from.lengthBytes);
  }
}
