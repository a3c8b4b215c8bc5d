import type { StateNode } from '@wherry/vmstate';
import { type DecodeOptions, decodeDevices } from './decode-devices.ts';
import type { LocatedModel, StreamModel } from './stream-model.ts';

/**
 * Says what the byte is that the walk was asked for with `at`, down to a device's field.
 *
 * @returns undefined when none was asked for, or the walk did not reach it
 */
export function locate(model: StreamModel, options: DecodeOptions = {}): LocatedModel | undefined {
  const { located } = model;
  if (located === undefined) return undefined;
  const { offset } = located;
  const isIn = (start: number, length: number): boolean =>
    offset >= start && offset < start + length;
  const index = model.devices.findIndex((device) =>
    isIn(device.bodyOffset, device.bodyLengthBytes),
  );
  if (index < 0) return located;
  const device = model.devices[index]!;
  for (const decoded of decodeDevices(model, options)) {
    if (decoded.device !== device) continue;
    const path = [...located.path];
    let found: StateNode | undefined;
    let nodes = decoded.state ?? [];
    for (;;) {
      const node = nodes.find((child) => isIn(child.offset, child.lengthBytes));
      if (node === undefined) break;
      found = node;
      path.push(node.name);
      nodes = node.children ?? [];
    }
    if (found === undefined) {
      const note = decoded.note ?? decoded.mismatch?.what;
      const byte = `Byte ${offset - device.bodyOffset} of the state of ${device.idstr}`;
      return { ...located, what: note === undefined ? byte : `${byte}; ${note}` };
    }
    const { type, value, lengthBytes } = found;
    const byte = offset - found.offset;
    const what =
      found.children === undefined
        ? `Byte ${byte} of the field ${found.name}, type ${type}`
        : `Byte ${byte} of ${found.name} (${type}), outside its fields: a marker, name or version`;
    return {
      ...{ offset, path, what, range: { offset: found.offset, lengthBytes } },
      ...(value === undefined ? {} : { value }),
    };
  }
  return located;
}
