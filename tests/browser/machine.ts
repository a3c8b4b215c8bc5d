/** In a browser: a guest whose vCPU is a web worker runs and finds its own pages as it left them. */
import { Machine } from '@wherry/machine';

const machine = await Machine.create({
  blocks: [{ name: 'pc.ram', lengthBytes: 2 ** 20, hostPageBytes: 4096 }],
  vcpus: [{ workload: 'random', pagesPerSecond: Number.POSITIVE_INFINITY }],
  now: Date.now,
  spawn: (init) => {
    const worker = new Worker('/vcpu-thread', { type: 'module' });
    worker.postMessage(init);
    return {
      terminate: async () => worker.terminate(),
      onError: (callback) => worker.addEventListener('error', callback),
    };
  },
});
machine.start();
while (machine.writes < 1000) await new Promise((resolve) => setTimeout(resolve, 5));
await machine.stop();
const { violations, pagesWritten } = await machine.verify();
await machine.close();
if (violations !== 0 || pagesWritten === 0) throw new Error(`${violations} violations`);
console.log(pagesWritten);
