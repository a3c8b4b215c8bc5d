import { freemem } from 'node:os';
import { afterEach, describe, expect, test } from 'vitest';
import { expectGuestRuns, Lab } from './processes.ts';

const GIB = 2 ** 30;
/** 12 GiB in blocks that span several WebAssembly memories of 4 GiB; a fiftieth of it holds data. */
const GUEST = [
  ...['--ram', 'pc.ram=9G', '--ram', 'hugemem=3G,page=2M'],
  ...['--vcpu', 'random,rate=2000', '--fill', '0.02'],
];

const lab = new Lab();
afterEach(() => lab.close());

const room = freemem() >= 2 * GIB;
const why = room ? '' : ' (skipped: less than 2 GiB of memory is free)';

describe.skipIf(!room)(`a guest of 12 GiB${why}`, () => {
  test.each([
    ['precopy', []],
    ['postcopy', ['--postcopy', '--max-bandwidth', '256M']],
  ])('moves by %s', { timeout: 60_000 }, async (mode, options) => {
    const [source, destination] = await lab.pair(GUEST);
    const { code, stdout, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json', ...options],
    ]);
    expect([code, stderr]).toEqual([0, '']);
    const report = JSON.parse(stdout);
    const { ram } = report.source;
    expect(ram.total).toBe(12 * GIB);
    expect(ram.duplicate + ram.normal).toBeGreaterThanOrEqual((12 * GIB) / 4096);
    expect(ram['postcopy-bytes'] > 0).toBe(mode === 'postcopy');
    expect(report.witness.violations).toBe(0);
    expect(report.comparison.equal).toBe(true);
    await expectGuestRuns(destination);
  });
});
