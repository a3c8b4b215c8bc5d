/** In a browser: the worker of a vCPU. */
import { runVcpuThread } from '@wherry/machine';

addEventListener('message', ({ data }) => runVcpuThread(data), { once: true });
