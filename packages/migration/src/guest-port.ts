import type { GuestRam, RamBlock } from '@wherry/page-engine';
import type { Device } from '@wherry/vmstate';

/** A host page that a vCPU waits for. */
export interface PageFault {
  readonly block: RamBlock;
  /** Aligned to the block's host page. */
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Where a destination learns which missing pages the guest has touched. */
export interface FaultSource {
  /** Resolves when a vCPU has touched a missing page since the last {@link FaultSource.take}, or when the signal is aborted. */
  wait(signal: AbortSignal): Promise<void>;
  /** Gives each newly touched host page once. */
  take(): readonly PageFault[];
  /** Has {@link FaultSource.take} give again what is still missing: the requests for it were lost. */
  repeat(): void;
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
  /** Whether the vCPUs run. */
  readonly running: boolean;
  /** Lets the vCPUs run. */
  start(): void;
  /** Makes each vCPU sleep this percentage of its time, 0 … 99, until told otherwise; `auto-converge` needs it. */
  setThrottle?(percentage: number): void;
  /** Stops the vCPUs; resolves when none of them writes any more and device state is final. */
  stop(): Promise<void>;
}
