import { type GuestRam, PageEngineError, type RamSender } from '@wherry/page-engine';
import type { ReturnPathMessage } from '@wherry/stream';
import { MigrationError } from './migration-error.ts';

type Request = Extract<ReturnPathMessage, { readonly name: 'req-pages' }>;

/**
 * Takes a destination's requests for pages: each is checked and goes to the sender, which serves it next.
 * A request without a block is of the block before, over a break of the connection too.
 *
 * @see migrate_handle_rp_req_pages in QEMU's migration/migration.c, ram_save_queue_pages in migration/ram.c
 */
export class RequestedPages {
  readonly #ram: GuestRam;
  readonly #sender: RamSender;
  #block: string | undefined;

  constructor(ram: GuestRam, sender: RamSender) {
    this.#ram = ram;
    this.#sender = sender;
  }

  /**
   * @param offset of the message on the return path
   * @throws MigrationError `PAGE_REQUEST_INVALID`, mostly in QEMU's words
   */
  take(request: Request, inPostcopy: boolean, offset: number): void {
    const { block: name = this.#block, start, length } = request;
    const invalid = (problem: string, expected: string, cause?: unknown): MigrationError =>
      new MigrationError('PAGE_REQUEST_INVALID', problem, {
        expected,
        found: `${length} bytes at ${start}`,
        offset,
        path: ['return path', 'REQ_PAGES', ...(name === undefined ? [] : [name])],
        likely: 'The two sides do not belong to one migration, or the connection is damaged',
        cause,
      });
    if (!inPostcopy) {
      throw invalid('The destination requested pages in vain', 'no request before postcopy');
    }
    if (name === undefined) {
      throw invalid('MIG_RP_MSG_REQ_PAGES has no previous block', 'the name of a RAM block');
    }
    const block = this.#ram.block(name);
    if (block === undefined) {
      const known = this.#ram.blocks.map((each) => each.name).join(', ');
      throw invalid(`MIG_RP_MSG_REQ_PAGES has no block '${name}'`, `one of ${known}`);
    }
    this.#block = name;
    try {
      this.#sender.request(block, start, length);
    } catch (cause) {
      if (!(cause instanceof PageEngineError)) throw cause;
      const [s, l, size] = [start, length, block.lengthBytes].map((bytes) => bytes.toString(16));
      const [problem, expected] =
        cause.code === 'REQUEST_UNALIGNED'
          ? [`: Misaligned page request, start: ${s} len: ${l}`, 'whole target pages']
          : [
              ` request overrun, start=${s} len=${l} blocklen=${size}`,
              `a range in ${block.lengthBytes} bytes`,
            ];
      throw invalid(`MIG_RP_MSG_REQ_PAGES${problem}`, expected, cause);
    }
  }
}
