import { afterEach, expect, test } from 'vitest';
import { expectGuestRuns, Lab, SMALL_GUEST } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

/** Rewrites a twentieth of each page, of more pages a second than the link takes whole. */
const GUEST = [...SMALL_GUEST, '--vcpu', 'random,rate=10000,changes=0.05', '--fill', '1'];
const SLOW = ['--max-bandwidth', '24M', '--downtime-limit', '400'];

async function migrate(options: readonly string[]) {
  const [source, destination] = await lab.pair(GUEST);
  const { code, stdout, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...SLOW, ...options],
  ]);
  expect([code, stderr]).toEqual([0, '']);
  await expectGuestRuns(destination);
  return stdout;
}

test('a guest that outruns the link arrives when only what changed is sent', async () => {
  const stdout = await migrate(['--xbzrle', '--xbzrle-cache-size', '32M', '--json']);
  const { source, witness, comparison } = JSON.parse(stdout);
  const { 'xbzrle-cache': xbzrle, ram } = source;
  expect(xbzrle['cache-size']).toBe(32 * 2 ** 20);
  expect(xbzrle.pages).toBeGreaterThan(1000);
  expect(xbzrle.overflow).toBe(0);
  // A page with 192 bytes changed costs a few bytes more than these.
  expect(xbzrle.bytes / xbzrle.pages).toBeLessThan(256);
  expect(ram['postcopy-bytes']).toBe(0);
  expect(witness.violations).toBe(0);
  expect(comparison.equal).toBe(true);
});

test('the table tells what it found', async () => {
  const stdout = await migrate(['--xbzrle']);
  expect(stdout).toMatch(/│ XBZRLE +│ [\d ]+ pages found in the cache, sent in/);
});

test('a cache that is no power of two is refused in QEMU’s words', async () => {
  const [source, destination] = await lab.pair(GUEST);
  const { code, stderr } = await lab.run([
    ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0'],
    ...['--xbzrle', '--xbzrle-cache-size', '3M'],
  ]);
  expect(code).toBe(2);
  expect(stderr).toContain(
    "Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size",
  );
  await expectGuestRuns(source);
});
