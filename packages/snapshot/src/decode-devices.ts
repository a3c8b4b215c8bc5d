import { WherryError } from '@wherry/bytes';
import {
  decodeWithVmdescPartially,
  type Schema,
  type StateNode,
  type Vmdesc,
  type VmdescDevice,
  type VmdescState,
} from '@wherry/vmstate';
import { decodeOldStyle } from './old-style-state.ts';
import type { DeviceModel, StreamModel } from './stream-model.ts';

/** How {@link decodeDevices} decodes what the stream does not describe. */
export interface DecodeOptions {
  /** What another stream or a dump says of the devices. */
  readonly schema?: Schema | undefined;
}

/** A device section with its state decoded, or why it is not. */
export interface DecodedDevice {
  readonly device: DeviceModel;
  /** Its fields; those before the {@link DecodedDevice.mismatch} if there is one; absent when they could not be decoded. */
  readonly state?: readonly StateNode[];
  /** What told the fields: the stream's own vmdesc, the schema given, or a layout that never changes. */
  readonly by?: 'vmdesc' | 'schema' | 'layout';
  /** Why there is no state; not an error by itself. */
  readonly note?: string;
  /** The section and its description disagree. */
  readonly mismatch?: WherryError;
}

/** All nodes of one stream's devices; a real machine has some 100,000. */
const MAX_NODES = 4_000_000;
/** Nodes of one device, which are in memory together; a TCE table of ppc64 has 262,144. */
const MAX_DEVICE_NODES = 300_000;

/** Decodes each device section by the stream's own vmdesc or a schema, one at a time as it is asked for. */
export function* decodeDevices(
  model: StreamModel,
  options: DecodeOptions = {},
): Generator<DecodedDevice> {
  const byKey = groupByKey(model.vmdesc?.value);
  let nodes = 0;
  for (const device of model.devices) {
    const description = byKey.get(keyOf(device.idstr, device.instanceId))?.shift();
    const { body } = device;
    if (body === undefined) {
      yield { device, note: 'not decoded: its bytes were not kept' };
      continue;
    }
    const known = description?.vmsd_name === undefined ? decodeOldStyle(device, body) : undefined;
    if (known !== undefined) {
      yield { device, state: known, by: 'layout' };
    } else if (description === undefined) {
      yield decodeWithSchema(device, body, model, options.schema);
    } else {
      // A false count costs the sender nothing where an element has no bytes: count before decoding.
      const own = countNodes(description);
      if (own > MAX_DEVICE_NODES || nodes + own > MAX_NODES) {
        const most = own > MAX_DEVICE_NODES ? MAX_DEVICE_NODES : MAX_NODES;
        yield { device, note: `not decoded: the vmdesc describes more than ${most} fields` };
        continue;
      }
      nodes += own;
      const partial = decodeWithVmdescPartially(description, body, device.bodyOffset);
      const { nodes: state, mismatch } = partial;
      yield { device, state, by: 'vmdesc', ...(mismatch === undefined ? {} : { mismatch }) };
    }
  }
}

function decodeWithSchema(
  device: DeviceModel,
  body: Uint8Array,
  model: StreamModel,
  schema: Schema | undefined,
): DecodedDevice {
  if (schema === undefined) return { device, note: noteWithout(model) };
  try {
    return { device, state: schema.decode(device, body, device.bodyOffset), by: 'schema' };
  } catch (error) {
    // The schema is of another machine, or of another state of this one: that breaks no stream.
    if (error instanceof WherryError) return { device, note: `not decoded: ${error.message}` };
    throw error;
  }
}

/** Says why a device section of this stream cannot be decoded. */
export function noteWithout(model: StreamModel): string {
  if (model.vmdesc !== undefined) {
    return model.vmdesc.value === undefined
      ? 'not decoded: the vmdesc was not parsed'
      : 'not decoded: the vmdesc does not describe it';
  }
  if (model.endOffset === undefined) return 'not decoded: the stream breaks off before its vmdesc';
  return model.items.some((item) => item.type === 'command' && item.command.name === 'packaged')
    ? 'not decoded: a postcopy stream has no vmdesc'
    : 'not decoded: the stream has no vmdesc';
}

function groupByKey(vmdesc: Vmdesc | undefined): Map<string, VmdescDevice[]> {
  const groups = new Map<string, VmdescDevice[]>();
  for (const description of vmdesc?.devices ?? []) {
    const key = keyOf(description.name, description.instance_id);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [description]);
    else group.push(description);
  }
  return groups;
}

function keyOf(idstr: string, instanceId: number): string {
  return `${instanceId} ${idstr}`;
}

function countNodes(state: Partial<VmdescState>): number {
  let count = 1;
  for (const { array_len: elements = 1, struct } of state.fields ?? []) {
    count += 1 + elements * (struct === undefined ? 1 : countNodes(struct));
  }
  for (const subsection of state.subsections ?? []) count += countNodes(subsection);
  return count;
}
