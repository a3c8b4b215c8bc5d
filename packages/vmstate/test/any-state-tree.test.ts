import { ByteWriter } from '@wherry/bytes';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import {
  decodeWithVmdescPartially,
  describeState,
  encodeState,
  formatVmdesc,
  parseVmdesc,
  type StateNode,
  type StateValue,
  VMDESC_STYLES,
} from '../src/index.ts';
import { described } from './arbitrary-description.ts';

/** Whether a state has an array with nulls: no release describes each of these as it is. */
function hasHoles(value: unknown): boolean {
  if (Array.isArray(value)) return value.includes(null) || value.some(hasHoles);
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return false;
  return Object.values(value).some(hasHoles);
}

/** Gives the values and where they stand; an array of pointers may be one node or several. */
function valuesOf(nodes: readonly StateNode[]): [number, StateValue | undefined][] {
  return nodes.flatMap(({ offset, value, children }): [number, StateValue | undefined][] =>
    children === undefined ? [[offset, value]] : valuesOf(children),
  );
}

it.each(VMDESC_STYLES)(
  'any state is decoded by the vmdesc that %s would write, encoded and described again',
  (style) => {
    let decoded = 0;
    const runs = 500;
    fc.assert(
      fc.property(described, ({ description, state }) => {
        const writer = new ByteWriter();
        const written = description.save(writer, state, { style });
        const body = writer.finish();
        const devices = [{ name: 'd', instance_id: 0, ...written }];
        const entry = parseVmdesc(formatVmdesc({ page_size: 4096, devices }, style)).devices[0]!;
        const { nodes, mismatch } = decodeWithVmdescPartially(entry, body);
        if (mismatch !== undefined) {
          // Elements with a marker each are of 11.1; other styles have no name for theirs.
          const isForeign = style !== '11.1' && mismatch.found === 'byte 49';
          expect(hasHoles(state) || isForeign).toBe(true);
          return;
        }
        decoded++;
        expect(encodeState(nodes)).toEqual(body);
        const again = decodeWithVmdescPartially(describeState(entry, nodes), body);
        expect(again.mismatch).toBeUndefined();
        expect(valuesOf(again.nodes)).toEqual(valuesOf(nodes));
      }),
      { numRuns: runs },
    );
    expect(decoded).toBeGreaterThan(runs * 0.75);
  },
);
