/** A bank's memory as the twin of the engine sees it: plain reads and writes, byte by byte if need be. */
export class TwinBank {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(memory: WebAssembly.Memory) {
    this.bytes = new Uint8Array(memory.buffer);
    this.#view = new DataView(memory.buffer);
  }

  u32(ptr: number): number {
    return this.#view.getUint32(ptr, true);
  }
  setU32(ptr: number, value: number): void {
    this.#view.setUint32(ptr, value, true);
  }
  setU64(ptr: number, value: bigint): void {
    this.#view.setBigUint64(ptr, value, true);
  }
  /** Reads a value as it is on the wire. */
  be64(ptr: number): bigint {
    return this.#view.getBigUint64(ptr);
  }
  setBe64(ptr: number, value: bigint): void {
    this.#view.setBigUint64(ptr, value);
  }

  /** Views bytes, for a page by default. */
  at(ptr: number, lengthBytes = 4096): Uint8Array {
    return this.bytes.subarray(ptr, ptr + lengthBytes);
  }

  has(bitmap: number, page: number): boolean {
    return ((this.bytes[bitmap + (page >> 3)]! >> (page & 7)) & 1) === 1;
  }
  put(bitmap: number, page: number, isSet: boolean): void {
    const bit = 1 << (page & 7);
    const byte = this.bytes[bitmap + (page >> 3)]!;
    this.bytes[bitmap + (page >> 3)] = isSet ? byte | bit : byte & ~bit;
  }
}
