import { type RamBlockSpec, RamReceiver, RamSender } from '@wherry/page-engine';
import { expect, test } from 'vitest';
import {
  copyRam,
  createMachine,
  loadDevices,
  saveDevices,
  smallBlocks,
  spawnWorker,
  until,
} from './machines.ts';

test('a new guest is stopped and half filled, and every page is as its vCPU wrote it', async () => {
  const machine = await createMachine();
  const owned = (8 * 2 ** 20 - 0x2_0000) / 4096;
  expect(machine.running).toBe(false);
  expect(machine.witness()).toEqual({
    pagesOwned: owned,
    pagesWritten: owned / 2,
    writes: 0,
    checks: owned / 2,
    violations: 0,
    firstViolations: [],
  });
  const zero = machine.ram.blocks.reduce((total, block) => total + block.zeroScan(), 0);
  expect(zero).toBe(2048 - owned / 2);
  expect((await machine.verify()).checks).toBe(owned / 2 + owned + 6);
});

test('running vCPUs write pages into the dirty log, park, and find nothing wrong', async () => {
  const machine = await createMachine();
  const sender = new RamSender(machine.ram);
  sender.syncDirty();
  // Sending takes the marks of what the guest was filled with.
  for (let chunk = sender.next(); chunk; chunk = sender.next()) chunk.release();
  machine.start();
  expect(machine.running).toBe(true);
  await until(() => machine.writes > 5000);
  await machine.stop();
  const { writes } = machine;
  expect(sender.syncDirty()).toBeGreaterThan(500);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(machine.writes).toBe(writes);
  const report = await machine.verify();
  expect(report.violations).toBe(0);
  expect(report.writes).toBe(writes);
});

test('a throttled vCPU keeps its rate, and an idle one does nothing', async () => {
  const machine = await createMachine({
    vcpus: [
      { workload: 'sequential', pagesPerSecond: 2000 },
      { workload: 'idle', pagesPerSecond: 1 },
    ],
  });
  const start = performance.now();
  machine.start();
  await until(() => machine.writes >= 200);
  await machine.stop();
  const seconds = (performance.now() - start) / 1000;
  expect(machine.writes).toBeLessThanOrEqual(2000 * seconds + 1);
  // Nothing of an idle vCPU travels.
  expect(saveDevices(machine).map(({ idstr }) => idstr)).toEqual([
    'timer:0',
    'wherry-vcpu:0',
    'mc146818rtc:0',
    'serial:0',
    '0000:00:02.0/virtio-net:0',
    '0000:00:03.0/virtio-blk:0',
    '0000:00:04.0/virtio-balloon:0',
  ]);
});

test('a machine that is slowed down writes less, and at full speed once it is let go', async () => {
  const machine = await createMachine({
    vcpus: [{ workload: 'sequential', pagesPerSecond: 20_000 }],
  });
  const rate = async (): Promise<number> => {
    const [start, before] = [performance.now(), machine.writes];
    await new Promise((resolve) => setTimeout(resolve, 300));
    return ((machine.writes - before) * 1000) / (performance.now() - start);
  };
  machine.start();
  machine.setThrottle(80);
  expect(await rate()).toBeLessThan(8000);
  // It sleeps for a second now, out of which it is to be woken.
  machine.setThrottle(99);
  expect(await rate()).toBeLessThan(2000);
  machine.setThrottle(0);
  expect(await rate()).toBeGreaterThan(10_000);
  machine.setThrottle(99);
  const stopping = performance.now();
  await machine.stop();
  expect(performance.now() - stopping).toBeLessThan(500);
  expect(machine.witness().violations).toBe(0);
  expect(() => machine.setThrottle(100)).toThrow(
    expect.objectContaining({ code: 'OPTION_INVALID', found: '100' }),
  );
});

test('an idle guest is filled too, and its pages belong to nobody', async () => {
  const machine = await createMachine({
    vcpus: [{ workload: 'idle', pagesPerSecond: 1 }],
    fill: 1,
  });
  const zero = machine.ram.blocks.reduce((total, block) => total + block.zeroScan(), 0);
  expect(zero).toBe(0x2_0000 / 4096);
  expect((await machine.verify()).pagesOwned).toBe(0);
  expect(saveDevices(machine).map(({ idstr }) => idstr)).not.toContain('wherry-vcpu:0');
});

test('verify parks running vCPUs and lets them go on', async () => {
  const machine = await createMachine();
  machine.start();
  const report = await machine.verify();
  expect(report.violations).toBe(0);
  expect(machine.running).toBe(true);
  await until(() => machine.writes > report.writes + 100);
  await machine.stop();
});

test('an old page, a lost page and a damaged byte are each one violation', async () => {
  const machine = await createMachine({
    vcpus: [{ workload: 'sequential', pagesPerSecond: 40_000 }],
    fill: 1,
  });
  const ram = machine.ram.block('pc.ram')!;
  const old = ram.read(0x40_000, 4096);
  machine.start();
  await until(() => machine.writes > 2048);
  await machine.stop();
  ram.write(0x40_000, old);
  ram.write(0x50_000, new Uint8Array(4096));
  ram.write(
    0x60_fff,
    ram.read(0x60_fff, 1).map((byte) => byte ^ 1),
  );
  const { violations, firstViolations } = await machine.verify();
  expect(violations).toBe(3);
  const block = 'pc.ram';
  expect(firstViolations).toMatchObject([
    { vcpu: 0, block, page: 0x40, found: 'stale', foundGeneration: 1 },
    { vcpu: 0, block, page: 0x50, found: 'stale', foundGeneration: 0 },
    { vcpu: 0, block, page: 0x60, found: 'other' },
  ]);
  expect(firstViolations[0]!.expectedGeneration).toBeGreaterThanOrEqual(2);
  expect(firstViolations[2]).not.toHaveProperty('foundGeneration');
});

test('a vCPU finds an old page when it writes that page next', async () => {
  const machine = await createMachine({
    vcpus: [{ workload: 'sequential', pagesPerSecond: Infinity }],
    fill: 1,
  });
  const block = machine.ram.block('hugemem')!;
  block.write(2 ** 21, new Uint8Array(4096));
  machine.start();
  await until(() => machine.writes > 2048);
  await machine.stop();
  expect(machine.witness()).toMatchObject({
    violations: 1,
    firstViolations: [
      { block: 'hugemem', page: 512, found: 'stale', expectedGeneration: 1, foundGeneration: 0 },
    ],
  });
});

test('a guest goes on elsewhere with its state and its memory', async () => {
  const [main, huge] = smallBlocks as [RamBlockSpec, RamBlockSpec];
  const more: RamBlockSpec = { name: 'more', lengthBytes: 2 ** 20, hostPageBytes: 4096 };
  const source = await createMachine({ seed: 7, blocks: [main, huge, more] });
  source.start();
  await until(() => source.writes > 3000);
  await source.stop();
  const sections = saveDevices(source);

  // Blocks are matched by name, and the first is the main memory.
  const destination = await createMachine({ incoming: true, blocks: [main, more, huge] });
  expect(destination.witness().pagesOwned).toBe(0);
  copyRam(source, destination);
  loadDevices(destination, sections);
  expect(destination.witness()).toEqual(source.witness());
  expect(saveDevices(destination).map(({ idstr, bytes }) => [idstr, bytes.length])).toEqual(
    sections.map(({ idstr, bytes }) => [idstr, bytes.length]),
  );
  expect((await destination.verify()).violations).toBe(0);

  destination.start();
  await until(() => destination.writes > source.writes + 3000);
  await destination.stop();
  expect((await destination.verify()).violations).toBe(0);
});

test('memory of before the stop is found out on the destination', async () => {
  const source = await createMachine({
    vcpus: [{ workload: 'hotset', pagesPerSecond: 20_000 }],
  });
  source.start();
  await until(() => source.writes > 500);
  await source.stop();
  const destination = await createMachine({ incoming: true });
  copyRam(source, destination);
  source.start();
  await until(() => source.writes > 1500);
  await source.stop();
  loadDevices(destination, saveDevices(source));
  const { violations, firstViolations } = await destination.verify();
  expect(violations).toBeGreaterThan(10);
  expect(firstViolations.some(({ found }) => found === 'stale')).toBe(true);
});

test('a vCPU waits for a missing page until it is placed', async () => {
  const source = await createMachine({
    vcpus: [{ workload: 'sequential', pagesPerSecond: Infinity }],
    fill: 1,
  });
  const destination = await createMachine({
    incoming: true,
    vcpus: [{ workload: 'idle', pagesPerSecond: 1 }],
  });
  loadDevices(destination, saveDevices(source));

  const sender = new RamSender(source.ram);
  sender.oweAll();
  sender.enterPostcopy();
  const receiver = new RamReceiver(destination.ram);
  receiver.enterPostcopy();
  const { faults } = destination.ram;
  destination.start();
  await faults.wait();
  expect(destination.writes).toBe(0);
  let parked = false;
  const stop = destination.stop().then(() => {
    parked = true;
  });

  // The first access is to the virtqueues, the next to the first page of the workload.
  while (!parked) {
    for (const { block, offsetBytes, lengthBytes } of faults.take()) {
      sender.request(source.ram.block(block.name)!, offsetBytes, lengthBytes);
      const chunk = sender.next()!;
      expect(chunk.requested).toBe(true);
      receiver.input.bytes.set(chunk.bytes);
      expect(receiver.decode(0, chunk.bytes.length).status).toBe('need-more');
      chunk.release();
    }
    await Promise.race([faults.wait(), stop]);
  }
  expect(destination.faultStatistics().count).toBeGreaterThan(6);
  expect(destination.witness().violations).toBe(0);
});

test('a failing thread ends all waiting, and says why', async () => {
  const { machine, fail } = await machineWithFailingThread();
  const failures: unknown[] = [];
  machine.onError((error) => failures.push(error));
  machine.start();
  fail(new Error('no memory'));
  expect(failures).toMatchObject([{ code: 'VCPU_FAILED' }]);
  expect(() => machine.start()).toThrow('The thread of vCPU 0 failed: found no memory');
  await expect(machine.stop()).rejects.toMatchObject({ code: 'VCPU_FAILED' });
});

async function machineWithFailingThread() {
  let fail: (error: unknown) => void = () => {};
  const machine = await createMachine({
    vcpus: [{ workload: 'sequential', pagesPerSecond: 100 }],
    spawn: (init) => {
      const thread = spawnWorker(init);
      return {
        ...thread,
        onError: (callback) => {
          fail = callback;
        },
      };
    },
  });
  return { machine, fail };
}

test('a closed machine ends its threads even where they wait for a page', async () => {
  const source = await createMachine();
  const destination = await createMachine({ incoming: true });
  loadDevices(destination, saveDevices(source));
  destination.start();
  await destination.ram.faults.wait();
  const stop = expect(destination.stop()).rejects.toMatchObject({ code: 'CLOSED' });
  await destination.close();
  await stop;
});

test('options that cannot be are refused before anything starts', async () => {
  const spawn = (): never => expect.unreachable();
  const rejects = (options: Parameters<typeof createMachine>[0]) =>
    expect(createMachine({ spawn, ...options })).rejects;
  await rejects({ fill: 2 }).toMatchObject({ code: 'OPTION_INVALID', expected: '0 to 1' });
  await rejects({ seed: 0.5 }).toMatchObject({ code: 'OPTION_INVALID', found: '0.5' });
  await rejects({ vcpus: [{ workload: 'idle', pagesPerSecond: 0 }] }).toMatchObject({
    code: 'OPTION_INVALID',
    path: ['vcpus[0]'],
  });
  await rejects({ blocks: [{ name: 'x', lengthBytes: 5, hostPageBytes: 4096 }] }).toMatchObject({
    code: 'BAD_BLOCK',
  });
});

test('a thread that does not start fails the machine', async () => {
  const started = createMachine({
    spawn: () => ({
      terminate: async () => undefined,
      onError: (callback) => queueMicrotask(() => callback(new Error('out of threads'))),
    }),
  });
  await expect(started).rejects.toMatchObject({ code: 'VCPU_FAILED', found: 'out of threads' });
});

test('stopping waits for a verification, and the guest’s clock runs while it does', async () => {
  let nowMs = 1_000_000;
  const machine = await createMachine({ now: () => nowMs });
  const clockNs = (): bigint => {
    const bytes = saveDevices(machine)[0]!.bytes;
    return new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(16);
  };
  machine.start();
  nowMs += 250;
  const verification = machine.verify();
  await machine.stop();
  expect((await verification).violations).toBe(0);
  expect(machine.running).toBe(false);
  const { writes } = machine;
  nowMs += 1000;
  expect(clockNs()).toBe(250_000_000n);
  expect(machine.writes).toBe(writes);
  machine.start();
  nowMs += 5;
  await machine.stop();
  expect(clockNs()).toBe(255_000_000n);
});

test('a start during a stop lets the stop end and the guest go on', async () => {
  const machine = await createMachine();
  machine.start();
  const stop = machine.stop();
  machine.start();
  await stop;
  expect(machine.running).toBe(true);
  const { writes } = machine;
  await until(() => machine.writes > writes);
  await machine.stop();
});
