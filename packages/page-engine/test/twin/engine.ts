import type { Engine } from '../../src/engine-module.ts';
import { TwinBank } from './bank.ts';
import { bitmapTwin } from './bitmap.ts';
import { hashTwin } from './hash.ts';
import { recordReaderTwin } from './record-reader.ts';
import { recordWriterTwin } from './record-writer.ts';
import { decodeXbzrle, encodeXbzrle } from './xbzrle.ts';
import { TwinCache } from './xbzrle-cache.ts';
import { zeroTwin } from './zero.ts';

/** What the twin does not have: packets and files are tested against models of their own. */
type Missing =
  | 'checkPacket'
  | 'collect'
  | 'copy'
  | 'gatherPacket'
  | 'listPacket'
  | 'packetRun'
  | 'placePacket'
  | 'readTouch';

/** Makes the engine's functions in plain TypeScript, over the same memory map. */
export function twinEngine(memory: WebAssembly.Memory): Omit<Engine, Missing> {
  const bank = new TwinBank(memory);
  const { countZeroPages, markZeroPages } = zeroTwin(bank);
  return {
    ...bitmapTwin(bank),
    ...hashTwin(bank),
    ...{ countZeroPages, markZeroPages },
    ...recordWriterTwin(bank),
    ...recordReaderTwin(bank),
    populate() {}, // changes nothing that can be seen
    clearCache: (cache, slots) => new TwinCache(bank, cache, slots, 0).clear(),
    encodeXbzrle(old, page, out) {
      const encoding = encodeXbzrle(bank.at(old), bank.at(page));
      if (encoding === undefined) return -1;
      bank.at(out, encoding.length).set(encoding);
      return encoding.length;
    },
    checkXbzrle: (encoding, lengthBytes) =>
      decodeXbzrle(bank.at(encoding, lengthBytes), new Uint8Array(4096)),
    applyXbzrle: (encoding, lengthBytes, page) =>
      void decodeXbzrle(bank.at(encoding, lengthBytes), bank.at(page)),
  };
}
