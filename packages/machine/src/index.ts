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
