import { RamFlag } from '@wherry/stream';
import type { Chunk } from './channels.ts';
import { MigrationError } from './migration-error.ts';
import type { StoredGuestPort } from './stored-guest-port.ts';

const WORD_BYTES = 8;
/** The longest record but for its page: a word, the length of a name, the name. */
const MAX_HEAD_BYTES = WORD_BYTES + 256;
const BUFFER_BYTES = 1024 * 1024;

/** What a host page still needs. */
const SENT = 0;
const OWED = 1;
const REQUESTED = 2;

interface Block {
  readonly index: number;
  readonly name: string;
  readonly nameBytes: Uint8Array;
  /** Target pages. */
  readonly pageCount: number;
  /** Target pages in a host page. */
  readonly perHost: number;
  /** By host page: {@link SENT}, {@link OWED} or {@link REQUESTED}. */
  readonly state: Uint8Array;
}

/** One connection's records. */
interface Lane {
  readonly free: Uint8Array<ArrayBuffer>[];
  /** The block that a record without a name belongs to. */
  named: Block | undefined;
  /** The target pages that are being sent, `[page, end)`: never part of a host page when it is undefined. */
  current: { readonly block: Block; page: number; readonly end: number } | undefined;
}

/** Records of pages; `pages` target pages of them. */
export interface PageChunk extends Chunk {
  readonly pages: number;
}

/** Pages of one RAM block for a packet. */
export interface StoredList {
  /** Index of the RAM block. */
  readonly block: number;
  /** How many of `numbers` are meant. */
  readonly pages: number;
  /** Target pages, ascending. */
  readonly numbers: Uint32Array;
}

/**
 * Encodes the pages of a guest in a file as records: requested host pages first, then the rest in the order
 * of memory, from behind the last request on. Each host page goes out once, whole and in one piece.
 * With a connection of their own, requested pages go over that one alone.
 */
export class StoredPages {
  readonly #guest: StoredGuestPort;
  readonly #blocks: readonly Block[];
  readonly #byName: ReadonlyMap<string, Block>;
  readonly #main: Lane;
  /** For requested pages, where they have a connection of their own. */
  readonly #urgent: Lane | undefined;
  /** Host pages in the order of their requests, each once. */
  readonly #requests: { readonly block: Block; readonly hostPage: number }[] = [];
  /** Where the background goes on. */
  #cursor = { block: 0, hostPage: 0 };
  /** Target pages of those owed that were requested and not encoded. */
  #requestedPages = 0;
  #owedPages = 0;
  zeroPages = 0;
  normalPages = 0;

  /**
   * @param hostPageBytes tells a block's host page size at the destination
   * @param preempt whether requested pages have a connection of their own
   * @throws MigrationError `PAGE_SIZE_MISMATCH` when a block's length is no multiple of it
   */
  constructor(guest: StoredGuestPort, hostPageBytes: (block: string) => number, preempt = false) {
    this.#guest = guest;
    const { targetPageBytes } = guest;
    this.#blocks = guest.blocks.map(({ name, usedBytes }, index) => {
      const pageCount = Math.ceil(usedBytes / targetPageBytes);
      const perHost = Math.max(1, hostPageBytes(name) / targetPageBytes);
      if (pageCount % perHost !== 0) {
        throw new MigrationError('PAGE_SIZE_MISMATCH', 'A RAM block has no such host pages', {
          expected: `a multiple of ${perHost * targetPageBytes} bytes`,
          found: `${usedBytes} bytes`,
          path: ['ram', name],
          likely:
            'The page size was given for another block: huge pages back the guest’s main memory',
        });
      }
      const nameBytes = new TextEncoder().encode(name);
      const state = new Uint8Array(pageCount / perHost).fill(OWED);
      this.#owedPages += pageCount;
      return { index, name, nameBytes, pageCount, perHost, state };
    });
    this.#byName = new Map(this.#blocks.map((block) => [block.name, block]));
    const bytes = BUFFER_BYTES + MAX_HEAD_BYTES + targetPageBytes;
    const lane = (): Lane => ({
      free: [new Uint8Array(bytes), new Uint8Array(bytes)],
      named: undefined,
      current: undefined,
    });
    this.#main = lane();
    this.#urgent = preempt ? lane() : undefined;
  }

  get blocks(): readonly { readonly name: string; readonly pageCount: number }[] {
    return this.#blocks;
  }

  /** Target pages that were not sent. */
  get owedPages(): number {
    return this.#owedPages;
  }

  get hasRequests(): boolean {
    return this.#requests.length > 0;
  }

  /** Whether pages are owed that {@link StoredPages.next} gives. */
  get hasNext(): boolean {
    return this.#owedPages > (this.#urgent === undefined ? 0 : this.#requestedPages);
  }

  /** Whether part of a host page is out: the section must not end here. */
  get insideHostPage(): boolean {
    const { current } = this.#main;
    return current !== undefined && current.page % current.block.perHost !== 0;
  }

  block(name: string): { readonly name: string; readonly pageCount: number } | undefined {
    return this.#byName.get(name);
  }

  /**
   * Puts host pages before all others; what was sent already is on its way.
   *
   * @throws MigrationError `PAGE_REQUEST_INVALID`
   */
  request(name: string, start: number, length: number): void {
    const block = this.#byName.get(name);
    const { targetPageBytes } = this.#guest;
    const hostBytes = (block?.perHost ?? 1) * targetPageBytes;
    const end = start + length;
    if (block === undefined || length === 0 || end > block.pageCount * targetPageBytes) {
      throw new MigrationError('PAGE_REQUEST_INVALID', 'The destination requested pages in vain', {
        expected: block === undefined ? 'a RAM block of this guest' : 'a range within the block',
        found: `${length} bytes at ${start} of ${name}`,
        path: ['return path', 'REQ_PAGES'],
        likely: 'The destination has other RAM than the guest in the file',
      });
    }
    for (let hostPage = Math.floor(start / hostBytes); hostPage * hostBytes < end; hostPage++) {
      if (block.state[hostPage] !== OWED) continue;
      block.state[hostPage] = REQUESTED;
      this.#requests.push({ block, hostPage });
      this.#requestedPages += block.perHost;
    }
  }

  /**
   * Owes of a block what the destination lacks; a host page that it has in part is owed whole.
   *
   * @param received one bit a target page, bit 0 of byte 0 first
   */
  oweMissing({ name }: { readonly name: string }, received: Uint8Array): void {
    const { state, perHost } = this.#byName.get(name)!;
    for (let hostPage = 0; hostPage < state.length; hostPage++) {
      const first = hostPage * perHost;
      let page = first;
      while (page < first + perHost && (received[page >>> 3]! >>> (page & 7)) & 1) page++;
      const isMissing = page < first + perHost;
      const wasOwed = state[hostPage] !== SENT;
      if (isMissing && !wasOwed) this.#owedPages += perHost;
      if (!isMissing && wasOwed) this.#owedPages -= perHost;
      state[hostPage] = isMissing ? OWED : SENT;
    }
  }

  /** Forgets what went over a lost connection: the next record names its block, and all is owed. */
  reconnect(): void {
    for (const lane of [this.#main, this.#urgent]) {
      if (lane !== undefined) Object.assign(lane, { named: undefined, current: undefined });
    }
    this.#requests.length = 0;
    this.#requestedPages = 0;
    this.#cursor = { block: 0, hostPage: 0 };
    this.#owedPages = 0;
    for (const { state, pageCount } of this.#blocks) {
      state.fill(OWED);
      this.#owedPages += pageCount;
    }
  }

  /**
   * Encodes the next pages for the main connection.
   *
   * @param maxPages a bound on the target pages; requests go out alone
   * @returns undefined when nothing is owed here
   */
  next(maxPages: number): PageChunk | undefined {
    return this.#nextOf(this.#main, maxPages);
  }

  /** Encodes requested pages for the connection that they have of their own. */
  nextRequested(): PageChunk | undefined {
    return this.#nextOf(this.#urgent!, Number.POSITIVE_INFINITY);
  }

  #nextOf(lane: Lane, maxPages: number): PageChunk | undefined {
    const buffer = lane.free.pop()!;
    const room = buffer.length - this.#guest.targetPageBytes - MAX_HEAD_BYTES;
    let length = 0;
    let pages = 0;
    const isUrgent = this.#urgent === undefined && this.#requests.length > 0;
    while (pages < maxPages && length <= room) {
      lane.current ??= this.#take(lane, maxPages - pages);
      const { current } = lane;
      if (current === undefined) break;
      const count = Math.min(maxPages - pages, current.end - current.page);
      const before = current.page;
      length = this.#encode(lane, current, count, buffer, length);
      pages += current.page - before;
      if (current.page < current.end) continue;
      lane.current = undefined;
      if (isUrgent && this.#requests.length === 0) break;
    }
    if (pages === 0) {
      lane.free.push(buffer);
      return undefined;
    }
    this.#owedPages -= pages;
    if (lane === this.#urgent) this.#requestedPages -= pages;
    return {
      bytes: buffer.subarray(0, length),
      pages,
      release: () => void lane.free.push(buffer),
    };
  }

  /**
   * Lists the next pages, of one block, for a packet.
   *
   * @param withZeroRecords whether zero pages become records, rather than part of the list
   */
  nextList(
    maxPages: number,
    withZeroRecords: boolean,
  ): { readonly list: StoredList | undefined; readonly chunk: PageChunk | undefined } {
    const numbers = new Uint32Array(maxPages);
    const lane = this.#main;
    const buffer = lane.free.pop()!;
    const room = buffer.length - this.#guest.targetPageBytes - MAX_HEAD_BYTES;
    let [block, pages, zeros, length] = [0, 0, 0, 0];
    while (pages < maxPages && length <= room) {
      lane.current ??= this.#take(lane, maxPages);
      const { current } = lane;
      if (current === undefined) break;
      if (pages > 0 && current.block.index !== block) break;
      block = current.block.index;
      const run = this.#guest.ram.runLength(block, current.page, current.end - current.page);
      if (withZeroRecords && run < 0) {
        const before = current.page;
        length = this.#encode(lane, current, -run, buffer, length);
        zeros += current.page - before;
      } else {
        const count = Math.min(Math.abs(run), maxPages - pages);
        for (let i = 0; i < count; i++) numbers[pages++] = current.page++;
      }
      if (current.page === current.end) lane.current = undefined;
    }
    this.#owedPages -= pages + zeros;
    const release = (): void => void lane.free.push(buffer);
    if (zeros === 0) release();
    return {
      list: pages === 0 ? undefined : { block, pages, numbers },
      chunk: zeros === 0 ? undefined : { bytes: buffer.subarray(0, length), pages: zeros, release },
    };
  }

  /** Takes the next host pages out of what is owed: a requested one, or about `maxPages` in the background. */
  #take(lane: Lane, maxPages: number): Lane['current'] {
    const answers = lane === (this.#urgent ?? this.#main);
    const request = answers ? this.#requests.shift() : undefined;
    if (request !== undefined) {
      const { block, hostPage } = request;
      this.#cursor = { block: block.index, hostPage: hostPage + 1 };
      block.state[hostPage] = SENT;
      return { block, page: hostPage * block.perHost, end: (hostPage + 1) * block.perHost };
    }
    if (lane === this.#urgent) return undefined;
    for (let turn = 0; turn <= this.#blocks.length; turn++) {
      const block = this.#blocks[this.#cursor.block % this.#blocks.length]!;
      const { state, perHost } = block;
      const first = state.indexOf(OWED, this.#cursor.hostPage);
      if (first >= 0) {
        const most = first + Math.max(1, Math.floor(maxPages / perHost));
        let end = first + 1;
        while (end < most && state[end] === OWED) end++;
        state.fill(SENT, first, end);
        this.#cursor = { block: block.index, hostPage: end };
        return { block, page: first * perHost, end: end * perHost };
      }
      this.#cursor = { block: (block.index + 1) % this.#blocks.length, hostPage: 0 };
    }
    return undefined;
  }

  /** Encodes pages of one block while there is room. @returns the new length of what is in the buffer */
  #encode(
    lane: Lane,
    current: { readonly block: Block; page: number },
    count: number,
    buffer: Uint8Array<ArrayBuffer>,
    start: number,
  ): number {
    const { ram, targetPageBytes } = this.#guest;
    const { block } = current;
    const view = new DataView(buffer.buffer);
    const limit = buffer.length - targetPageBytes - MAX_HEAD_BYTES;
    const stride = WORD_BYTES + targetPageBytes;
    let at = start;
    let left = count;
    const word = (flags: number): void => {
      const offset = current.page * targetPageBytes;
      view.setUint32(at, Math.floor(offset / 2 ** 32));
      view.setUint32(at + 4, (offset % 2 ** 32) + flags);
      at += WORD_BYTES;
      current.page += 1;
    };
    const head = (kind: number): void => {
      word(lane.named === block ? kind | RamFlag.continue : kind);
      if (lane.named === block) return;
      buffer[at] = block.nameBytes.length;
      buffer.set(block.nameBytes, at + 1);
      at += 1 + block.nameBytes.length;
      lane.named = block;
    };
    while (left > 0 && at <= limit) {
      const run = ram.runLength(block.index, current.page, left);
      if (run < 0) {
        for (let i = 0; i < -run && at <= limit; i++) {
          head(RamFlag.zero);
          buffer[at++] = 0;
          this.zeroPages += 1;
          left -= 1;
        }
        continue;
      }
      const first = current.page;
      head(RamFlag.page);
      const fit = Math.max(1, Math.min(run, 1 + Math.floor((limit - at) / stride)));
      // The words between the pages are written behind their pages: reading may pass over them.
      ram.read(block.index, first, fit, buffer.subarray(at), stride);
      at += targetPageBytes;
      for (let i = 1; i < fit; i++) {
        word(RamFlag.page | RamFlag.continue);
        at += targetPageBytes;
      }
      this.normalPages += fit;
      left -= fit;
    }
    return at;
  }
}
