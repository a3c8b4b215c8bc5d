import { VmstateError } from '../vmstate-error.ts';
import { implausible, leafOf } from './leaf.ts';
import { isListType, type StateNode, type StateValue } from './state-node.ts';
import { findState, resolvePath } from './state-path.ts';

/**
 * Sets one value of decoded state; the given nodes are not changed.
 *
 * @param path as for {@link findState}
 * @param value of the node's own type, or bytes for it as they are on the wire
 * @returns the whole state
 * @throws VmstateError `PATH_UNKNOWN`, `VALUE_INVALID`
 */
export function setState(
  nodes: readonly StateNode[],
  path: string,
  value: StateValue,
): readonly StateNode[] {
  return replaced(nodes, resolvePath(nodes, path), (siblings, i) => {
    return siblings.with(i, { ...siblings[i]!, value: checked(siblings[i]!, value, path) });
  });
}

function checked(node: StateNode, value: StateValue, path: string): StateValue {
  const { type, lengthBytes, children } = node;
  const leaf = leafOf(type, lengthBytes);
  if (children === undefined && value instanceof Uint8Array && value.length === lengthBytes) {
    if (implausible(type, value) === undefined) return value;
  }
  const converted =
    typeof node.value === 'bigint' && Number.isInteger(value) ? BigInt(Number(value)) : value;
  if (children === undefined && leaf?.accepts(converted)) return converted;
  const bytes = `${lengthBytes} bytes`;
  throw new VmstateError('VALUE_INVALID', 'This value cannot stand there', {
    expected:
      children === undefined
        ? `${leaf === undefined ? '' : `${leaf.range}, or `}${bytes} of type ${type}`
        : `the path of one value inside the ${type}`,
    found: value instanceof Uint8Array ? `${value.length} bytes` : `${value}`,
    path: [path],
  });
}

/**
 * Drops a subsection from decoded state.
 *
 * @returns the whole state, with the offsets that it then has
 * @throws VmstateError `PATH_UNKNOWN`, also when the path leads to something else
 */
export function dropSubsection(nodes: readonly StateNode[], path: string): readonly StateNode[] {
  return replaced(nodes, resolvePath(nodes, path), (siblings, i) => {
    if (siblings[i]!.type !== 'subsection') {
      throw new VmstateError('PATH_UNKNOWN', 'This is no subsection', {
        expected: namesOfSubsections(siblings),
        found: `${siblings[i]!.name} of type ${siblings[i]!.type}`,
        path: [path],
      });
    }
    return siblings.toSpliced(i, 1);
  });
}

/**
 * Adds a subsection to decoded state, behind those that are there.
 *
 * @param parent path of the group that it belongs to; empty for the device itself
 * @param subsection from another section's state, or made by hand; its offsets do not matter
 * @returns the whole state, with the offsets that it then has
 * @throws VmstateError `PATH_UNKNOWN`, `VALUE_INVALID` when it is no subsection, or is there already
 */
export function addSubsection(
  nodes: readonly StateNode[],
  parent: string,
  subsection: StateNode,
): readonly StateNode[] {
  const siblings = parent === '' ? nodes : findState(nodes, parent).children;
  const isThere = siblings?.some(({ name }) => name === subsection.name) ?? false;
  const canHave = parent === '' || GROUPS.has(findState(nodes, parent).type);
  if (siblings === undefined || !canHave || isThere || subsection.type !== 'subsection') {
    throw new VmstateError('VALUE_INVALID', 'This subsection cannot be added there', {
      expected: canHave
        ? `a subsection other than ${namesOfSubsections(siblings ?? [])}`
        : 'a group of fields',
      found: `${subsection.name} of type ${subsection.type}`,
      path: parent === '' ? [] : [parent],
    });
  }
  const base = nodes[0]?.offset ?? 0;
  if (parent === '') return placedFrom(base, [...nodes, subsection]);
  return replaced(nodes, resolvePath(nodes, parent), (groups, i) => {
    return groups.with(i, { ...groups[i]!, children: [...siblings, subsection] });
  });
}

const GROUPS: ReadonlySet<string> = new Set(['struct', 'tmp', 'vstruct', 'subsection']);

function namesOfSubsections(siblings: readonly StateNode[]): string {
  const names = siblings.flatMap(({ name, type }) => (type === 'subsection' ? [name] : []));
  return names.join(', ') || 'none';
}

function replaced(
  nodes: readonly StateNode[],
  indices: readonly number[],
  change: (siblings: readonly StateNode[], i: number) => readonly StateNode[],
): readonly StateNode[] {
  const walk = (siblings: readonly StateNode[], depth: number): readonly StateNode[] => {
    const i = indices[depth]!;
    if (depth === indices.length - 1) return change(siblings, i);
    const children = walk(siblings[i]!.children!, depth + 1);
    return siblings.with(i, { ...siblings[i]!, children });
  };
  return placedFrom(nodes[0]?.offset ?? 0, walk(nodes, 0));
}

function placedFrom(offset: number, nodes: readonly StateNode[]): StateNode[] {
  let at = offset;
  return nodes.map((node) => {
    const there = placed(node, at);
    at += there.lengthBytes;
    return there;
  });
}

/** Gives a node as it is at another offset, or with other children. */
function placed(node: StateNode, offset: number): StateNode {
  const { children, type } = node;
  if (children === undefined) return node.offset === offset ? node : { ...node, offset };
  const isList = isListType(type);
  let at = offset;
  if (type === 'subsection') at += 6 + new TextEncoder().encode(node.name).length;
  if (type === 'gtree') at += 4;
  const moved: StateNode[] = [];
  for (const child of children) {
    if (isList) at++;
    const there = placed(child, at);
    moved.push(there);
    at += there.lengthBytes;
  }
  if (isList) at++;
  const isSame = node.offset === offset && moved.every((child, i) => child === children[i]);
  return isSame && node.lengthBytes === at - offset
    ? node
    : { ...node, offset, lengthBytes: at - offset, children: moved };
}
