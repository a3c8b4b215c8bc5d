import type { WitnessReport } from '@wherry/machine';

/** Tells people which page was lost and what is there: "vCPU 0, pc.ram page 12: write 5 is lost, write 3 is there". */
export function describeViolation(violation: WitnessReport['firstViolations'][number]): string {
  const { vcpu, block, page, expectedGeneration, found, foundGeneration } = violation;
  const expected =
    expectedGeneration === 0 ? 'it was never written' : `write ${expectedGeneration} is lost`;
  const there = {
    stale: `write ${foundGeneration} is there`,
    zero: 'it is zero',
    other: 'something else is there',
  }[found];
  return `vCPU ${vcpu}, ${block} page ${page}: ${expected}, ${there}`;
}
