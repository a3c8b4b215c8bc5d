import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
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
  /** Names of the RAM blocks in files that userfaultfd cannot serve. */
  readonly unservedBlocks: ReadonlySet<string>;
}

/** @see qemu_fd_getfs in QEMU's util/oslib-posix.c */
const SERVED_FILE_SYSTEMS: readonly number[] = [0x01021994, 0x958458f6]; // tmpfs, hugetlbfs

/** Names the RAM blocks in files that userfaultfd cannot serve; a block that names no file is in one. */
export function unservedBlocks(
  blocks: readonly { readonly name: string; readonly share: boolean; readonly memPath?: string }[],
): ReadonlySet<string> {
  const isServed = (path: string): boolean => {
    try {
      return SERVED_FILE_SYSTEMS.includes(statfsSync(dirname(path)).type);
    } catch {
      return false; // whoever opens it says why
    }
  };
  const unserved = blocks.filter(
    ({ share, memPath }) => share && (memPath === undefined || !isServed(memPath)),
  );
  return new Set(unserved.map(({ name }) => name));
}

/**
 * Refuses postcopy at a destination that could not do it.
 *
 * @throws MigrationError `CAPABILITY_UNSUPPORTED`
 * @see postcopy_ram_supported_by_host in QEMU's migration/postcopy-ram.c
 */
export function checkPostcopySupported(
  ram: GuestRam,
  { lacks, unservedBlocks }: PostcopySupport,
): void {
  const refuse = (why: string): never => {
    throw new MigrationError('CAPABILITY_UNSUPPORTED', `Postcopy is not supported: ${why}`);
  };
  if (lacks.has('userfaultfd')) refuse(REFUSALS.userfaultfd);
  if (lacks.has('userfaultfd-hugetlbfs') && ram.largestHostPageBytes > TARGET_PAGE_BYTES) {
    refuse(REFUSALS['userfaultfd-hugetlbfs']);
  }
  const [unserved] = unservedBlocks;
  if (unserved !== undefined) {
    refuse(`Host backend files need to be TMPFS or HUGETLBFS only (RAM block ${unserved})`);
  }
  if (lacks.has('munlockall')) refuse(REFUSALS.munlockall);
}
