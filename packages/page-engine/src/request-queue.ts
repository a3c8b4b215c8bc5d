import { PageEngineError } from './errors.ts';
import { TARGET_PAGE_BYTES } from './layout.ts';
import type { RamBlock } from './ram-block.ts';

/** Caps the queue; beyond it a page waits for the background. */
const MAX_REQUESTS = 65_536;

/** Names host pages that the destination waits for, in target pages of the block. */
export interface PageRequest {
  readonly block: RamBlock;
  /** Moves on as pages are served. */
  from: number;
  readonly to: number;
}

/** Keeps the destination's requests in the order in which they came. */
export class RequestQueue {
  #requests: PageRequest[] = [];

  get first(): PageRequest | undefined {
    return this.#requests[0];
  }

  shift(): void {
    this.#requests.shift();
  }

  clear(): void {
    this.#requests = [];
  }

  /** @throws PageEngineError REQUEST_OUT_OF_RANGE, REQUEST_UNALIGNED */
  push(block: RamBlock, startBytes: number, lengthBytes: number): void {
    const refuse = (code: 'REQUEST_OUT_OF_RANGE' | 'REQUEST_UNALIGNED', problem: string): never => {
      throw new PageEngineError(
        code,
        `request of ${lengthBytes} bytes at ${startBytes} of RAM block ${block.name}: ${problem}`,
        { block: block.name, offsetBytes: startBytes, lengthBytes },
      );
    };
    if (
      !Number.isSafeInteger(startBytes) ||
      !Number.isSafeInteger(lengthBytes) ||
      startBytes < 0 ||
      lengthBytes <= 0 ||
      startBytes + lengthBytes > block.lengthBytes
    ) {
      refuse('REQUEST_OUT_OF_RANGE', `the block has ${block.lengthBytes} bytes`);
    }
    if (startBytes % TARGET_PAGE_BYTES !== 0 || lengthBytes % TARGET_PAGE_BYTES !== 0) {
      refuse('REQUEST_UNALIGNED', `start and length must be multiples of ${TARGET_PAGE_BYTES}`);
    }
    const perHost = block.hostPageBytes / TARGET_PAGE_BYTES;
    const from = Math.floor(startBytes / block.hostPageBytes) * perHost;
    const to = Math.ceil((startBytes + lengthBytes) / block.hostPageBytes) * perHost;
    if (this.#requests.length < MAX_REQUESTS) this.#requests.push({ block, from, to });
  }
}
