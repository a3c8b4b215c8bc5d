import { ByteWriter } from '@wherry/bytes';
import { leafOf } from './leaf.ts';
import { isListType, type StateNode, SUBSECTION } from './state-node.ts';

/** Writes decoded state again: the bytes that it was decoded from, or those of its edited values. */
export function encodeState(nodes: readonly StateNode[]): Uint8Array<ArrayBuffer> {
  const writer = new ByteWriter();
  for (const node of nodes) writeNode(writer, node);
  return writer.finish();
}

function writeNode(writer: ByteWriter, node: StateNode): void {
  const { type, value, children } = node;
  if (children === undefined) {
    if (value instanceof Uint8Array) writer.raw(value);
    else if (value !== undefined) leafOf(type, node.lengthBytes)?.write(writer, value);
    return;
  }
  if (type === 'subsection') {
    writer
      .u8(SUBSECTION)
      .counted(node.name)
      .u32(node.description?.version ?? 0);
  }
  if (type === 'gtree') writer.u32(children.length);
  const isList = isListType(type);
  for (const child of children) {
    if (isList) writer.u8(1);
    writeNode(writer, child);
  }
  if (isList) writer.u8(0);
}
