import { expect, test } from 'vitest';
import { describeViolation } from './describe-violation.ts';

const page = { vcpu: 1, block: 'pc.ram', page: 12 };

test.each([
  [
    { ...page, expectedGeneration: 5, found: 'stale', foundGeneration: 3 } as const,
    'write 5 is lost, write 3 is there',
  ],
  [{ ...page, expectedGeneration: 5, found: 'zero' } as const, 'write 5 is lost, it is zero'],
  [
    { ...page, expectedGeneration: 0, found: 'other' } as const,
    'it was never written, something else is there',
  ],
])('a violation is told with its page: %j', (violation, text) => {
  expect(describeViolation(violation)).toBe(`vCPU 1, pc.ram page 12: ${text}`);
});
