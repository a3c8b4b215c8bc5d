// The engine's module: one instance a bank and thread, all state in the bank's memory.

export {
  addNew, addRange, clearRange, countSet, findRuns, nextClear, nextSet, setRange, widen,
} from './bitmap';
export { collect } from './collector';
export { hashPage, hashPages } from './hash';
export { copy, readTouch } from './limits';
export { checkPacket, gatherPacket, listPacket, packetRun, placePacket } from './packet';
export { populate } from './populate';
export { decode, wakeAll } from './receiver';
export { encode } from './sender';
export { applyXbzrle, checkXbzrle, encodeXbzrle } from './xbzrle';
export { clearCache } from './xbzrle-cache';
export { countZeroPages, markZeroPages } from './zero';
