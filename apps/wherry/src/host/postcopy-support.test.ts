import { existsSync } from 'node:fs';
import { GuestRam } from '@wherry/page-engine';
import { expect, it } from 'vitest';
import { checkPostcopySupported, type HostFeature, unservedBlocks } from './postcopy-support.ts';

async function check(
  hostPageBytes: number,
  lacks: readonly HostFeature[],
  shared: readonly string[] = [],
): Promise<void> {
  const ram = await GuestRam.create([{ name: 'ram', lengthBytes: 65_536, hostPageBytes }]);
  checkPostcopySupported(ram, { lacks: new Set(lacks), unservedBlocks: new Set(shared) });
}

it.each<[number, HostFeature[], string[], RegExp]>([
  [4096, ['userfaultfd'], [], /^Postcopy is not supported: Userfaultfd not available/],
  [65_536, ['userfaultfd-hugetlbfs'], [], /does not support huge pages$/],
  [4096, ['munlockall'], [], /munlockall\(\) failed/],
  [4096, [], ['ram'], /RAM block ram/],
  [4096, ['munlockall'], ['ram'], /RAM block ram/], // what QEMU looks at first
  [65_536, ['munlockall', 'userfaultfd-hugetlbfs'], ['ram'], /huge pages/],
])('pages of %i bytes, without %j, shared %j', async (bytes, lacks, shared, why) => {
  await expect(check(bytes, lacks, shared)).rejects.toThrow(
    expect.objectContaining({
      code: 'CAPABILITY_UNSUPPORTED',
      message: expect.stringMatching(why),
    }),
  );
});

it('asks for nothing that the guest does not need', async () => {
  await check(4096, ['userfaultfd-hugetlbfs']);
  await check(65_536, []);
});

it('takes files outside of tmpfs for those that cannot be served', () => {
  const block = { name: 'ram', share: true };
  expect([...unservedBlocks([{ name: 'own', share: false }, block])]).toEqual(['ram']);
  const here = { ...block, memPath: '/proc/ram' };
  expect([...unservedBlocks([here, { ...block, memPath: '/no/such/folder/ram' }])]).toEqual([
    'ram',
  ]);
});

const why = existsSync('/dev/shm') ? '' : ' (skipped: no /dev/shm)';
it.skipIf(why !== '')(`takes no file in tmpfs for one of those${why}`, () => {
  expect([...unservedBlocks([{ name: 'ram', share: true, memPath: '/dev/shm/ram' }])]).toEqual([]);
});
