// The engine's module: one instance a bank and thread, all state in the bank's memory.

export { addAll, clearRange, countSet, nextClear, nextSet, setRange, widen } from './bitmap';
export { hashPage, hashPages } from './hash';
export { copy, readTouch } from './limits';
export { decode, wakeAll } from './receiver';
export { encode, syncDirty } from './sender';
export { countZeroPages, markZeroPages } from './zero';
