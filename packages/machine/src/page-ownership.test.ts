import { GuestRam } from '@wherry/page-engine';
import { expect, test } from 'vitest';
import { shareOfPages } from './page-ownership.ts';

const blocks = [
  { name: 'pc.ram', lengthBytes: 2 ** 20, hostPageBytes: 4096 },
  { name: 'small', lengthBytes: 8192, hostPageBytes: 4096 },
];

test('vCPUs share every page but low memory, and no page twice', async () => {
  const ram = await GuestRam.create(blocks);
  const shares = [0, 1, 2].map((index) => shareOfPages(ram, index, 3, 0.1));
  const owned = shares.flat().map(({ block, firstPage, pages, hotPages }) => ({
    block: block.name,
    from: firstPage,
    to: firstPage + pages,
    hotPages,
  }));
  expect(owned).toEqual([
    { block: 'pc.ram', from: 32, to: 106, hotPages: 8 },
    { block: 'pc.ram', from: 106, to: 181, hotPages: 8 },
    { block: 'small', from: 0, to: 1, hotPages: 1 },
    { block: 'pc.ram', from: 181, to: 256, hotPages: 8 },
    { block: 'small', from: 1, to: 2, hotPages: 1 },
  ]);
});

test('a main memory too small for virtqueues belongs to workloads alone', async () => {
  const ram = await GuestRam.create([blocks[1]!]);
  expect(shareOfPages(ram, 0, 1, 0)).toMatchObject([{ firstPage: 0, pages: 2, hotPages: 0 }]);
});
