import type { StateNode } from '@wherry/vmstate';
import { formatValue, isZero } from './report-value.ts';

const SHOWN_ELEMENTS = 16;
const SHOWN_ZERO_NAMES = 12;

/** Writes decoded device state as an indented tree: what is set first, then the names of what is zero. */
export function* formatTree(nodes: readonly StateNode[], indent: string): Generator<string> {
  const zero: StateNode[] = [];
  for (const node of nodes) {
    if (isZero(node)) zero.push(node);
    else yield* formatNode(node, indent);
  }
  if (zero.length === 0) return;
  const names = zero.slice(0, SHOWN_ZERO_NAMES).map((node) => node.name + countOf(node));
  if (zero.length > names.length) names.push(`${zero.length - names.length} more`);
  yield `${indent}zero: ${names.join(', ')}`;
}

function* formatNode(node: StateNode, indent: string): Generator<string> {
  const { children } = node;
  if (children === undefined) {
    yield `${indent}${node.name} = ${formatValue(node)}`;
  } else if (node.type === 'array' && children.every((child) => child.children === undefined)) {
    yield `${indent}${node.name}${countOf(node)} = ${formatElements(node, children)}`;
  } else {
    const kind = node.type === 'subsection' ? 'subsection ' : '';
    yield `${indent}${kind}${node.name}${countOf(node)}`;
    if (node.type === 'array') yield* formatStructs(children, `${indent}  `);
    else yield* formatTree(children, `${indent}  `);
  }
}

/** Large arrays of structs, such as queues, are mostly untouched. */
function* formatStructs(elements: readonly StateNode[], indent: string): Generator<string> {
  let zero = 0;
  for (const element of elements) {
    if (isZero(element)) zero++;
    else yield* formatNode({ ...element, name: `[${element.name}]` }, indent);
  }
  if (zero > 0) yield `${indent}zero: ${zero} element${zero === 1 ? '' : 's'}`;
}

function countOf(node: StateNode): string {
  return node.type === 'array' ? `[${node.children?.length ?? 0}]` : '';
}

function formatElements(array: StateNode, elements: readonly StateNode[]): string {
  // What an element is, its array's name tells.
  const format = (element: StateNode): string => formatValue({ ...element, name: array.name });
  if (elements.length <= SHOWN_ELEMENTS) return elements.map(format).join(', ');
  const used = elements.filter((element) => !isZero(element));
  const shown = used
    .slice(0, SHOWN_ELEMENTS)
    .map((element) => `[${element.name}] ${format(element)}`);
  if (used.length > shown.length) shown.push(`… ${used.length - shown.length} more that are set`);
  if (used.length < elements.length) shown.push(`${elements.length - used.length} zero`);
  return shown.join(', ');
}
