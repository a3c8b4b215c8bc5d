// The vCPU's module: one instance a bank and thread, all state in the banks' memory.

export { access } from './access';
export { kick } from './virtqueues';
export { fill, run, verify } from './workload';
