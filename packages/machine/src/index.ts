export { type BlockFile, MemoryFile } from './block/block-file.ts';
export {
  type BlockBackend,
  type BlockdevOptions,
  type BlockFiles,
  BlockGraph,
  type BlockGraphOptions,
} from './block/block-graph.ts';
export { BLOCK_DRIVERS, type BlockDriver, BlockNode } from './block/block-node.ts';
export { DirtyBitmap } from './block/dirty-bitmap.ts';
export { MirrorJob, type MirrorOptions } from './block/mirror-job.ts';
export { createQcow2, Qcow2Image, type Qcow2Options } from './block/qcow2-image.ts';
export { Machine, type MachineOptions } from './machine.ts';
export { MachineError, type MachineErrorCode } from './machine-error.ts';
export type { VcpuSpec, Workload } from './vcpu-spec.ts';
export {
  runVcpuThread,
  type VcpuThread,
  type VcpuThreadEnvironment,
  type VcpuThreadInit,
} from './vcpu-thread.ts';
export type { Violation, WitnessReport } from './witness.ts';
export type { VcpuCore } from './workload-core.ts';
