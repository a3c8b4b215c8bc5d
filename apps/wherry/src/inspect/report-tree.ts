import type { StateNode } from '@wherry/vmstate';

const SHOWN_BYTES = 16;
const SHOWN_ELEMENTS = 16;

/** Writes decoded device state as an indented tree; what is all zero is folded into one line. */
export function* formatTree(nodes: readonly StateNode[], indent: string): Generator<string> {
  for (const node of nodes) {
    const { children } = node;
    if (children === undefined) {
      yield `${indent}${node.name} = ${formatLeaf(node)}`;
    } else if (node.type !== 'subsection' && children.length > 0 && isZero(node)) {
      yield `${indent}${node.name}${countOf(node)}: all zero (${node.lengthBytes} bytes)`;
    } else if (node.type === 'array' && children.every((child) => child.children === undefined)) {
      yield `${indent}${node.name}${countOf(node)} = ${formatElements(children)}`;
    } else {
      const kind = node.type === 'subsection' ? 'subsection ' : '';
      yield `${indent}${kind}${node.name}${countOf(node)}`;
      yield* formatChildren(node, children, `${indent}  `);
    }
  }
}

function* formatChildren(
  node: StateNode,
  children: readonly StateNode[],
  indent: string,
): Generator<string> {
  if (node.type !== 'array') {
    yield* formatTree(children, indent);
    return;
  }
  // Large arrays of structs, such as queues, are mostly untouched.
  const used = children.filter((child) => !isZero(child));
  for (const child of used) yield* formatTree([{ ...child, name: `[${child.name}]` }], indent);
  const folded = children.length - used.length;
  if (folded > 0) yield `${indent}${folded} further elements: all zero`;
}

function countOf(node: StateNode): string {
  return node.type === 'array' ? `[${node.children?.length ?? 0}]` : '';
}

function formatElements(elements: readonly StateNode[]): string {
  if (elements.length <= SHOWN_ELEMENTS) {
    return elements.map((element) => formatLeaf(element)).join(', ');
  }
  const used = elements.filter((element) => !isZero(element));
  const shown = used.slice(0, SHOWN_ELEMENTS).map(({ name, ...rest }) => {
    return `[${name}] ${formatLeaf({ name, ...rest })}`;
  });
  if (used.length > shown.length) shown.push(`… ${used.length - shown.length} more that are set`);
  if (used.length < elements.length) shown.push(`${elements.length - used.length} zero`);
  return shown.join(', ');
}

function formatLeaf(node: StateNode): string {
  const { value, type } = node;
  if (value === undefined) return '';
  if (value instanceof Uint8Array) return formatBytes(value);
  if (typeof value === 'boolean') return `${value}`;
  if (type === 'timer') return BigInt(value) === -1n ? 'not armed' : `${value} ns`;
  const magnitude = value < 0 ? -value : value;
  return magnitude < 10
    ? `${value}`
    : `${value} (${value < 0 ? '-' : ''}0x${magnitude.toString(16)})`;
}

function formatBytes(bytes: Uint8Array): string {
  const { length } = bytes;
  if (length === 0) return 'no bytes';
  if (length > 1 && bytes.every((byte) => byte === 0)) return `zero × ${length}`;
  const hex = [...bytes.subarray(0, SHOWN_BYTES)].map((byte) => byte.toString(16).padStart(2, '0'));
  return length <= SHOWN_BYTES ? hex.join(' ') : `${hex.join(' ')} … (${length} bytes)`;
}

function isZero(node: StateNode): boolean {
  const { value, children } = node;
  if (children !== undefined) {
    return node.type !== 'subsection' && children.every((child) => isZero(child));
  }
  if (value instanceof Uint8Array) return value.every((byte) => byte === 0);
  return value === undefined || value === false || value === 0 || value === 0n;
}
