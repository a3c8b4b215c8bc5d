import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import asc from 'assemblyscript/asc';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { GuestRam, type GuestRamOptions, RamReceiver } from '../src/index.ts';
import { drain, FLAG_PAGE, feed, join, KIB, record, runningSender } from './migrate.ts';
import type { VcpuData, VcpuTask } from './vcpu-worker.ts';

const BLOCKS = [
  { name: 'ram', lengthBytes: 512 * KIB, hostPageBytes: 4096 },
  { name: 'huge', lengthBytes: 512 * KIB, hostPageBytes: 64 * KIB },
];

let wasm: Uint8Array<ArrayBuffer>;
const workers: Worker[] = [];

beforeAll(async () => {
  const { error, stderr } = await asc.main(
    [
      ...['test/assembly/touch.ts', '--outFile', 'touch.wasm', '--runtime', 'stub', '-O3'],
      ...['--baseDir', fileURLToPath(new URL('..', import.meta.url)), '--use', 'abort='],
      ...['--enable', 'simd,threads', '--importMemory', '--noExportMemory'],
      ...['--sharedMemory', '--maximumMemory', '65536'],
    ],
    {
      writeFile: (_name: string, contents: string | Uint8Array) => {
        wasm = Uint8Array.from(contents as Uint8Array);
      },
    },
  );
  expect(error, stderr.toString()).toBeNull();
});

afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
});

function createRam(options: GuestRamOptions = {}): Promise<GuestRam> {
  return GuestRam.create(BLOCKS, {
    shared: true,
    vcpus: 2,
    reservedBytes: 64,
    ioBufferBytes: 128 * KIB,
    ...options,
  });
}

async function startVcpu(
  ram: GuestRam,
  vcpu: number,
): Promise<(task: VcpuTask) => Promise<bigint>> {
  const workerData: VcpuData = { handle: ram.handle(), vcpu, wasm };
  const worker = new Worker(new URL('./vcpu-worker.ts', import.meta.url), { workerData });
  workers.push(worker);
  await once(worker, 'message');
  return async (task) => {
    const answer = once(worker, 'message');
    worker.postMessage(task);
    return (await answer)[0] as bigint;
  };
}

/** Waits until so many host pages were taken. */
async function takeFaults(ram: GuestRam, count: number): Promise<string[]> {
  const taken: string[] = [];
  while (taken.length < count) {
    await ram.faults.wait();
    for (const { block, offsetBytes, lengthBytes } of ram.faults.take()) {
      taken.push(`${block.name} ${offsetBytes} ${lengthBytes}`);
    }
  }
  return taken;
}

function hostPage(name: string, offset: number, pages: number, value: number): Uint8Array {
  const body = new Uint8Array(4096);
  return join(
    Array.from({ length: pages }, (_, i) => {
      new DataView(body.buffer).setBigUint64(0, BigInt(value + i), true);
      return record(offset + i * 4096, FLAG_PAGE, { name, body: body.slice() });
    }),
  );
}

describe.each([
  ['one bank', {}],
  ['several banks', { maxBankBytes: 2 ** 20, ioBuffers: 1 }],
])('a vCPU that touches a missing page, %s', (_, options) => {
  it('sleeps until the whole host page is placed', async () => {
    const ram = await createRam(options);
    const touch = await startVcpu(ram, 0);
    const receiver = new RamReceiver(ram);
    receiver.enterPostcopy();
    let isAwake = false;
    const value = touch({ kind: 'read', block: 'huge', page: 85 }).finally(() => {
      isAwake = true;
    });
    expect(await takeFaults(ram, 1)).toEqual([`huge ${5 * 64 * KIB} ${64 * KIB}`]);
    expect(ram.faults.take()).toEqual([]);
    const records = hostPage('huge', 5 * 64 * KIB, 16, 1000);
    const half = records.length / 2;
    feed(receiver, records.subarray(0, half - (half % 4109)), [70_000]);
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(isAwake).toBe(false);
    feed(receiver, records.subarray(half - (half % 4109)), [70_000]);
    expect(await value).toBe(1005n);
    const statistics = ram.faults.statistics();
    expect(statistics.count).toBe(1);
    expect(statistics.totalMs).toBeGreaterThanOrEqual(30);
    expect(statistics.p50Ms).toBeGreaterThanOrEqual(30);
    expect(statistics.p99Ms).toBeLessThanOrEqual(statistics.totalMs * 1.25);
    expect(statistics.histogram.length).toBe(1);
    expect(await touch({ kind: 'read', block: 'huge', page: 80 })).toBe(1000n);
    expect(ram.faults.statistics().count).toBe(1);
  });

  it('shares one request with others, and is asked for anew after a break', async () => {
    const ram = await createRam(options);
    const [first, second] = [await startVcpu(ram, 0), await startVcpu(ram, 1)];
    const a = first({ kind: 'read', block: 'huge', page: 3 });
    const b = second({ kind: 'read', block: 'huge', page: 4 });
    const all = await takeFaults(ram, 1);
    // The second one begins to wait at some time.
    while ((await takeFaultsOnce(ram)).length > 0);
    expect(all).toEqual([`huge 0 ${64 * KIB}`]);
    ram.faults.forgetOutstanding();
    expect(ram.faults.take().map(({ offsetBytes }) => offsetBytes)).toEqual([0]);
    ram.faults.wakeAll();
    const receiver = new RamReceiver(ram);
    receiver.enterPostcopy();
    feed(receiver, hostPage('huge', 0, 16, 7), [9999]);
    expect(await Promise.all([a, b])).toEqual([10n, 11n]);
    expect(ram.faults.statistics().count).toBe(2);
  });

  async function takeFaultsOnce(ram: GuestRam): Promise<unknown[]> {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return ram.faults.take();
  }

  it('is served beside devices that touch missing pages', async () => {
    const ram = await createRam(options);
    const receiver = new RamReceiver(ram);
    const touch = await startVcpu(ram, 0);
    receiver.enterPostcopy();
    const huge = ram.block('huge')!;
    const first = ram.faults.touch(huge, 64 * KIB - 1, 2);
    const second = ram.faults.touch(huge, 0, 100);
    const vcpu = touch({ kind: 'read', block: 'ram', page: 1 });
    const seen = await takeFaults(ram, 2);
    expect(seen.sort()).toEqual([`huge 0 ${64 * KIB}`, 'ram 4096 4096']);
    feed(receiver, hostPage('huge', 0, 16, 7), [9999]);
    expect(await takeFaults(ram, 1)).toEqual([`huge ${64 * KIB} ${64 * KIB}`]);
    feed(receiver, hostPage('huge', 64 * KIB, 16, 7), [9999]);
    await Promise.all([first, second, ram.faults.touch(huge, 0, 128 * KIB)]);
    feed(receiver, hostPage('ram', 4096, 1, 7), [9999]);
    expect(await vcpu).toBe(7n);
    await expect(ram.faults.touch(huge, 512 * KIB, 1)).rejects.toMatchObject({ code: 'RANGE' });
  });

  it('goes on when all pages are declared present', async () => {
    const ram = await createRam(options);
    const touch = await startVcpu(ram, 1);
    const value = touch({ kind: 'read', block: 'ram', page: 127 });
    await takeFaults(ram, 1);
    ram.setAllReceived(true);
    expect(await value).toBe(0n);
  });
});

describe('the dirty log', () => {
  it.each([0, 256 * KIB])(
    'loses no write of a running vCPU, XBZRLE with %i bytes',
    async (xbzrleCacheBytes) => {
      const source = await createRam({ xbzrleCacheBytes });
      const destination = await createRam();
      const sender = runningSender(source, { xbzrleCacheBytes });
      const receiver = new RamReceiver(destination);
      const touch = await startVcpu(source, 0);
      const last = touch({ kind: 'writeOn', block: 'ram', page: 0 });
      sender.oweAll();
      const until = performance.now() + 300;
      let rounds = 0;
      const isSeen = (): boolean => xbzrleCacheBytes === 0 || receiver.counters.xbzrlePages > 0;
      for (; performance.now() < until || !isSeen(); rounds++) {
        feed(receiver, join(drain(sender)), [128 * KIB]);
        sender.syncDirty();
      }
      expect(rounds).toBeGreaterThan(1);
      const { memory, ptr } = source.reserved;
      Atomics.store(new Int32Array(memory.buffer), ptr >> 2, 1);
      expect(await last).toBeGreaterThan(128n);
      sender.syncDirty();
      feed(receiver, join(drain(sender)), [128 * KIB]);
      expect(destination.block('ram')!.checksum()).toBe(source.block('ram')!.checksum());
    },
  );
});

describe('FaultPort', () => {
  it('ends a wait by ring, once', async () => {
    const ram = await createRam();
    const wait = ram.faults.wait();
    ram.faults.ring();
    await wait;
    await ram.faults.wait();
    expect(ram.faults.take()).toEqual([]);
    let isOver = false;
    const next = ram.faults.wait().then(() => {
      isOver = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(isOver).toBe(false);
    ram.faults.ring();
    await next;
    expect(ram.faults.statistics()).toEqual({
      count: 0,
      totalMs: 0,
      p50Ms: 0,
      p99Ms: 0,
      histogram: [],
    });
  });

  it('ends a wait by its signal, and waits no more behind it', async () => {
    const ram = await createRam();
    const first = new AbortController();
    const wait = ram.faults.wait(first.signal);
    first.abort();
    await wait;
    ram.faults.take();
    await ram.faults.wait(first.signal);
    const second = new AbortController();
    let isOver = false;
    const next = ram.faults.wait(second.signal).then(() => {
      isOver = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(isOver).toBe(false);
    second.abort();
    await next;
  });

  it('needs shared memory, as a handle does', async () => {
    const ram = await createRam({ shared: false });
    const notShared = { code: 'NOT_SHARED' };
    await expect(ram.faults.wait()).rejects.toMatchObject(notShared);
    expect(() => ram.handle()).toThrow(expect.objectContaining(notShared));
    expect(() => ram.vcpuSlotPtr(2)).toThrow(expect.objectContaining({ code: 'RANGE' }));
  });
});
