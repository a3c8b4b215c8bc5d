import { parentPort, workerData } from 'node:worker_threads';
import { GuestRam, type GuestRamHandle } from '../src/index.ts';

/** Asks for one access; the answer is the value read or the last one written. */
export interface VcpuTask {
  readonly kind: 'read' | 'writeOn';
  readonly block: string;
  /** Of the block. */
  readonly page: number;
}

export interface VcpuData {
  readonly handle: GuestRamHandle;
  readonly vcpu: number;
  readonly wasm: Uint8Array<ArrayBuffer>;
}

interface Workload {
  read(slot: number, received: number, block: number, page: number, ptr: number): bigint;
  writeOn(
    slot: number,
    received: number,
    dirty: number,
    block: number,
    pages: number,
    ram: number,
    stop: number,
  ): bigint;
}

const { handle, vcpu, wasm } = workerData as VcpuData;
const ram = await GuestRam.attach(handle);
const module = await WebAssembly.compile(wasm);
const workloads = ram.banks.map(({ memory }) => {
  const { exports } = new WebAssembly.Instance(module, {
    env: { memory, now: () => performance.now() },
  });
  return exports as unknown as Workload;
});

parentPort!.on('message', ({ kind, block: name, page }: VcpuTask) => {
  const block = ram.block(name)!;
  const segment = block.segments.findLast(({ firstPage }) => firstPage <= page)!;
  const { ptr, receivedPtr, dirtyPtr, firstPage, pages } = segment;
  const workload = workloads[segment.bank]!;
  const slot = ram.vcpuSlotPtr(vcpu);
  const at = ptr + (page - firstPage) * 4096;
  const value =
    kind === 'read'
      ? workload.read(slot, receivedPtr, block.index, page - firstPage, at)
      : workload.writeOn(slot, receivedPtr, dirtyPtr, block.index, pages, ptr, ram.reserved.ptr);
  parentPort!.postMessage(value);
});
parentPort!.postMessage('ready');
