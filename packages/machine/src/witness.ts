/** A page that did not hold what its vCPU wrote last. */
export interface Violation {
  readonly vcpu: number;
  /** Name of the RAM block. */
  readonly block: string;
  /** Target page in the block. */
  readonly page: number;
  /** Which of the vCPU's writes to the page should be there; 0 is a page never written. */
  readonly expectedGeneration: number;
  /** An older write of the same page (lost since), zeros, or neither. */
  readonly found: 'stale' | 'zero' | 'other';
  /** Where `found` is `stale`: the write that is there. */
  readonly foundGeneration?: number;
}

/** What the vCPUs saw: counters over the whole life of the guest, moves included. */
export interface WitnessReport {
  /** Pages that belong to a vCPU. */
  readonly pagesOwned: number;
  /** Those of them that were ever written. */
  readonly pagesWritten: number;
  /** Writes by the workloads. */
  readonly writes: number;
  /** Pages compared with what should be there: before every write, and by every verification. */
  readonly checks: number;
  readonly violations: number;
  /** At most 8 for each vCPU, of those found on this host. */
  readonly firstViolations: readonly Violation[];
}
