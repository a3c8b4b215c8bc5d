import type { Bank } from './bank.ts';
import { PageEngineError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import { LIST_PAGES, SENDER_PTR, TX_LIST, TX_LIST_ROOM, TX_LISTED } from './layout.ts';
import type { RamBlock } from './ram-block.ts';

/** Names pages of one RAM block in one bank, for a channel to send; crosses threads as it is. */
export interface PageList {
  /** Index of the RAM block. */
  readonly block: number;
  readonly bank: number;
  /** Index of the list in the bank. */
  readonly list: number;
  /** Counts target pages. */
  readonly pages: number;
}

/** Lends out the room for lists of pages, which the encoder fills where it is offered some. */
export class PageLists {
  readonly #free: number[];
  readonly #count: number;

  /** @throws PageEngineError BAD_OPTION */
  constructor(ram: GuestRam, count: number) {
    const most = ram.banks[0]!.plan.listPtrs.length;
    if (!Number.isInteger(count) || count < 0 || count > most) {
      throw new PageEngineError('BAD_OPTION', `pageLists is ${count}, not in 0 to ${most}`);
    }
    this.#count = count;
    this.#free = Array.from({ length: count }, (_, i) => i);
    for (const bank of ram.banks) bank.setU32(SENDER_PTR + TX_LIST, 0);
  }

  /** Tells that pages are to be listed, and every list is out. */
  get areOut(): boolean {
    return this.#count > 0 && this.#free.length === 0;
  }

  /** Offers room for so many pages to the encoder. */
  offer(bank: Bank, pages: number): void {
    if (this.#count === 0) return;
    bank.setU32(SENDER_PTR + TX_LIST, bank.plan.listPtrs[this.#free.at(-1)!]!);
    bank.setU32(SENDER_PTR + TX_LIST_ROOM, Math.min(LIST_PAGES, Math.max(1, pages)));
  }

  /** Takes what the encoder has listed, if anything. */
  take(bank: Bank, block: RamBlock): PageList | undefined {
    const pages = bank.getU32(SENDER_PTR + TX_LISTED);
    if (pages === 0) return undefined;
    return { block: block.index, bank: bank.index, list: this.#free.pop()!, pages };
  }

  release({ list }: PageList): void {
    this.#free.push(list);
  }
}
