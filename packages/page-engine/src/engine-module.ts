import { PLAIN_WASM_BASE64, SHARED_WASM_BASE64 } from './engine-wasm.gen.ts';

/** Lists the functions of assembly/engine.ts. Pointers and u32 results come back signed: `>>> 0`. */
export interface Engine {
  addNew(into: number, from: number, pages: number): number;
  addRange(into: number, from: number, first: number, end: number): void;
  clearRange(bitmap: number, from: number, to: number): number;
  countSet(bitmap: number, from: number, to: number): number;
  findRuns(bitmap: number, from: number, to: number, out: number, most: number): number;
  nextClear(bitmap: number, from: number, to: number): number;
  nextSet(bitmap: number, from: number, to: number): number;
  setRange(bitmap: number, from: number, to: number): void;
  widen(bitmap: number, pages: number, perHost: number): void;
  collect(
    state: number,
    entry: number,
    from: number,
    to: number,
    out: number,
    mostRuns: number,
    mostPages: number,
    findZeroPages: number,
  ): number;
  hashPage(ptr: number): bigint;
  hashPages(ptr: number, pages: number, previous: bigint): bigint;
  copy(to: number, from: number, lengthBytes: number): void;
  readTouch(ptr: number, lengthBytes: number): bigint;
  checkPacket(packet: number, count: number, blockPages: number): number;
  gatherPacket(entry: number, packet: number, normal: number, out: number): void;
  listPacket(
    entry: number,
    list: number,
    count: number,
    packet: number,
    findZeroPages: number,
  ): number;
  packetRun(entry: number, packet: number, normal: number): number;
  placePacket(entry: number, packet: number, normal: number, zero: number, from: number): number;
  decode(
    state: number,
    table: number,
    blocks: number,
    slots: number,
    position: number,
    end: number,
  ): number;
  populate(ram: number, written: number, from: number, to: number): void;
  wakeAll(slots: number): void;
  encode(
    state: number,
    entry: number,
    named: number,
    from: number,
    to: number,
    out: number,
    outEnd: number,
    findZeroPages: number,
  ): number;
  applyXbzrle(encoding: number, lengthBytes: number, page: number): void;
  checkXbzrle(encoding: number, lengthBytes: number): number;
  encodeXbzrle(old: number, page: number, out: number, edges: number): number;
  clearCache(cache: number, slots: number): void;
  countZeroPages(ptr: number, pages: number): number;
  markZeroPages(ptr: number, pages: number, bitmap: number): number;
}

const compiled: { plain?: Promise<WebAssembly.Module>; shared?: Promise<WebAssembly.Module> } = {};

/** Compiles the engine of a flavour once. */
export function engineModule(shared: boolean): Promise<WebAssembly.Module> {
  const flavour = shared ? 'shared' : 'plain';
  compiled[flavour] ??= WebAssembly.compile(
    Uint8Array.from(atob(shared ? SHARED_WASM_BASE64 : PLAIN_WASM_BASE64), (c) => c.charCodeAt(0)),
  );
  return compiled[flavour];
}

/** Binds the engine to a memory. */
export async function instantiateEngine(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<Engine> {
  const instance = await WebAssembly.instantiate(module, { env: { memory } });
  return instance.exports as unknown as Engine;
}
