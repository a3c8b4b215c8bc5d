import type { GuestRam, RamBlock } from '@wherry/page-engine';
import type { Device } from '@wherry/vmstate';
import type { BlockPort } from './block-port.ts';
import type { Capabilities } from './capabilities.ts';

/** A host page that a vCPU waits for. */
export interface PageFault {
  readonly block: RamBlock;
  /** Aligned to the block's host page. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** A thread of the guest that waits for a host page. */
export interface WaitingThread extends PageFault {
  /** Undefined for a device. */
  readonly vcpu: number | undefined;
}

/** Where a destination learns which missing pages the guest has touched. */
export interface FaultSource {
  /** Resolves when a vCPU has touched a missing page since the last {@link FaultSource.take}, or when the signal is aborted. */
  wait(signal: AbortSignal): Promise<void>;
  /** Gives each newly touched host page once. */
  take(): readonly PageFault[];
  /** Has {@link FaultSource.take} give again what is still missing: the requests for it were lost. */
  repeat(): void;
  /** Gives who waits now, each thread once; `postcopy-blocktime` needs it. */
  waiting?(): readonly WaitingThread[];
}

/** RAM blocks in files that both hosts can open: with `x-ignore-shared` their pages are not sent. */
export interface SharedRam {
  readonly blocks: ReadonlySet<RamBlock>;
  /** Sees that the files hold what the guest, which stands still, has in the blocks. */
  save(): Promise<void>;
  /** Sees that the guest, which has not begun to run, has in the blocks what the files hold. */
  load(): Promise<void>;
}

/** The guest as a migration sees it. */
export interface GuestPort {
  readonly machineType: string;
  /** Made with `xbzrleCacheBytes`, the most that an XBZRLE cache can have here, where `xbzrle` is to be used. */
  readonly ram: GuestRam;
  /** Devices in the order of their registration. */
  readonly devices: readonly Device[];
  /** What keeps the guest here besides devices that cannot be migrated, oldest first, in whole sentences. */
  readonly blockers?: readonly string[];
  readonly faults: FaultSource;
  /** Its disks, with their dirty bitmaps. */
  readonly disks?: BlockPort;
  /** Where blocks of its memory are shared. */
  readonly shared?: SharedRam;
  /** Whether the vCPUs run. */
  readonly running: boolean;
  /** Lets the vCPUs run. */
  start(): void;
  /** Makes each vCPU sleep this percentage of its time, 0 … 99, until told otherwise; `auto-converge` needs it. */
  setThrottle?(percentage: number): void;
  /** Stops the vCPUs; resolves when none of them writes any more and device state is final. */
  stop(): Promise<void>;
}

/** Gives the blocks that `x-ignore-shared` keeps out of a migration. @see migrate_ram_is_ignored in QEMU's migration/ram.c */
export function ignoredBlocks(
  { shared }: Pick<GuestPort, 'shared'>,
  capabilities: Capabilities,
): ReadonlySet<RamBlock> {
  return (capabilities.has('x-ignore-shared') ? shared?.blocks : undefined) ?? new Set();
}

/** Gives where a block lies in the guest's memory: the blocks follow each other in their order. */
export function gpaOf(ram: GuestRam, block: RamBlock): number {
  const before = ram.blocks.slice(0, ram.blocks.indexOf(block));
  return before.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
}
