import { WherryError } from '@wherry/bytes';
import {
  decodeWithVmdesc,
  type StateNode,
  type Vmdesc,
  type VmdescDevice,
  type VmdescState,
} from '@wherry/vmstate';
import type { DeviceModel, StreamModel } from './stream-model.ts';

/** A device section with its state decoded, or why it is not. */
export interface DecodedDevice {
  readonly device: DeviceModel;
  /** Its fields; absent when they could not be decoded. */
  readonly state?: readonly StateNode[];
  /** Why there is no state; not an error by itself. */
  readonly note?: string;
  /** The section and its description disagree, and not by a known fault of the sender. */
  readonly mismatch?: WherryError;
}

/** All nodes of one stream's devices; a real machine has some 100,000. */
const MAX_NODES = 4_000_000;

/** Decodes each device section by the stream's own vmdesc, one at a time as it is asked for. */
export function* decodeDevices(model: StreamModel): Generator<DecodedDevice> {
  const vmdesc = model.vmdesc?.value;
  const byKey = groupByKey(vmdesc);
  let nodes = 0;
  for (const device of model.devices) {
    const description = byKey.get(keyOf(device.idstr, device.instanceId))?.shift();
    if (description === undefined || device.body === undefined) {
      yield { device, note: noteWithout(model) };
      continue;
    }
    // A false count costs the sender nothing where an element has no bytes: count before decoding.
    nodes += countNodes(description);
    if (nodes > MAX_NODES) {
      yield { device, note: `not decoded: the vmdesc describes more than ${MAX_NODES} fields` };
      continue;
    }
    yield decodeDevice(device, device.body, description);
  }
}

function decodeDevice(
  device: DeviceModel,
  body: Uint8Array,
  description: VmdescDevice,
): DecodedDevice {
  try {
    return { device, state: decodeWithVmdesc(description, body, device.bodyOffset) };
  } catch (mismatch) {
    if (!(mismatch instanceof WherryError)) throw mismatch;
    if (hasArrayOfStructs(description)) {
      return {
        device,
        note: `not decoded: ${mismatch.expected ?? ''}, ${mismatch.found ?? ''}; QEMU before 10.0 describes arrays of pointers with holes wrongly`,
      };
    }
    return { device, mismatch };
  }
}

/** Says why a device section of this stream cannot be decoded. */
export function noteWithout(model: StreamModel): string {
  if (model.vmdesc !== undefined) return 'not decoded: the vmdesc does not describe it';
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

function hasArrayOfStructs(state: Partial<VmdescState>): boolean {
  return (
    (state.fields ?? []).some(
      ({ array_len: elements, struct }) =>
        struct !== undefined && (elements !== undefined || hasArrayOfStructs(struct)),
    ) || (state.subsections ?? []).some(hasArrayOfStructs)
  );
}
