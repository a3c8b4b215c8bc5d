import { VmstateError } from '../vmstate-error.ts';
import { isListType, type StateNode } from './state-node.ts';

const SHOWN_NAMES = 16;

/**
 * Finds a value or group by its path, such as `queues[2].last` or `dev/timeout.expire`: names parted by
 * dots, elements in brackets. A name that stands there more than once takes its ordinal in brackets.
 *
 * @throws VmstateError `PATH_UNKNOWN`, which names what is there
 */
export function findState(nodes: readonly StateNode[], path: string): StateNode {
  const indices = resolvePath(nodes, path);
  let siblings = nodes;
  for (const i of indices.slice(0, -1)) siblings = siblings[i]!.children!;
  return siblings[indices.at(-1)!]!;
}

/** Gives the index in each group on the way to a node. @throws VmstateError `PATH_UNKNOWN` */
export function resolvePath(nodes: readonly StateNode[], path: string): readonly number[] {
  let furthest = { at: 0, names: childNames(nodes, false) };

  const walk = (
    siblings: readonly StateNode[],
    areElements: boolean,
    at: number,
  ): number[] | undefined => {
    if (at >= furthest.at) furthest = { at, names: childNames(siblings, areElements) };
    for (const { index, end } of candidates(siblings, areElements, path, at)) {
      if (end === path.length) return [index];
      const { children, type } = siblings[index]!;
      if (children === undefined) continue;
      const ofElements = hasElements(type);
      // An element follows its array without a dot, which parts all else.
      const next = ofElements ? end : end + 1;
      const rest =
        path[end] === (ofElements ? '[' : '.') ? walk(children, ofElements, next) : undefined;
      if (rest !== undefined) return [index, ...rest];
    }
    return undefined;
  };

  const indices = walk(nodes, false, 0);
  if (indices !== undefined) return indices;
  const { at, names } = furthest;
  const shown = names.slice(0, SHOWN_NAMES).join(', ');
  throw new VmstateError('PATH_UNKNOWN', 'There is no such value in the device state', {
    expected: names.length > SHOWN_NAMES ? `${shown} … (${names.length})` : shown || 'nothing',
    found: path.slice(at) || 'nothing',
    path: at === 0 ? [] : [path.slice(0, at)],
  });
}

/** Gives the siblings whose name the path goes on with, longest name first, and where each ends in it. */
function candidates(
  siblings: readonly StateNode[],
  areElements: boolean,
  path: string,
  at: number,
): { index: number; end: number }[] {
  const found: { index: number; end: number }[] = [];
  for (const [index, text] of childNames(siblings, areElements).entries()) {
    const end = at + text.length;
    const next = path[end];
    if (path.startsWith(text, at) && (next === undefined || next === '.' || next === '[')) {
      found.push({ index, end });
    }
  }
  return found.sort((a, b) => b.end - a.end);
}

/** Gives the text by which a path names each of a group's children. */
function childNames(siblings: readonly StateNode[], areElements: boolean): string[] {
  if (areElements) return siblings.map((_, i) => `[${i}]`);
  const total = new Map<string, number>();
  for (const { name } of siblings) total.set(name, (total.get(name) ?? 0) + 1);
  const seen = new Map<string, number>();
  return siblings.map(({ name }) => {
    if (total.get(name) === 1) return name;
    const ordinal = seen.get(name) ?? 0;
    seen.set(name, ordinal + 1);
    return `${name}[${ordinal}]`;
  });
}

function hasElements(type: string): boolean {
  return type === 'array' || isListType(type);
}
