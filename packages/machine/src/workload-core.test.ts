import { GuestRam, type RamBlockSpec, RamSender } from '@wherry/page-engine';
import { expect, test } from 'vitest';
import { CHECKS, KICKS, POSITION, RNG, VIOLATIONS, WRITES } from './control-layout.ts';
import { shareOfPages } from './page-ownership.ts';
import { controlRegionBytes, VcpuControl } from './vcpu-control.ts';
import { type VcpuSpec, workloadOptions } from './vcpu-spec.ts';
import { WorkloadCore } from './workload-core.ts';

const MiB = 2 ** 20;
const ramOnly: readonly RamBlockSpec[] = [
  { name: 'pc.ram', lengthBytes: 2 * MiB, hostPageBytes: 4096 },
];

/** A vCPU on memory that is not shared, in the test's own thread. */
async function vcpu(spec: Partial<VcpuSpec>, blocks = ramOnly, maxBankBytes?: number) {
  const ramBytes = blocks.reduce((total, { lengthBytes }) => total + lengthBytes, 0);
  const ram = await GuestRam.create(blocks, {
    reservedBytes: controlRegionBytes(1, ramBytes),
    ...(maxBankBytes === undefined ? {} : { maxBankBytes, ioBufferBytes: 65_536 }),
  });
  ram.setAllReceived(true);
  const control = new VcpuControl(ram, 0);
  const options = workloadOptions({ workload: 'sequential', pagesPerSecond: 1, ...spec }, 0);
  control.setWorkload(options, 1n, 2n);
  control.setRanges(shareOfPages(ram, 0, 1, options.hotPages));
  control.setDrivers(true);
  const core = await WorkloadCore.create(ram, control, () => 0);
  const written = () =>
    control.ranges.flatMap((range) =>
      [...control.generations(range)].flatMap((count, i) => Array(count).fill(range.firstPage + i)),
    );
  return { ram, control, core, written };
}

function verifyAll({ control, core }: Awaited<ReturnType<typeof vcpu>>): number {
  control.setU32(POSITION, 0);
  let checked = 0;
  for (let pages = core.verify(100); pages > 0; pages = core.verify(100)) checked += pages;
  return checked;
}

test('sequential goes from the first page to the last and round', async () => {
  const guest = await vcpu({});
  expect(guest.core.run(5)).toBe(5);
  expect(guest.written()).toEqual([32, 33, 34, 35, 36]);
  guest.core.run(512 - 32);
  expect(guest.written().slice(0, 12)).toEqual([32, 32, 33, 33, 34, 34, 35, 35, 36, 36, 37, 38]);
  expect(guest.control.u64(WRITES)).toBe(485n);
  expect(guest.control.u64(CHECKS)).toBe(485n);
});

test('random and hotset choose by the state of their generator', async () => {
  for (const workload of ['random', 'hotset'] as const) {
    const one = await vcpu({ workload });
    const two = await vcpu({ workload });
    one.core.run(100);
    two.core.run(100);
    expect(one.written()).toEqual(two.written());
    expect(one.control.u64(RNG)).toBe(two.control.u64(RNG));
    const three = await vcpu({ workload });
    three.control.setU64(RNG, 3n);
    three.core.run(100);
    expect(three.written()).not.toEqual(one.written());
  }
});

test('random spreads its writes, hotset crowds them', async () => {
  const random = await vcpu({ workload: 'random' });
  random.core.run(5000);
  expect(new Set(random.written()).size).toBe(480);

  const hotset = await vcpu({ workload: 'hotset', hotPages: 0.1, hotWrites: 0.9 });
  hotset.core.run(5000);
  const hot = hotset.written().filter((page) => page < 32 + 48).length;
  expect(hot / 5000).toBeGreaterThan(0.88);
  expect(hot / 5000).toBeLessThan(0.94);

  const cold = await vcpu({ workload: 'hotset', hotPages: 0 });
  cold.core.run(2000);
  expect(new Set(cold.written()).size).toBeGreaterThan(400);
});

test('idle does nothing', async () => {
  const guest = await vcpu({ workload: 'idle' });
  expect(guest.control.active).toBe(false);
  expect(guest.core.run(10)).toBe(0);
});

test('pages do not compress, and their contents depend on place, generation and seed', async () => {
  const guest = await vcpu({});
  guest.core.run(480);
  const block = guest.ram.blocks[0]!;
  const first = block.read(32 * 4096, 4096);
  const second = block.read(33 * 4096, 4096);
  guest.core.run(480);
  const again = block.read(32 * 4096, 4096);
  const words = new Set<bigint>();
  for (const page of [first, second, again]) {
    for (const word of new BigUint64Array(page.buffer)) words.add(word);
  }
  expect(words.size).toBe(3 * 512);
  expect(words.has(0n)).toBe(false);
});

test('a write changes no more of a page than it is told to, and a stale page is seen', async () => {
  const guest = await vcpu({ changes: 0.05 });
  guest.core.run(480);
  const block = guest.ram.blocks[0]!;
  const before = block.read(40 * 4096, 4096);
  guest.core.run(480);
  const after = block.read(40 * 4096, 4096);
  const changed = [...before].flatMap((byte, i) => (byte === after[i] ? [] : [i >> 6]));
  expect([...new Set(changed)]).toEqual([0, 1, 2]);
  expect(verifyAll(guest)).toBe(480);
  expect(guest.control.u64(VIOLATIONS)).toBe(0n);
  block.write(40 * 4096, before);
  verifyAll(guest);
  expect(guest.control.violations()).toMatchObject([
    { page: 40, found: 'stale', foundGeneration: 1 },
  ]);
  block.write(40 * 4096, after);
  block.write(41 * 4096 + 4095, Uint8Array.of(after[0]!));
  verifyAll(guest);
  expect(guest.control.violations()[1]).toMatchObject({ page: 41, found: 'other' });
});

test('every write is in the dirty log', async () => {
  const guest = await vcpu({});
  const sender = new RamSender(guest.ram);
  guest.core.run(7);
  expect(sender.syncDirty()).toBe(7);
  // Sending takes the marks.
  for (let chunk = sender.next(); chunk; chunk = sender.next()) chunk.release();
  guest.core.kick();
  expect(sender.syncDirty()).toBe(6);
});

test('fill writes its share, spread evenly, in as many calls as it takes', async () => {
  const guest = await vcpu({});
  let looked = 0;
  for (let pages = guest.core.fill(0.25, 33); pages > 0; pages = guest.core.fill(0.25, 33)) {
    looked += pages;
  }
  expect(looked).toBe(480);
  expect(guest.written().slice(0, 3)).toEqual([35, 39, 43]);
  expect(guest.written()).toHaveLength(120);
  expect(guest.control.u64(WRITES)).toBe(0n);
  expect(verifyAll(guest)).toBe(480);
  expect(guest.control.u64(VIOLATIONS)).toBe(0n);
});

test('the virtqueues are witnessed too', async () => {
  const guest = await vcpu({});
  for (let i = 0; i < 70_000; i++) guest.core.kick();
  expect(guest.control.u32(KICKS)).toBe(70_000);
  const used = guest.ram.blocks[0]!.read(0x1_2000, 4);
  expect(new DataView(used.buffer).getUint16(2, true)).toBe(70_000 & 0xffff);
  verifyAll(guest);
  expect(guest.control.u64(VIOLATIONS)).toBe(0n);
  guest.ram.blocks[0]!.write(0x1_2002, Uint8Array.of(0, 0));
  verifyAll(guest);
  expect(guest.control.violations()).toEqual([
    { vcpu: 0, block: 'pc.ram', page: 0x12, expectedGeneration: 70_000, found: 'other' },
  ]);
});

test('at most eight violations are kept, all are counted', async () => {
  const guest = await vcpu({});
  guest.core.run(480);
  guest.ram.blocks[0]!.write(0, new Uint8Array(2 * MiB));
  verifyAll(guest);
  expect(guest.control.u64(VIOLATIONS)).toBe(480n);
  expect(guest.control.violations()).toHaveLength(8);
});

test('a page that is neither old nor zero, and one that is much too old', async () => {
  const guest = await vcpu({ hotPages: 0 });
  const block = guest.ram.blocks[0]!;
  guest.core.run(480 * 130);
  block.write(32 * 4096, new Uint8Array(4096));
  block.write(33 * 4096, block.read(34 * 4096, 4096));
  verifyAll(guest);
  expect(guest.control.violations()).toMatchObject([
    { page: 32, found: 'zero', expectedGeneration: 130 },
    { page: 33, found: 'other' },
  ]);
});

test('pages of every bank are written and witnessed alike', async () => {
  const guest = await vcpu(
    {},
    [
      { name: 'pc.ram', lengthBytes: 6 * MiB, hostPageBytes: 4096 },
      { name: 'more', lengthBytes: 4 * MiB, hostPageBytes: 4096 },
    ],
    4 * MiB,
  );
  expect(guest.ram.banks.length).toBeGreaterThan(2);
  const owned = (10 * MiB - 0x2_0000) / 4096;
  guest.core.run(owned);
  guest.core.run(owned);
  const zero = guest.ram.blocks.reduce((total, block) => total + block.zeroScan(), 0);
  expect(zero).toBe(32);
  expect(verifyAll(guest)).toBe(owned);
  expect(guest.control.u64(VIOLATIONS)).toBe(0n);
  const block = guest.ram.block('more')!;
  block.write(block.lengthBytes - 1, Uint8Array.of(block.read(block.lengthBytes - 1, 1)[0]! ^ 1));
  verifyAll(guest);
  expect(guest.control.violations()).toMatchObject([
    { block: 'more', page: block.pageCount - 1, found: 'other', expectedGeneration: 2 },
  ]);
});
