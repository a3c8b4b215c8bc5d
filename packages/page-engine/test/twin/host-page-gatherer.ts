import {
  DECODE_GATHERED,
  DECODE_ORDER,
  DECODE_RECEIVED,
  ENTRY_HOST_PAGES,
  ENTRY_RECEIVED,
  RX_GATHER_BLOCK,
  RX_GATHER_NEXT,
} from '../../src/layout.ts';
import type { TwinBank } from './bank.ts';
import { bitmapTwin } from './bitmap.ts';

/** Says why a page cannot come now. */
export interface Refusal {
  readonly status: number;
  /** The page that had to come. */
  readonly expected: number;
}

/** Gathers the target pages of one channel's host page, in its own place. */
export class TwinGatherer {
  readonly #bank: TwinBank;
  readonly #state: number;
  readonly #other: number;

  constructor(bank: TwinBank, state: number, other: number) {
    this.#bank = bank;
    this.#state = state;
    this.#other = other;
  }

  #inProgress(state: number): { block: number; next: number } | undefined {
    const block = this.#bank.u32(state + RX_GATHER_BLOCK);
    return block === 0 ? undefined : { block, next: this.#bank.u32(state + RX_GATHER_NEXT) };
  }

  /** Checks a page against the host page that is on its way, if there is one. */
  checkOrder(block: number, page: number): Refusal | undefined {
    const current = this.#inProgress(this.#state);
    if (current === undefined || (current.block === block && current.next === page)) return;
    return { status: DECODE_ORDER, expected: current.next };
  }

  /** Checks a page that begins a host page. */
  checkBegin(block: number, page: number, entry: number): Refusal | undefined {
    if (this.#inProgress(this.#state) !== undefined) return;
    const perHost = this.#bank.u32(entry + ENTRY_HOST_PAGES);
    const first = page - (page % perHost);
    const received = this.#bank.u32(entry + ENTRY_RECEIVED);
    if (bitmapTwin(this.#bank).countSet(received, first, first + perHost) > 0) {
      return { status: DECODE_RECEIVED, expected: 0 };
    }
    if (page !== first) return { status: DECODE_ORDER, expected: first };
    const other = this.#inProgress(this.#other);
    const isElsewhere =
      other?.block === block && other.next >= first && other.next < first + perHost;
    return isElsewhere ? { status: DECODE_GATHERED, expected: first } : undefined;
  }

  /** Takes a page; @returns the host page as [first, end) once it is whole, and present */
  add(block: number, page: number, entry: number): [number, number] | undefined {
    const perHost = this.#bank.u32(entry + ENTRY_HOST_PAGES);
    const end = page - (page % perHost) + perHost;
    if (page + 1 < end) {
      this.#bank.setU32(this.#state + RX_GATHER_BLOCK, block);
      this.#bank.setU32(this.#state + RX_GATHER_NEXT, page + 1);
      return;
    }
    this.#bank.setU32(this.#state + RX_GATHER_BLOCK, 0);
    bitmapTwin(this.#bank).setRange(this.#bank.u32(entry + ENTRY_RECEIVED), end - perHost, end);
    return [end - perHost, end];
  }
}
