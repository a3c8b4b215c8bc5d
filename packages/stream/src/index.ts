export {
  type ByteRange,
  type Command,
  MAX_DISCARDS_PER_COMMAND,
  readCommand,
  writeCommand,
} from './commands.ts';
export { type Configuration, readConfiguration, writeConfiguration } from './configuration.ts';
export {
  BITMAP_CHUNK_BYTES,
  BITMAP_SECTION,
  type BitmapChunk,
  BitmapChunkReader,
  BitmapChunkWriter,
  bitmapChunkBytes,
} from './dirty-bitmap.ts';
export {
  type MappedRamPlace,
  mappedBitmapBytes,
  placeMappedBlock,
  readMappedHeader,
  writeMappedHeader,
} from './mapped-ram.ts';
export {
  decodeMultifdInit,
  encodeMultifdInit,
  getMultifdHead,
  MULTIFD_INIT_BYTES,
  MULTIFD_MAGIC,
  MULTIFD_VERSION,
  MultifdFlag,
  type MultifdHead,
  type MultifdInit,
  putMultifdHead,
} from './multifd.ts';
export {
  RAM_SECTION,
  RamFlag,
  type RamListEntry,
  type RamListShape,
  type RamRecord,
  RamRecordReader,
  readBlockPageSize,
  readRamList,
  writeRamList,
  writeRamWord,
} from './ram.ts';
export {
  RESUME_ACK_VALUE,
  type ReturnPathMessage,
  readReturnPathMessage,
  writeReturnPathMessage,
} from './return-path.ts';
export { readSectionBody } from './section-body.ts';
export {
  readFooter,
  readHeader,
  readItem,
  readVmdescLength,
  type SectionHead,
  SectionType,
  STREAM_MAGIC,
  STREAM_VERSION,
  type StreamItem,
  writeFooter,
  writeHeader,
  writeSectionHead,
  writeVmdesc,
} from './sections.ts';
export { StreamError, type StreamErrorCode } from './stream-error.ts';
export { applyXbzrle, type XbzrlePlace } from './xbzrle.ts';
