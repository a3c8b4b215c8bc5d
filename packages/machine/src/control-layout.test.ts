import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import * as layout from './control-layout.ts';
import { DRIVEN_QUEUES, QUEUE_PAGES } from './devices/virtio-driver.ts';
import { WORKLOADS } from './vcpu-spec.ts';

test('both sides of the control block agree', async () => {
  const source = await readFile(new URL('../assembly/layout.ts', import.meta.url), 'utf8');
  const assembly = Object.fromEntries(
    [...source.matchAll(/export const (\w+): \w+ = (\d+);/g)].map(([, name, value]) => [
      name,
      Number(value),
    ]),
  );
  const { PAGES_PER_SECOND, FILL_SHARE, THROTTLE, ...shared } = layout;
  expect(assembly).toMatchObject(shared);
  expect(assembly).toMatchObject({
    WORKLOAD_SEQUENTIAL: WORKLOADS.indexOf('sequential'),
    WORKLOAD_RANDOM: WORKLOADS.indexOf('random'),
    WORKLOAD_HOTSET: WORKLOADS.indexOf('hotset'),
    RING_QUEUES: DRIVEN_QUEUES,
    QUEUE_PAGES,
  });
  // The fields of one side lie where the other side has none.
  const { RECORDS, RECORD_LIMIT, RECORD_BYTES, RANGES, RING_PAGE } = layout;
  expect(PAGES_PER_SECOND).toBeGreaterThanOrEqual(RING_PAGE + 4);
  expect(PAGES_PER_SECOND + 4).toBeLessThanOrEqual(RECORDS);
  expect(FILL_SHARE).toBeGreaterThanOrEqual(RECORDS + RECORD_LIMIT * RECORD_BYTES);
  expect(THROTTLE).toBeGreaterThanOrEqual(FILL_SHARE + 8);
  expect(THROTTLE + 4).toBeLessThanOrEqual(RANGES);
  expect(layout.CONTROL_BYTES).toBe(RANGES + layout.RANGE_LIMIT * layout.RANGE_BYTES);
});
