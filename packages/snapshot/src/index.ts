export { readContainer } from './container.ts';
export {
  type DecodedDevice,
  type DecodeOptions,
  decodeDevices,
  noteWithout,
} from './decode-devices.ts';
export { findVmdesc, VMDESC_TAIL_BYTES } from './find-vmdesc.ts';
export { locate } from './locate.ts';
export { RamIndex, type RamIndexOptions } from './ram-index.ts';
export type { MappedRuns, RamSink } from './ram-sink.ts';
export type { RandomAccess, Scratch } from './random-access.ts';
export { type FileRange, StoredGuest } from './stored-guest.ts';
export { streamFacts } from './stream-facts.ts';
export type {
  CommandModel,
  ContainerModel,
  DeviceModel,
  DirtyBitmapModel,
  ItemModel,
  LiveSectionModel,
  LocatedModel,
  PageCounts,
  PartialSectionModel,
  RamBlockModel,
  RamModel,
  StreamModel,
  VmdescModel,
} from './stream-model.ts';
export type { WalkOptions } from './walk-options.ts';
export { StreamWalk } from './walk-stream.ts';
