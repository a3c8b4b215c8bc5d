export type { RamDiscard } from './discards.ts';
export { EngineLimits } from './engine-limits.ts';
export {
  PageEngineError,
  type PageEngineErrorCode,
  type PageEngineErrorDetails,
} from './errors.ts';
export { FaultPort, type FaultStatistics, type PageFault } from './fault-port.ts';
export { GuestRam, type GuestRamHandle } from './guest-ram.ts';
export {
  type GuestRamOptions,
  MAX_XBZRLE_CACHE_BYTES,
  type RamBlockSpec,
  TARGET_PAGE_BYTES,
} from './layout.ts';
export { PAGES_PER_PACKET, type PacketCounts, PacketPages } from './packet-pages.ts';
export { PageBitmap } from './page-bitmap.ts';
export type { PageList } from './page-list.ts';
export { PageScanner } from './page-scanner.ts';
export { RamBlock, type RamSegment } from './ram-block.ts';
export type { RamChunk, RamRun, RamSenderOptions } from './ram-chunk.ts';
export { populateAhead } from './ram-populator.ts';
export {
  type DecodeResult,
  type IoBuffer,
  type RamChannel,
  RamReceiver,
} from './ram-receiver.ts';
export { RamSender } from './ram-sender.ts';
export type { XbzrleStatistics } from './xbzrle-cache.ts';
export { XbzrleCodec } from './xbzrle-codec.ts';
