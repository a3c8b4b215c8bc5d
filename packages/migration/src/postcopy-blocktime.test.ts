import { GuestRam } from '@wherry/page-engine';
import { expect, it } from 'vitest';
import type { WaitingThread } from './guest-port.ts';
import { PostcopyBlocktime } from './postcopy-blocktime.ts';

/** A guest of two vCPUs on a clock that is set. */
async function guest() {
  const ram = await GuestRam.create([{ name: 'ram', lengthBytes: 65536, hostPageBytes: 4096 }], {
    vcpus: 2,
  });
  const block = ram.block('ram')!;
  let now = 0;
  let waiting: WaitingThread[] = [];
  const clock = { now: () => now, sleep: async () => {}, yield: async () => {} };
  const faults = { wait: async () => {}, take: () => [], repeat: () => {}, waiting: () => waiting };
  const blocktime = new PostcopyBlocktime(clock, faults, 2);
  const isMissing = ({ offsetBytes }: WaitingThread): boolean =>
    !block.isRangeReceived(offsetBytes, 4096);
  return {
    blocktime,
    /** A thread begins to wait for a page. */
    touch(at: number, vcpu: number | undefined, page: number): void {
      now = at;
      waiting = waiting.filter(isMissing);
      waiting.push({ vcpu, block, offsetBytes: page * 4096, lengthBytes: 4096 });
      blocktime.begin();
    },
    /** A page comes. */
    place(at: number, page: number): void {
      now = at;
      const { memory, receivedPtr } = block.segments[0]!;
      new Uint8Array(memory.buffer)[receivedPtr + (page >> 3)]! |= 1 << (page & 7);
      blocktime.end();
    },
  };
}

it('sums up by vCPU, and what all of them waited at once', async () => {
  const { blocktime, touch, place } = await guest();
  touch(10, 0, 0);
  touch(14, 1, 1); // both wait from here
  place(20, 0); // to here
  touch(25, undefined, 3); // a device holds no vCPU up
  touch(30, 0, 1); // both again, for one page
  place(33, 1);
  place(34, 3);
  expect(blocktime.statistics).toEqual({
    'postcopy-blocktime': 6 + 3,
    'postcopy-vcpu-blocktime': [10 + 3, 19],
    'postcopy-latency': Math.floor(((10 + 3 + 19 + 9) * 1e6) / 4),
    'postcopy-latency-dist': expect.any(Array),
    'postcopy-vcpu-latency': [6_500_000, 19_000_000],
    'postcopy-non-vcpu-latency': 9_000_000,
  });
  const dist = blocktime.statistics['postcopy-latency-dist'];
  expect(dist).toHaveLength(24);
  // 3 ms, 9 and 10 ms, 19 ms
  expect([dist[11], dist[13], dist[14]]).toEqual([1, 2, 1]);
});

it('counts a wait once, from its first look to the look that finds it over', async () => {
  const { blocktime, touch, place } = await guest();
  touch(5, 0, 7);
  blocktime.begin();
  blocktime.end();
  place(5.0005, 7);
  blocktime.end();
  const { 'postcopy-latency-dist': dist, ...rest } = blocktime.statistics;
  expect(rest['postcopy-vcpu-blocktime']).toEqual([0, 0]);
  expect(dist[0]).toBe(1);
  expect(rest['postcopy-blocktime']).toBe(0);
});
