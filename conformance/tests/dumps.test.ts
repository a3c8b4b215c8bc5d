import { describe, expect, test } from 'vitest';
import { loadDump } from '../fixtures.ts';

describe('the recorded dumps', () => {
  test.each([
    ['5.2', 208],
    ['7.2', 213],
    ['10.0', 225],
    ['11.1', 236],
  ])('QEMU %s describes %i types of devices', (release, types) => {
    const { vmschkmachine, ...described } = JSON.parse(loadDump(release)) as Record<string, object>;
    expect(vmschkmachine).toEqual({ Name: 'pc-q35-5.2' });
    expect(Object.keys(described)).toHaveLength(types);
  });
});
