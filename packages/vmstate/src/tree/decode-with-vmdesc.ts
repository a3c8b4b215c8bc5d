import type { VmdescDevice } from '../vmdesc.ts';
import { VmstateError } from '../vmstate-error.ts';
import { findReading } from './chart.ts';
import { Cursor } from './cursor.ts';
import { GroupLayout, LeafLayout } from './layout.ts';
import { VmdescCompiler } from './layout-of-vmdesc.ts';
import type { StateNode } from './state-node.ts';

/** A section's state as far as it agrees with its description. */
export interface PartialState {
  /** All of it, or what precedes the mismatch: groups that it cuts short hold what was read of them. */
  readonly nodes: readonly StateNode[];
  readonly mismatch?: VmstateError;
}

/**
 * Decodes the body of a device section by its entry in the stream's vmdesc.
 *
 * @param bytes the section's body, header and footer excluded; leaf values are views into it
 * @param offset absolute offset of the body, for the nodes and messages
 * @returns one node per field, subsections last
 * @throws VmstateError `VMDESC_MISMATCH` when sizes do not add up to the body, or a subsection is not where it should be
 */
export function decodeWithVmdesc(
  device: VmdescDevice,
  bytes: Uint8Array,
  offset = 0,
): readonly StateNode[] {
  const { nodes, mismatch } = decodeWithVmdescPartially(device, bytes, offset);
  if (mismatch !== undefined) throw mismatch;
  return nodes;
}

/** Decodes as {@link decodeWithVmdesc} does, and gives what precedes a mismatch beside the error. */
export function decodeWithVmdescPartially(
  device: VmdescDevice,
  bytes: Uint8Array,
  offset = 0,
): PartialState {
  const layout = layoutOf(device);
  const cursor = new Cursor(bytes, offset);
  const nodes = layout.readInside(cursor);
  if (cursor.mismatch === undefined && cursor.left > 0) {
    cursor.fail(`${cursor.at} bytes by the description`, `${bytes.length} bytes before the footer`);
  }
  const { mismatch } = cursor;
  if (mismatch === undefined) return { nodes };
  const compiler = new VmdescCompiler({ lengths: 'pointers' });
  const layoutWithHoles = compiler.group('section', device);
  const reading = compiler.hasChoice ? findReading(layoutWithHoles, bytes, offset) : 'none';
  if (typeof reading !== 'string') return { nodes: reading };
  const error = new VmstateError('VMDESC_MISMATCH', 'A section differs from its description', {
    expected: mismatch.expected,
    found: mismatch.found,
    offset: offset + mismatch.at,
    path: [device.name, ...mismatch.path],
    likely:
      reading === 'none'
        ? 'The section is damaged, or its sender describes it wrongly'
        : 'QEMU before 10.0 describes arrays of pointers with holes wrongly, and these bytes can be read in more than one way',
  });
  return { nodes, mismatch: error };
}

const layouts = new WeakMap<VmdescDevice, GroupLayout>();

function layoutOf(device: VmdescDevice): GroupLayout {
  let layout = layouts.get(device);
  if (layout === undefined) {
    layout =
      device.vmsd_name === undefined && device.size !== undefined
        ? opaqueLayout(device.size)
        : new VmdescCompiler({ lengths: 'none' }).group('section', device);
    layouts.set(device, layout);
  }
  return layout;
}

/** Makes the layout of an old-style section, of which only the size is known. */
function opaqueLayout(size: number): GroupLayout {
  const data = { name: 'data', layout: new LeafLayout('buffer', size) };
  return new GroupLayout('section', undefined, [data], { required: [], get: () => undefined });
}
