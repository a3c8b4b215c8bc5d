import type { VmdescDevice, VmdescField, VmdescState } from '../vmdesc.ts';
import type { StateNode } from './state-node.ts';

/**
 * Describes decoded state as QEMU 10.0 does in its vmdesc: the entry that stands for the section once
 * the state is edited. Elements that are not alike become fields of their own.
 *
 * @param device the entry by which the state was decoded, or of another section of the same kind
 */
export function describeState(device: VmdescDevice, nodes: readonly StateNode[]): VmdescDevice {
  const { name, instance_id, vmsd_name, version, size } = device;
  const total = nodes.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  return {
    name,
    instance_id,
    ...(size === undefined ? {} : { size: total }),
    ...(vmsd_name === undefined ? {} : { vmsd_name }),
    ...(version === undefined ? {} : { version }),
    ...inside(nodes),
  };
}

type Inside = Pick<VmdescState, 'fields' | 'subsections'>;

function inside(nodes: readonly StateNode[]): Inside {
  const fields: VmdescField[] = [];
  const subsections: VmdescState[] = [];
  for (const node of nodes) {
    if (node.type === 'subsection') subsections.push(stateOf(node));
    else fields.push(...fieldsOf(node));
  }
  return subsections.length > 0 ? { fields, subsections } : { fields };
}

function stateOf({ description, children = [] }: StateNode): VmdescState {
  const { name = '', version = 0 } = description ?? {};
  return { vmsd_name: name, version, ...inside(children) };
}

function fieldsOf(node: StateNode): VmdescField[] {
  const { name, index, type, children = [] } = node;
  if (type !== 'array') {
    if (index === undefined) return [{ name, ...elementOf(node) }];
    return [{ name: name.slice(0, -`[${index}]`.length), index, ...elementOf(node) }];
  }
  // Elements that are alike are described once, and so are those of each run of an array of pointers.
  const hasHoles = children.some(
    (child) => child.type === 'nullptr' || child.type === 'ptr-marker',
  );
  const runs: { element: Element; text: string; count: number }[] = [];
  for (const child of children) {
    const element = elementOf(child);
    const text = JSON.stringify(element);
    const last = runs.at(-1);
    if (last !== undefined && last.text === text) last.count++;
    else runs.push({ element, text, count: 1 });
  }
  if (runs.length === 1 || hasHoles) {
    return runs.map(({ element, count }) =>
      count === 1 ? { name, ...element } : { name, array_len: count, ...element },
    );
  }
  return children.map((child, i) => ({ name, index: i, ...elementOf(child) }));
}

type Element = Omit<VmdescField, 'name'> & { readonly type: string; readonly size: number };

function elementOf(node: StateNode): Element {
  const { type, lengthBytes: size, children = [] } = node;
  switch (type) {
    case 'struct':
      return { type, struct: stateOf(node), size };
    case 'tmp':
    case 'vstruct':
      return { type, ...stateOf(node), size };
    case 'qtailq':
    case 'qlist':
      return { type, ...listed(children), size };
    case 'gtree':
      return { type, ...listed(children.flatMap((entry) => entry.children ?? [])), size };
    default:
      return { type, size };
  }
}

/** Gives the descriptions of a list's elements as they stand in its object; plain keys have none. */
function listed(elements: readonly StateNode[]): object {
  const states = elements.filter(({ children }) => children !== undefined).map(stateOf);
  return states.length > 1 ? { elements: states } : (states[0] ?? {});
}
