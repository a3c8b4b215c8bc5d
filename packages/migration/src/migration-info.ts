/** @see MigrationStatus in QEMU's qapi/migration.json */
export type MigrationStatus =
  | 'none'
  | 'setup'
  | 'active'
  | 'device'
  | 'postcopy-active'
  | 'postcopy-paused'
  | 'postcopy-recover-setup'
  | 'postcopy-recover'
  | 'completed'
  | 'cancelling'
  | 'cancelled'
  | 'failed';

/** Statistics of RAM, with QEMU's member names. @see MigrationStats in QEMU's qapi/migration.json */
export interface RamStatistics {
  /** Bytes on the wire, the whole stream. */
  readonly transferred: number;
  /** Bytes of RAM that are still owed. */
  readonly remaining: number;
  /** Bytes of RAM in all. */
  readonly total: number;
  /** Zero pages. */
  readonly duplicate: number;
  /** Pages sent with their content. */
  readonly normal: number;
  readonly 'normal-bytes': number;
  /** Pages that the guest dirtied a second, by the last synchronisation. */
  readonly 'dirty-pages-rate': number;
  /** Megabits a second, by the last measurement. */
  readonly mbps: number;
  /** Synchronisations of the dirty log; also the number of rounds. */
  readonly 'dirty-sync-count': number;
  /** Requests of the destination. */
  readonly 'postcopy-requests': number;
  /** Bytes of a target page. */
  readonly 'page-size': number;
  /** Bytes through the channels of multifd; they are part of `transferred`. */
  readonly 'multifd-bytes': number;
  readonly 'pages-per-second': number;
  readonly 'precopy-bytes': number;
  readonly 'downtime-bytes': number;
  readonly 'postcopy-bytes': number;
}

/** What XBZRLE did, with QEMU's member names. @see XBZRLECacheStats in QEMU's qapi/migration.json */
export interface XbzrleCacheStatistics {
  /** The parameter `xbzrle-cache-size` as it was when the migration began. */
  readonly 'cache-size': number;
  /** Bytes of the records of changes, and of the pages that overflowed. */
  readonly bytes: number;
  /** Pages found in the cache. */
  readonly pages: number;
  readonly 'cache-miss': number;
  /** Misses for each page, between the last two synchronisations. */
  readonly 'cache-miss-rate': number;
  /** Bytes of the pages found for each byte sent for them, between the last two synchronisations. */
  readonly 'encoding-rate': number;
  /** Pages of which the changes would have been longer than the page. */
  readonly overflow: number;
}

/** How long a destination's guest waited for pages, with QEMU's member names. @see MigrationInfo in QEMU's qapi/migration.json */
export interface BlocktimeStatistics {
  /** Milliseconds in which every vCPU waited. */
  readonly 'postcopy-blocktime': number;
  /** Milliseconds, by vCPU. */
  readonly 'postcopy-vcpu-blocktime': readonly number[];
  /** Nanoseconds of a request, on average. */
  readonly 'postcopy-latency': number;
  /** Requests that took 2^i to 2^(i+1) microseconds. */
  readonly 'postcopy-latency-dist': readonly number[];
  /** Nanoseconds of a vCPU's request, on average. */
  readonly 'postcopy-vcpu-latency': readonly number[];
  /** Nanoseconds of a device's request, on average. */
  readonly 'postcopy-non-vcpu-latency': number;
}

/**
 * What `query-migrate` tells, with QEMU's member names; how long the guest waited on a destination with
 * `postcopy-blocktime` in postcopy.
 *
 * @see MigrationInfo in QEMU's qapi/migration.json
 */
export interface MigrationInfo extends Partial<BlocktimeStatistics> {
  readonly status: MigrationStatus;
  readonly ram?: RamStatistics;
  /** With the capability `xbzrle`. */
  readonly 'xbzrle-cache'?: XbzrleCacheStatistics;
  /** Milliseconds, as all times here. */
  readonly 'total-time'?: number;
  readonly 'setup-time'?: number;
  readonly 'expected-downtime'?: number;
  /** Once completed: how long no side ran the guest. */
  readonly downtime?: number;
  /** How much auto-converge makes each vCPU sleep, where it does. */
  readonly 'cpu-throttle-percentage'?: number;
  readonly 'error-desc'?: string;
}
