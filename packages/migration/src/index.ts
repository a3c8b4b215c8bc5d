export type { BitmapAlias, BitmapMapping, NodeAlias } from './bitmap-mapping.ts';
export { checkBitmaps } from './bitmap-save.ts';
export type { BitmapPort, BlockNodePort, BlockPort } from './block-port.ts';
export { checkMigratable, migrationBlockers } from './blockers.ts';
export {
  CAPABILITIES,
  type Capabilities,
  type Capability,
  setCapabilities,
  usesReturnPath,
} from './capabilities.ts';
export { checkCapabilities, type MigrationRole } from './capability-rules.ts';
export type { Clock } from './clock.ts';
export { DestinationMigration } from './destination.ts';
export type { DestinationOptions } from './destination-options.ts';
export type { FaultSource, GuestPort, PageFault, SharedRam } from './guest-port.ts';
export { defaultParameters, flushesAfterEachSection } from './machine-defaults.ts';
export { MigrationError, type MigrationErrorCode } from './migration-error.ts';
export type {
  MigrationInfo,
  MigrationStatus,
  RamStatistics,
  XbzrleCacheStatistics,
} from './migration-info.ts';
export { MultifdDestination } from './multifd-destination.ts';
export {
  MULTIFD_COMPRESSIONS,
  type MultifdCompression,
  type MultifdReceived,
  type MultifdReceivePort,
  type MultifdSendPort,
  type MultifdSent,
  type PacketCompressor,
  type PacketDecompressor,
  type PacketSource,
  type PacketTarget,
  type SendList,
} from './multifd-port.ts';
export {
  checkMultifdInit,
  type MultifdExpected,
  MultifdReceiveChannel,
  type MultifdReceiveOptions,
} from './multifd-receive.ts';
export { MultifdSendChannel, type MultifdSendOptions } from './multifd-send.ts';
export type { FilePiece, PageFile, ShortRead } from './page-file.ts';
export { DEFAULT_PARAMETERS, type Parameters, setParameters } from './parameters.ts';
export { checkCanPause, checkCanResume } from './postcopy-pause.ts';
export { withPrefix } from './prefixed-transport.ts';
export { SourceMigration } from './source.ts';
export type { DeviceState } from './source-frames.ts';
export type { OpenChannel, SourceOptions } from './source-options.ts';
export type { StoredBlock, StoredGuestPort, StoredRange } from './stored-guest-port.ts';
export type { StoredChannels } from './stored-multifd.ts';
export { StoredPackets } from './stored-packets.ts';
export type { StoredList } from './stored-pages.ts';
export { type StoredProgress, StoredSource, type StoredSourceOptions } from './stored-source.ts';
export { notSeekable, type SeekableFile, type Transport } from './transport.ts';
