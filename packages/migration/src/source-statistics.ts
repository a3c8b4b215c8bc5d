import { TARGET_PAGE_BYTES, type XbzrleStatistics } from '@wherry/page-engine';
import type { Clock } from './clock.ts';
import type { MigrationInfo, MigrationStatus, RamStatistics } from './migration-info.ts';
import { XbzrleRates } from './xbzrle-rates.ts';

/** How long bytes are counted before they make a bandwidth. @see BUFFER_DELAY in QEMU's migration/migration.c */
const WINDOW_MS = 100;

/** Counts of the sender at a moment. */
export interface SenderCounts {
  readonly normalPages: number;
  readonly zeroPages: number;
  readonly owedBytes: number;
  readonly totalBytes: number;
  /** Bytes of the whole stream, over all connections. */
  readonly streamBytes: number;
  /** Bytes through the channels of multifd, which are part of the stream's. */
  readonly multifdBytes: number;
  /** Undefined without XBZRLE. */
  readonly xbzrle: XbzrleStatistics | undefined;
}

/** Measures a migration at its source: times, bandwidth, dirty rate, bytes by phase. */
export class SourceStatistics {
  readonly #clock: Clock;
  readonly #counts: () => SenderCounts;
  readonly #startedAt: number;
  readonly #xbzrle: XbzrleRates;
  #endedAt: number | undefined;
  #setupMs = 0;
  #stoppedAt: number | undefined;
  #downtimeMs: number | undefined;
  #windowStartedAt: number;
  #windowBytes = 0;
  #windowPages = 0;
  #bytesPerMs = 0;
  #pagesPerSecond = 0;
  #syncedAt: number;
  #dirtyPagesRate = 0;
  #phaseBytes = { precopy: 0, downtime: 0, postcopy: 0 };
  #phase: keyof SourceStatistics['phaseBytes'] = 'precopy';
  #phaseStart = 0;
  syncCount = 0;
  requests = 0;

  /** @param xbzrleCacheBytes the parameter, for the answer to `query-migrate` */
  constructor(clock: Clock, counts: () => SenderCounts, xbzrleCacheBytes: number) {
    this.#clock = clock;
    this.#counts = counts;
    this.#xbzrle = new XbzrleRates(xbzrleCacheBytes);
    this.#startedAt = this.#windowStartedAt = this.#syncedAt = clock.now();
  }

  /** Bytes of the stream by phase. */
  get phaseBytes(): { precopy: number; downtime: number; postcopy: number } {
    const bytes = { ...this.#phaseBytes };
    bytes[this.#phase] += this.#counts().streamBytes - this.#phaseStart;
    return bytes;
  }

  /** Bytes that can be sent within `ms` by the last bandwidth; 0 before the first measurement. */
  bytesWithin(ms: number): number {
    return this.#bytesPerMs * ms;
  }

  /** Milliseconds that what is owed now would take. */
  get expectedDowntimeMs(): number {
    return this.#bytesPerMs === 0 ? 0 : this.#counts().owedBytes / this.#bytesPerMs;
  }

  setupDone(): void {
    this.#setupMs = this.#clock.now() - this.#startedAt;
  }

  /** Looks at the clock; takes a new bandwidth at the end of each window. */
  measure(): void {
    const now = this.#clock.now();
    const elapsedMs = now - this.#windowStartedAt;
    if (elapsedMs < WINDOW_MS) return;
    const { streamBytes } = this.#counts();
    const pages = this.#pagesSent();
    this.#bytesPerMs = (streamBytes - this.#windowBytes) / elapsedMs;
    this.#pagesPerSecond = ((pages - this.#windowPages) / elapsedMs) * 1000;
    this.#windowStartedAt = now;
    this.#windowBytes = streamBytes;
    this.#windowPages = pages;
  }

  /** Counts a synchronisation of the dirty log by which `dirtyPages` came to be owed. */
  synced(dirtyPages: number): void {
    const now = this.#clock.now();
    const elapsedMs = now - this.#syncedAt;
    this.syncCount += 1;
    // Too short a time makes no rate.
    if (elapsedMs < 10) return;
    this.#dirtyPagesRate = (dirtyPages / elapsedMs) * 1000;
    this.#syncedAt = now;
    const { xbzrle } = this.#counts();
    if (xbzrle !== undefined) this.#xbzrle.update(xbzrle, this.#pagesSent());
  }

  /** Pages done so far, also those that XBZRLE found unchanged. */
  #pagesSent(): number {
    const { normalPages, zeroPages, xbzrle } = this.#counts();
    // A page that overflowed was sent with its content.
    return normalPages + zeroPages + (xbzrle === undefined ? 0 : xbzrle.pages - xbzrle.overflow);
  }

  guestStopped(): void {
    this.#stoppedAt = this.#clock.now();
    this.#enterPhase('downtime');
  }

  /** The destination's guest may run: the downtime is over. */
  guestHandedOver(): void {
    if (this.#stoppedAt !== undefined) this.#downtimeMs ??= this.#clock.now() - this.#stoppedAt;
  }

  /** The guest runs on here: the downtime is over. */
  guestResumed(): void {
    this.guestHandedOver();
    this.#enterPhase('precopy');
  }

  postcopyStarted(): void {
    this.guestHandedOver();
    this.#enterPhase('postcopy');
  }

  /** A new connection: the time without one is no part of the bandwidth. */
  resumed(): void {
    const { streamBytes, normalPages, zeroPages } = this.#counts();
    this.#windowStartedAt = this.#clock.now();
    this.#windowBytes = streamBytes;
    this.#windowPages = normalPages + zeroPages;
  }

  /** Stops the clock; the bandwidth becomes that of the whole transfer. @see migration_calculate_complete in QEMU's migration/migration.c */
  ended(): void {
    this.#endedAt = this.#clock.now();
    const transferMs = this.#endedAt - this.#startedAt - this.#setupMs;
    if (transferMs > 0) this.#bytesPerMs = this.#counts().streamBytes / transferMs;
  }

  #enterPhase(phase: keyof SourceStatistics['phaseBytes']): void {
    this.#phaseBytes = this.phaseBytes;
    this.#phase = phase;
    this.#phaseStart = this.#counts().streamBytes;
  }

  /** Makes the answer to `query-migrate`. */
  info(status: MigrationStatus, errorDesc: string | undefined): MigrationInfo {
    const totalMs = (this.#endedAt ?? this.#clock.now()) - this.#startedAt;
    const completed = status === 'completed';
    const { xbzrle } = this.#counts();
    return {
      status,
      ram: this.#ram(),
      ...(xbzrle === undefined ? {} : { 'xbzrle-cache': this.#xbzrle.info(xbzrle) }),
      'total-time': Math.round(totalMs),
      'setup-time': Math.round(this.#setupMs),
      ...(completed && this.#downtimeMs !== undefined
        ? { downtime: Math.round(this.#downtimeMs) }
        : { 'expected-downtime': Math.round(this.expectedDowntimeMs) }),
      ...(errorDesc === undefined ? {} : { 'error-desc': errorDesc }),
    };
  }

  #ram(): RamStatistics {
    const { normalPages, zeroPages, owedBytes, totalBytes, streamBytes, multifdBytes } =
      this.#counts();
    const phase = this.phaseBytes;
    return {
      transferred: streamBytes,
      remaining: owedBytes,
      total: totalBytes,
      duplicate: zeroPages,
      normal: normalPages,
      'normal-bytes': normalPages * TARGET_PAGE_BYTES,
      'dirty-pages-rate': Math.round(this.#dirtyPagesRate),
      mbps: (this.#bytesPerMs * 8) / 1000,
      'dirty-sync-count': this.syncCount,
      'postcopy-requests': this.requests,
      'page-size': TARGET_PAGE_BYTES,
      'multifd-bytes': multifdBytes,
      'pages-per-second': Math.round(this.#pagesPerSecond),
      'precopy-bytes': phase.precopy,
      'downtime-bytes': phase.downtime,
      'postcopy-bytes': phase.postcopy,
    };
  }
}
