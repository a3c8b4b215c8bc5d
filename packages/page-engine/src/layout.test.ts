import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as layout from './layout.ts';

describe('the numbers of both layout files', () => {
  it('are the same', () => {
    const source = readFileSync(new URL('../assembly/layout.ts', import.meta.url), 'utf8');
    const assembly = Object.fromEntries(
      [...source.matchAll(/^export const (\w+): \w+ = (\d+);/gm)].map(([, name, value]) => [
        name,
        Number(value),
      ]),
    );
    expect(Object.keys(assembly).length).toBe(source.match(/^export const/gm)?.length);
    const {
      MAX_RECORD_BYTES: _r,
      INPUT_SLACK_BYTES: _s,
      MAX_XBZRLE_CACHE_BYTES: _m,
      checkedCacheBytes: _c,
      planRam: _p,
      ...typescript
    } = layout;
    expect(assembly).toEqual(typescript);
  });
});

describe('planRam', () => {
  const block = fc.record({
    hostPages: fc.integer({ min: 1, max: 9 }),
    hostPageBytes: fc.constantFrom(4096, 65536, 2 ** 20),
  });

  it('gives every page of every block one place that nothing else uses', () => {
    fc.assert(
      fc.property(
        fc.array(block, { minLength: 1, maxLength: 6 }),
        fc.constantFrom(3 * 2 ** 20, 2 ** 23, 2 ** 26),
        fc.integer({ min: 0, max: 9 }),
        (blocks, maxBankBytes, vcpus) => {
          const specs = blocks.map(({ hostPages, hostPageBytes }, i) => ({
            name: `b${i}`,
            hostPageBytes,
            lengthBytes: hostPages * hostPageBytes,
          }));
          const plan = layout.planRam(specs, {
            maxBankBytes,
            vcpus,
            ioBufferBytes: 65536,
            reservedBytes: 12345,
            xbzrleCacheBytes: 65536,
          });
          const nextPage = specs.map(() => 0);
          plan.banks.forEach((bank, index) => {
            const used: [number, number][] = [
              [0, plan.tablePtr + specs.length * layout.ENTRY_BYTES],
              [plan.runsPtr, plan.runsPtr + layout.MAX_RUNS * layout.RUN_BYTES],
              [plan.edgesPtr, plan.edgesPtr + layout.EDGES_BYTES],
              [bank.cachePtr, bank.cachePtr + 65536 + 16 * layout.CACHE_TAG_BYTES],
              ...bank.inputPtrs.map((ptr): [number, number] => [ptr, ptr + plan.inputBytes]),
              ...bank.sendPtrs.map((ptr): [number, number] => [ptr, ptr + 65536]),
            ];
            if (index === 0) used.push([bank.reservedPtr, bank.reservedPtr + 12345]);
            for (const segment of bank.segments) {
              const { hostPageBytes } = specs[segment.block]!;
              expect(segment.firstPage).toBe(nextPage[segment.block]);
              nextPage[segment.block]! += segment.pages;
              expect((segment.pages * 4096) % hostPageBytes).toBe(0);
              expect(segment.ptr % hostPageBytes).toBe(0);
              used.push([segment.ptr, segment.ptr + segment.pages * 4096]);
              const words = Math.ceil(segment.pages / 64) * 8;
              for (const name of ['dirtyPtr', 'owedPtr', 'receivedPtr', 'writtenPtr'] as const) {
                expect(segment[name] % 64).toBe(0);
                used.push([segment[name], segment[name] + words]);
              }
            }
            used.sort(([a], [b]) => a - b);
            used.forEach(([start], i) => {
              if (i > 0) expect(start).toBeGreaterThanOrEqual(used[i - 1]![1]);
            });
            expect(bank.wasmPages * 65536).toBeGreaterThanOrEqual(used.at(-1)![1]);
            expect(bank.wasmPages * 65536).toBeLessThanOrEqual(maxBankBytes + 65536);
          });
          expect(nextPage).toEqual(specs.map(({ lengthBytes }) => lengthBytes / 4096));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('places huge guests in banks below 4 GiB', () => {
    const plan = layout.planRam(
      [
        { name: 'pc.ram', lengthBytes: 9 * 2 ** 30, hostPageBytes: 4096 },
        { name: 'huge', lengthBytes: 7 * 2 ** 30, hostPageBytes: 2 ** 30 },
      ],
      {},
    );
    expect(plan.banks.length).toBe(5);
    for (const { wasmPages } of plan.banks) expect(wasmPages).toBeLessThanOrEqual(65535);
  });

  const good = { name: 'ram', lengthBytes: 8192, hostPageBytes: 4096 };
  it.each([
    ['BAD_BLOCK', [], {}],
    ['BAD_BLOCK', [{ ...good, name: '' }], {}],
    ['BAD_BLOCK', [{ ...good, name: 'é'.repeat(128) }], {}],
    ['BAD_BLOCK', [good, good], {}],
    ['BAD_BLOCK', [{ ...good, lengthBytes: 0 }], {}],
    ['BAD_BLOCK', [{ ...good, lengthBytes: 4097 }], {}],
    ['BAD_BLOCK', [{ ...good, lengthBytes: 2 ** 43 }], {}],
    ['BAD_BLOCK', [{ ...good, hostPageBytes: 2048 }], {}],
    ['BAD_BLOCK', [{ ...good, hostPageBytes: 12288, lengthBytes: 12288 }], {}],
    ['BAD_OPTION', [good], { vcpus: -1 }],
    ['BAD_OPTION', [good], { ioBufferBytes: 4096 }],
    ['BAD_OPTION', [good], { maxBankBytes: 2 ** 32 }],
    ['BAD_OPTION', [good], { xbzrleCacheBytes: 12288 }],
    ['BAD_OPTION', [good], { xbzrleCacheBytes: 2048 }],
    ['BAD_OPTION', [good], { xbzrleCacheBytes: 2 ** 31 }],
    [
      'BANK_TOO_SMALL',
      [{ ...good, lengthBytes: 2 ** 21, hostPageBytes: 2 ** 21 }],
      { maxBankBytes: 2 ** 20, ioBufferBytes: 8192 },
    ],
  ])('refuses with %s (%#)', (code, blocks, options) => {
    expect(() => layout.planRam(blocks, options)).toThrow(expect.objectContaining({ code }));
  });
});
