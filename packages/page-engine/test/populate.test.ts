import { Worker } from 'node:worker_threads';
import { afterEach, expect, it, vi } from 'vitest';
import { GuestRam, type RamChannel, RamReceiver } from '../src/index.ts';
import { ARRIVAL_PTR } from '../src/layout.ts';
import { FLAG_CONTINUE, FLAG_PAGE, FLAG_ZERO, feed, join, record } from './migrate.ts';

const MIB = 2 ** 20;
const BLOCK = { name: 'ram', lengthBytes: 64 * MIB, hostPageBytes: 4096 };
const CONTENT = new Uint8Array(4096).fill(7);

const workers: Worker[] = [];
afterEach(async () => {
  await Promise.all(workers.splice(0).map((worker) => worker.terminate()));
});

function createRam(): Promise<GuestRam> {
  return GuestRam.create([BLOCK], { shared: true, maxBankBytes: 48 * MIB });
}

const residentMib = (): number => process.memoryUsage.rss() / MIB;

/** Receives so many pages over a channel from a page on; of each eight the first `zero` are zero pages. */
function receive(
  ram: GuestRam,
  first: number,
  count: number,
  zero = 0,
  channel: RamChannel = 'main',
): void {
  const records = Array.from({ length: count }, (_, i) => {
    const isZero = i % 8 < zero;
    return record((first + i) * 4096, (isZero ? FLAG_ZERO : FLAG_PAGE) | (i && FLAG_CONTINUE), {
      ...(i === 0 && { name: BLOCK.name }),
      body: isZero ? Uint8Array.of(0) : CONTENT,
    });
  });
  feed(new RamReceiver(ram, channel), join(records), [MIB]);
}

it('gives memory to every page of a block, and changes no byte', async () => {
  const ram = await createRam();
  const block = ram.blocks[0]!;
  block.write(5 * 4096, CONTENT);
  const before = residentMib();
  const checksum = (await createRam()).blocks[0]!.checksum(0, 5);
  block.populate();
  expect(residentMib() - before).toBeGreaterThan(60);
  expect([...block.read(5 * 4096, 4096)]).toEqual([...CONTENT]);
  expect(block.checksum(0, 5)).toBe(checksum);
  expect(block.receivedCount()).toBe(0);
});

it('gives memory to the pages that are about to arrive, and to no more', async () => {
  const ram = await createRam();
  const worker = new Worker(new URL('./populate-worker.ts', import.meta.url), {
    workerData: ram.handle(),
  });
  workers.push(worker);
  await new Promise((resolve) => worker.once('message', resolve));
  const before = residentMib();
  receive(ram, 0, 64);
  await vi.waitFor(() => expect(residentMib() - before).toBeGreaterThan(12), { timeout: 10_000 });
  expect(residentMib() - before).toBeLessThan(32);
  // In the other bank.
  receive(ram, 12_000, 64);
  await vi.waitFor(() => expect(residentMib() - before).toBeGreaterThan(24), { timeout: 10_000 });
  expect(ram.blocks[0]!.receivedCount()).toBe(128);
});

it('does not go ahead of the answer to a request', async () => {
  const ram = await createRam();
  receive(ram, 100, 1);
  receive(ram, 200, 64, 0, 'preempt');
  expect(ram.banks[0]!.u32[ARRIVAL_PTR >> 2]).toBe(0);
  expect(ram.blocks[0]!.receivedCount()).toBe(65);
});

it('does not go ahead of a stream with zero pages in it', async () => {
  const ram = await createRam();
  const arrival = (): number => ram.banks[0]!.u32[ARRIVAL_PTR >> 2]!;
  receive(ram, 0, 64, 1);
  expect(arrival()).toBe(0);
  receive(ram, 64, 64);
  expect(arrival()).toBe((ram.blocks[0]!.segments[0]!.ptr >> 12) + 127);
});
