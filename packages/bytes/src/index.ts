export { ByteReader, type ByteReaderOptions } from './byte-reader.ts';
export { ByteWriter } from './byte-writer.ts';
export { collect, counted, more, need, type Parser, runParser, skip } from './parser.ts';
export {
  BytesError,
  type BytesErrorCode,
  type ErrorDetail,
  formatOffset,
  WherryError,
} from './wherry-error.ts';
