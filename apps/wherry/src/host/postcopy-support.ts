import { MigrationError } from '@wherry/migration';
import { type GuestRam, TARGET_PAGE_BYTES } from '@wherry/page-engine';

/** What postcopy asks of a destination's kernel, and what a host says that lacks it, in QEMU's words. */
const REFUSALS = {
  userfaultfd: 'Userfaultfd not available: Function not implemented',
  'userfaultfd-hugetlbfs': 'Userfault on this host does not support huge pages',
  munlockall: 'munlockall() failed: Operation not permitted',
} as const;

/** A feature of the kernel that a simulated host can be started without. */
export type HostFeature = keyof typeof REFUSALS;

export const HOST_FEATURES = Object.keys(REFUSALS) as readonly HostFeature[];

/** What decides whether a host could receive a guest by postcopy. */
export interface PostcopySupport {
  /** Features that this host lacks. */
  readonly lacks: ReadonlySet<HostFeature>;
  /** Names of the RAM blocks in files that other processes share. */
  readonly sharedBlocks: ReadonlySet<string>;
}

/**
 * Refuses postcopy at a destination that could not do it.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED`
 * @see postcopy_ram_supported_by_host in QEMU's migration/postcopy-ram.c
 */
export function checkPostcopySupported(
  ram: GuestRam,
  { lacks, sharedBlocks }: PostcopySupport,
): void {
  const refuse = (why: string): never => {
    throw new MigrationError('CAPABILITY_UNSUPPORTED', `Postcopy is not supported: ${why}`);
  };
  if (lacks.has('userfaultfd')) refuse(REFUSALS.userfaultfd);
  if (lacks.has('userfaultfd-hugetlbfs') && ram.largestHostPageBytes > TARGET_PAGE_BYTES) {
    refuse(REFUSALS['userfaultfd-hugetlbfs']);
  }
  const [shared] = sharedBlocks;
  if (shared !== undefined) {
    refuse(`Host backend files need to be TMPFS or HUGETLBFS only (RAM block ${shared})`);
  }
  if (lacks.has('munlockall')) refuse(REFUSALS.munlockall);
}
