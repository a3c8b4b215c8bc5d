import { type GuestRam, TARGET_PAGE_BYTES } from '@wherry/page-engine';
import { MigrationError } from './migration-error.ts';

/** What ADVISE says of the source's RAM: the OR of all its page sizes, and the target's. */
export interface PostcopyAdvice {
  readonly pageSizesSummary: bigint;
  readonly targetPageBytes: bigint;
}

/** Sums up a guest's RAM for ADVISE. @see ram_pagesize_summary in QEMU's migration/ram.c */
export function postcopyAdvice(ram: GuestRam): PostcopyAdvice {
  return {
    pageSizesSummary: ram.blocks.reduce((sum, block) => sum | BigInt(block.hostPageBytes), 0n),
    targetPageBytes: BigInt(TARGET_PAGE_BYTES),
  };
}

/**
 * Holds the source's advice against this side's RAM and capability; no advice stands for bitmaps alone.
 *
 * @param offset of the command in the stream
 * @throws MigrationError `COMMAND_UNEXPECTED`, `PAGE_SIZE_MISMATCH`
 * @see loadvm_postcopy_handle_advise in QEMU's migration/savevm.c
 */
export function checkPostcopyAdvice(
  advice: PostcopyAdvice | undefined,
  ram: GuestRam,
  isEnabled: boolean,
  offset: number,
): void {
  const path = ['command postcopy-advise'];
  if (isEnabled !== (advice !== undefined)) {
    const problem = isEnabled
      ? 'RAM postcopy is enabled but have 0 byte advise'
      : 'RAM postcopy is disabled but have 16 byte advise';
    throw new MigrationError('COMMAND_UNEXPECTED', problem, {
      offset,
      path,
      likely: 'Set postcopy-ram alike on both sides',
    });
  }
  if (advice === undefined) return;
  const own = postcopyAdvice(ram);
  const fail = (message: string): MigrationError =>
    new MigrationError('PAGE_SIZE_MISMATCH', message, {
      offset,
      path,
      likely: 'Back the guest’s memory with the same page sizes on both sides',
    });
  if (advice.pageSizesSummary !== own.pageSizesSummary) {
    const [s, d] = [advice, own].map(({ pageSizesSummary }) => pageSizesSummary.toString(16));
    throw fail(`Postcopy needs matching RAM page sizes (s=${s} d=${d})`);
  }
  if (advice.targetPageBytes !== own.targetPageBytes) {
    throw fail(
      `Postcopy needs matching target page sizes (s=${advice.targetPageBytes} d=${own.targetPageBytes})`,
    );
  }
}
