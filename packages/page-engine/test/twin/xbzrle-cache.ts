import { CACHE_LIFETIME, CACHE_TAG_BYTES } from '../../src/layout.ts';
import type { TwinBank } from './bank.ts';

/** One cache of pages, as the sender's state names it. */
export class TwinCache {
  readonly #bank: TwinBank;
  readonly #ptr: number;
  readonly #slots: number;
  readonly #age: number;

  constructor(bank: TwinBank, ptr: number, slots: number, age: number) {
    this.#bank = bank;
    this.#ptr = ptr;
    this.#slots = slots;
    this.#age = age;
  }

  #index(page: number): number {
    return (page / 4096) % this.#slots;
  }

  /** Where a page is kept, if it is. */
  slot(page: number): number {
    return this.#ptr + this.#index(page) * 4096;
  }

  #tag(page: number): number {
    return this.#ptr + this.#slots * 4096 + this.#index(page) * CACHE_TAG_BYTES;
  }

  /** Tells whether a page is kept; it has been used then. */
  holds(page: number): boolean {
    const tag = this.#tag(page);
    if (this.#bank.u32(tag) !== page) return false;
    this.#bank.setU32(tag + 4, this.#age);
    return true;
  }

  /** Gives the slot to a page unless another was used lately. */
  take(page: number): boolean {
    const tag = this.#tag(page);
    const [holder, age] = [this.#bank.u32(tag), this.#bank.u32(tag + 4)];
    if (holder !== 0 && holder !== page && age + CACHE_LIFETIME > this.#age) return false;
    this.#bank.setU32(tag, page);
    this.#bank.setU32(tag + 4, this.#age);
    return true;
  }

  clear(): void {
    this.#bank.at(this.#ptr + this.#slots * 4096, this.#slots * CACHE_TAG_BYTES).fill(0);
  }
}
