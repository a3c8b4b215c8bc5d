import { workerData } from 'node:worker_threads';
import { runVcpuThread } from '@wherry/machine';

// The whole of a vCPU's thread: it works on shared memory and is told what to do through it.
await runVcpuThread(workerData);
