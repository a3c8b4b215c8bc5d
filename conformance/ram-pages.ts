import { createHash } from 'node:crypto';
import { ByteReader, runParser } from '@wherry/bytes';
import {
  RamRecordReader,
  readCommand,
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readRamList,
} from '@wherry/stream';

const ZERO_PAGE = '0';

/**
 * Reads the RAM of a plain precopy stream, up to its first device section.
 *
 * @returns a digest of every page that the stream holds, by `block@offset`; the last copy wins
 */
export function ramPages(stream: Uint8Array): Map<string, string> {
  const reader = ByteReader.over(stream);
  const records = new RamRecordReader();
  const pages = new Map<string, string>();
  runParser(readHeader(reader), reader);
  runParser(readConfiguration(reader), reader);
  for (;;) {
    const item = runParser(readItem(reader), reader);
    if (item.type === 'eof') return pages;
    if (item.type === 'command') {
      runParser(readCommand(reader), reader);
      continue;
    }
    if (item.head.kind === 'full') return pages;
    for (;;) {
      const record = runParser(records.read(reader), reader);
      if (record.kind === 'eos') break;
      if (record.kind === 'mem-size') {
        runParser(readRamList(reader, record.totalBytes, {}), reader);
      } else if ('block' in record) {
        const data = reader.view(record.dataBytes);
        const isZero = data.every((byte) => byte === 0);
        const digest = isZero ? ZERO_PAGE : createHash('sha256').update(data).digest('hex');
        pages.set(`${record.block}@${record.pageOffset}`, digest);
      }
    }
    runParser(readFooter(reader, item.head.sectionId, 'ram'), reader);
  }
}
