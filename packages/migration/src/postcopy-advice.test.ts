import { GuestRam } from '@wherry/page-engine';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkPostcopyAdvice, postcopyAdvice } from './postcopy-advice.ts';

const SIZES = [4096, 16_384, 65_536, 2 ** 20];
const ramOf = (sizes: readonly number[]): Promise<GuestRam> =>
  GuestRam.create(
    sizes.map((bytes, i) => ({ name: `ram${i}`, lengthBytes: 2 ** 20, hostPageBytes: bytes })),
    { ioBufferBytes: 8192, ioBuffers: 1 },
  );
const sizes = fc.array(fc.constantFrom(...SIZES), { minLength: 1, maxLength: 4 });

describe('the advice', () => {
  it('holds every page size of the guest and no other, and is taken by its like alone', async () => {
    await fc.assert(
      fc.asyncProperty(sizes, sizes, async (a, b) => {
        const advice = postcopyAdvice(await ramOf(a));
        const has = SIZES.filter((size) => (advice.pageSizesSummary & BigInt(size)) !== 0n);
        expect(has).toEqual(SIZES.filter((size) => a.includes(size)));
        const other = await ramOf(b);
        const check = (): void => checkPostcopyAdvice(advice, other, true, 0x17);
        const [s, d] = [a, b].map((list) =>
          SIZES.filter((size) => list.includes(size)).reduce((sum, size) => sum + size, 0),
        );
        if (s === d) expect(check).not.toThrow();
        else {
          expect(check).toThrow(
            `Postcopy needs matching RAM page sizes (s=${s!.toString(16)} d=${d!.toString(16)}), at offset 0x17`,
          );
        }
      }),
      { numRuns: 20 },
    );
  });

  it('is refused where the target pages differ, with both sizes', async () => {
    const ram = await ramOf([4096]);
    const advice = { ...postcopyAdvice(ram), targetPageBytes: 8192n };
    expect(() => checkPostcopyAdvice(advice, ram, true, 0)).toThrow(
      expect.objectContaining({
        code: 'PAGE_SIZE_MISMATCH',
        message: expect.stringContaining('matching target page sizes (s=8192 d=4096)'),
      }),
    );
  });
});
