export { type DecodedDevice, decodeDevices, noteWithout } from './decode-devices.ts';
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
export { StreamWalk, type WalkOptions } from './walk-stream.ts';
