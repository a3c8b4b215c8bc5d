import { workerData } from 'node:worker_threads';
import { runVcpuThread, type VcpuThreadInit } from '../src/index.ts';

await runVcpuThread(workerData as VcpuThreadInit);
