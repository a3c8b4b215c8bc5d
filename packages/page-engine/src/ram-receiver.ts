import type { Bank } from './bank.ts';
import { PageEngineError, type PageEngineErrorCode } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import {
  DECODE_FILL,
  DECODE_FOREIGN,
  DECODE_GATHERED,
  DECODE_NEED_MORE,
  DECODE_NO_BLOCK,
  DECODE_ORDER,
  DECODE_OUT_OF_RANGE,
  DECODE_RECEIVED,
  DECODE_RECORD,
  DECODE_XBZRLE_DATA,
  DECODE_XBZRLE_ENCODING,
  DECODE_XBZRLE_LENGTH,
  DECODE_XBZRLE_MISSING,
  RECEIVER_BYTES,
  RECEIVER_PTR,
  RX_BLOCK,
  RX_EXPECTED,
  RX_GATHER_BLOCK,
  RX_LAST,
  RX_NEEDED,
  RX_NORMAL,
  RX_OTHER,
  RX_PLACED,
  RX_POSITION,
  RX_POSTCOPY,
  RX_WORD,
  RX_WORD_BLOCK,
  RX_XBZRLE,
  RX_ZERO,
  TARGET_PAGE_BYTES,
} from './layout.ts';
import type { RamBlock } from './ram-block.ts';
import { tellArrival } from './ram-populator.ts';

/** The first step into another bank; doubled while steps are used up whole. Holds any record. */
const FIRST_STEP_BYTES = 8192;

/** Names what page records come over: the stream, or in postcopy the connection for requested pages. */
export type RamChannel = 'main' | 'preempt';

const CHANNELS: readonly RamChannel[] = ['main', 'preempt'];

/** Names the buffer that a transport reads into. */
export interface IoBuffer {
  /** Views a bank; ioBufferBytes and 8 KiB long. */
  readonly bytes: Uint8Array;
  readonly ptr: number;
}

/** Tells how far {@link RamReceiver.decode} came; the next call overwrites it. */
export interface DecodeResult {
  /** Bytes of whole page records, from the call's `start`. */
  readonly consumed: number;
  /** `record`: what follows is no page record, the caller reads it. */
  readonly status: 'need-more' | 'record' | 'error';
  /** The flags of the record at the stopping point; 0 with `need-more`. */
  readonly flags: number;
  /** With `need-more`: the bytes of the incomplete record, as far as known. */
  readonly bytesNeeded: number;
  readonly error: PageEngineError | undefined;
}

/**
 * Decodes page records into guest memory.
 *
 * Precopy: straight into place, the last copy wins; XBZRLE changes the page that is there. Postcopy: a host page becomes present at once,
 * when all of its target pages have come in order; until then its bits are clear and no vCPU looks
 * at its memory, so it is gathered in its own place and never copied twice.
 * @see QEMU migration/ram.c: ram_load_precopy, load_xbzrle, ram_load_postcopy
 */
export class RamReceiver {
  readonly #ram: GuestRam;
  readonly #index: number;
  readonly #statePtr: number;
  /** The bank that holds the input buffer in use. */
  #home: Bank;
  #input: IoBuffer;
  /** The bank in which the last record was decoded: its receiver state is the valid one. */
  #bank: Bank;
  readonly #result = {
    consumed: 0,
    status: 'need-more' as DecodeResult['status'],
    flags: 0,
    bytesNeeded: 0,
    error: undefined as PageEngineError | undefined,
  };
  #normalPages = 0;
  #zeroPages = 0;
  #xbzrlePages = 0;
  #placedHostPages = 0;

  /** A guest memory has one receiver of each channel at a time; they do not disturb each other. */
  constructor(ram: GuestRam, channel: RamChannel = 'main') {
    this.#ram = ram;
    this.#bank = ram.banks[0]!;
    const index = CHANNELS.indexOf(channel);
    this.#index = index;
    this.#home = this.#bank;
    this.#input = this.#inputOf(this.#bank);
    this.#statePtr = RECEIVER_PTR + index * RECEIVER_BYTES;
    for (const bank of ram.banks) {
      bank.setU32(this.#statePtr + RX_POSTCOPY, 0);
      bank.setU32(this.#statePtr + RX_OTHER, RECEIVER_PTR + (1 - index) * RECEIVER_BYTES);
    }
    this.reset();
  }

  /**
   * Gives the buffer to read into. It moves to another bank when the pages do, so that they are copied
   * once: whenever {@link RamReceiver.decode} wants more, take it anew, and what is left with it.
   */
  get input(): IoBuffer {
    return this.#input;
  }

  #inputOf({ bytes, plan }: Bank): IoBuffer {
    const ptr = plan.inputPtrs[this.#index]!;
    return { bytes: bytes.subarray(ptr, ptr + this.#ram.plan.inputBytes), ptr };
  }

  /** Counts what was decoded since the receiver was made. */
  get counters(): {
    readonly normalPages: number;
    readonly zeroPages: number;
    readonly xbzrlePages: number;
    /** Host pages that became present in postcopy. */
    readonly placedHostPages: number;
  } {
    return {
      normalPages: this.#normalPages,
      zeroPages: this.#zeroPages,
      xbzrlePages: this.#xbzrlePages,
      placedHostPages: this.#placedHostPages,
    };
  }

  /** Returns the block that a record with CONTINUE would mean. */
  get currentBlock(): RamBlock | undefined {
    return this.#ram.blocks[this.#bank.getU32(this.#statePtr + RX_BLOCK) - 1];
  }

  /** Tells that a host page has come in part. */
  get hostPageIncomplete(): boolean {
    return this.#bank.getU32(this.#statePtr + RX_GATHER_BLOCK) !== 0;
  }

  /** Forgets the current block and an incomplete host page: call it at a new connection. */
  reset(): void {
    for (const bank of this.#ram.banks) {
      bank.setU32(this.#statePtr + RX_BLOCK, 0);
      bank.setU32(this.#statePtr + RX_GATHER_BLOCK, 0);
    }
  }

  /** Places whole host pages from now on, each once. */
  enterPostcopy(): void {
    for (const bank of this.#ram.banks) bank.setU32(this.#statePtr + RX_POSTCOPY, 1);
  }

  /**
   * Consumes the page records of input.bytes[start, end), up to the first that is incomplete, no
   * page record, or wrong. Nothing of a wrong record is applied; those before it are.
   * @throws PageEngineError RANGE when the range is not in the buffer
   */
  decode(start: number, end: number): DecodeResult {
    if (!(start >= 0 && start <= end && end <= this.#input.bytes.length)) {
      throw new PageEngineError(
        'RANGE',
        `bytes ${start} to ${end} of an input buffer of ${this.#input.bytes.length}`,
      );
    }
    const result = this.#result;
    result.flags = 0;
    result.bytesNeeded = 0;
    result.error = undefined;
    const input = this.#input;
    let position = start;
    let stepBytes = FIRST_STEP_BYTES;
    for (;;) {
      const bank = this.#bank;
      const isHome = bank === this.#home;
      const stepEnd = isHome ? end : Math.min(position + stepBytes, end);
      const from = bank.plan.inputPtrs[this.#index]! + (isHome ? position : 0);
      // A record whose page lies in another bank is read from a copy there.
      if (!isHome) bank.bytes.set(input.bytes.subarray(position, stepEnd), from);
      const status = this.#run(bank, from, from + stepEnd - position);
      const used = bank.getU32(this.#statePtr + RX_POSITION) - from;
      position += used;
      if (status === DECODE_FOREIGN) {
        this.#moveTo(this.#bankOfRecord(bank));
        stepBytes = FIRST_STEP_BYTES;
      } else if (status === DECODE_NEED_MORE && stepEnd < end) {
        stepBytes *= 2;
      } else {
        result.consumed = position - start;
        this.#settle(bank, status, position);
        if (status === DECODE_NEED_MORE && !isHome) {
          this.#home = bank;
          this.#input = this.#inputOf(bank);
        }
        return result;
      }
    }
  }

  #run(bank: Bank, from: number, to: number): number {
    const { tablePtr, slots } = this.#ram.plan;
    const blocks = this.#ram.blocks.length;
    const status = bank.engine.decode(this.#statePtr, tablePtr, blocks, slots, from, to);
    const normalPages = bank.getU32(this.#statePtr + RX_NORMAL);
    const zeroPages = bank.getU32(this.#statePtr + RX_ZERO);
    this.#normalPages += normalPages;
    this.#zeroPages += zeroPages;
    // Where zero pages are among them, memory for what follows might be for nothing; and what follows
    // the answer to a request comes elsewhere, while a thread more would keep the guest from its page.
    if (this.#index === 0 && normalPages > 7 * (zeroPages + 1)) {
      tellArrival(this.#ram, bank, bank.getU32(this.#statePtr + RX_LAST));
    }
    this.#xbzrlePages += bank.getU32(this.#statePtr + RX_XBZRLE);
    this.#placedHostPages += bank.getU32(this.#statePtr + RX_PLACED);
    return status;
  }

  #bankOfRecord(bank: Bank): Bank {
    const block = this.#ram.blocks[bank.getU32(this.#statePtr + RX_WORD_BLOCK) - 1]!;
    const page = Number(this.#word(bank) >> 12n);
    const segment = block.segments.findLast(({ firstPage }) => firstPage <= page)!;
    return this.#ram.banks[segment.bank]!;
  }

  #moveTo(bank: Bank): void {
    bank.setU32(this.#statePtr + RX_BLOCK, this.#bank.getU32(this.#statePtr + RX_BLOCK));
    this.#bank = bank;
  }

  #word(bank: Bank): bigint {
    return bank.view.getBigUint64(this.#statePtr + RX_WORD, true);
  }

  #settle(bank: Bank, status: number, position: number): void {
    const result = this.#result;
    if (status === DECODE_NEED_MORE) {
      result.status = 'need-more';
      result.bytesNeeded = bank.getU32(this.#statePtr + RX_NEEDED);
      return;
    }
    result.flags = Number(this.#word(bank) & 0xfffn);
    if (status === DECODE_RECORD) {
      result.status = 'record';
      return;
    }
    result.status = 'error';
    result.error = this.#errorOf(bank, status, position);
  }

  #errorOf(bank: Bank, status: number, position: number): PageEngineError {
    const word = this.#word(bank);
    const offsetBytes = word & ~0xfffn;
    const flags = Number(word & 0xfffn);
    const block = this.#ram.blocks[bank.getU32(this.#statePtr + RX_WORD_BLOCK) - 1];
    const expectedPage = bank.getU32(this.#statePtr + RX_EXPECTED);
    const fail = (
      code: PageEngineErrorCode,
      message: string,
      expected: string,
      found: string,
    ): PageEngineError =>
      new PageEngineError(code, message, {
        offsetBytes,
        flags,
        position,
        expected,
        found,
        ...(block === undefined ? {} : { block: block.name }),
      });
    if (block === undefined) {
      if (status === DECODE_NO_BLOCK) {
        return fail(
          'NO_PREVIOUS_BLOCK',
          'page record of the same block as before, and there was none before',
          'a block name',
          `flags 0x${flags.toString(16)}`,
        );
      }
      const name = this.#nameAt(position + 8);
      return fail(
        'UNKNOWN_BLOCK',
        `page record of RAM block ${name}, which this guest does not have; its blocks were probably` +
          ' configured otherwise on the source',
        `one of ${this.#ram.blocks.map(({ name: known }) => JSON.stringify(known)).join(', ')}`,
        name,
      );
    }
    const where = `RAM block ${block.name}, offset 0x${offsetBytes.toString(16)}`;
    const page = `page ${offsetBytes >> 12n}`;
    switch (status) {
      case DECODE_OUT_OF_RANGE:
        return fail(
          'OFFSET_OUT_OF_RANGE',
          `${where}: beyond the block's end; its length differs on the source, or the stream is corrupt`,
          `an offset below 0x${block.lengthBytes.toString(16)}`,
          `0x${offsetBytes.toString(16)}`,
        );
      case DECODE_FILL:
        return fail(
          'ZERO_PAGE_FILL',
          `${where}: zero page with another fill byte; the stream is corrupt`,
          'fill byte 0',
          `fill byte ${this.#bodyAt(position, flags)[0]}`,
        );
      case DECODE_RECEIVED:
        return fail(
          'PAGE_ALREADY_RECEIVED',
          `${where}: sent in postcopy, but already here; the source sent it twice or did not discard it`,
          'a page that is missing',
          `${page}, present`,
        );
      case DECODE_ORDER:
        return fail(
          'HOST_PAGE_ORDER',
          `${where}: postcopy sends a host page whole, its target pages in order`,
          this.#expectedPage(bank, block, expectedPage),
          `${page} of RAM block ${block.name}`,
        );
      case DECODE_GATHERED:
        return fail(
          'HOST_PAGE_ORDER',
          `${where}: the source sends one host page over two channels`,
          `its first target page over the ${CHANNELS[this.#index]} channel alone`,
          `${page}, of which a part came over the other channel`,
        );
      case DECODE_XBZRLE_ENCODING:
        return fail(
          'XBZRLE_INVALID',
          `${where}: XBZRLE record of another encoding; the stream is corrupt`,
          'encoding 1',
          `encoding ${this.#bodyAt(position, flags)[0]}`,
        );
      case DECODE_XBZRLE_LENGTH: {
        const [, high, low] = this.#bodyAt(position, flags);
        return fail(
          'XBZRLE_INVALID',
          `${where}: XBZRLE record longer than a page; the stream is corrupt`,
          `at most ${TARGET_PAGE_BYTES} bytes`,
          `${(high! << 8) | low!} bytes`,
        );
      }
      case DECODE_XBZRLE_DATA:
        return fail(
          'XBZRLE_INVALID',
          `${where}: XBZRLE data that fit no page; the stream is corrupt`,
          'pairs of runs within the page, each with its bytes',
          `something else from byte ${expectedPage} of the data`,
        );
      case DECODE_XBZRLE_MISSING:
        return fail(
          'XBZRLE_PAGE_MISSING',
          `${where}: XBZRLE record of a page that never came; the source has lost count`,
          'a page that is present',
          `${page}, missing`,
        );
      default:
        throw new RangeError(`decode status ${status}`);
    }
  }

  /** Names the page that had to come: of the incomplete host page, or a host page's first. */
  #expectedPage(bank: Bank, block: RamBlock, page: number): string {
    const gathered = this.#ram.blocks[bank.getU32(this.#statePtr + RX_GATHER_BLOCK) - 1] ?? block;
    const segment = gathered.segments.find((candidate) => candidate.bank === bank.index)!;
    return `page ${segment.firstPage + page} of RAM block ${gathered.name}`;
  }

  #nameAt(position: number): string {
    const { bytes } = this.#input;
    const name = bytes.slice(position + 1, position + 1 + bytes[position]!);
    return JSON.stringify(new TextDecoder().decode(name.slice()));
  }

  /** Views what follows the word and the name. */
  #bodyAt(position: number, flags: number): Uint8Array {
    const { bytes } = this.#input;
    const named = (flags & 0x20) === 0;
    return bytes.subarray(position + (named ? 9 + bytes[position + 8]! : 8));
  }
}
