import { VmstateError } from '../vmstate-error.ts';
import { findReading, subsectionNameAt } from './chart.ts';
import { Cursor, type Mismatch } from './cursor.ts';
import type { GroupLayout } from './layout.ts';
import { type StateNode, SUBSECTION } from './state-node.ts';

/** What a section's header says of it. */
export interface SectionHead {
  readonly idstr: string;
  readonly instanceId: number;
  readonly version: number;
}

/** What is known of the devices of a machine from elsewhere than the stream that holds their state. */
export interface Schema {
  /**
   * Decodes the body of a device section.
   *
   * @param body header and footer excluded; leaf values are views into it
   * @param offset absolute offset of the body, for the nodes and messages
   * @throws VmstateError `SCHEMA_MISMATCH` when no reading fills the body; `SUBSECTION_UNKNOWN` when it holds a
   *   subsection that the schema has nowhere; `SCHEMA_AMBIGUOUS` when several readings fill it
   */
  decode(section: SectionHead, body: Uint8Array, offset?: number): readonly StateNode[];
}

/** One way in which the schema may describe a section. */
export interface Candidate {
  /** Name of the device's description. */
  readonly name: string;
  /** Whether the schema has a subsection of this name in any place. */
  readonly knowsSubsection: (name: string) => boolean;
  /** The layout that can be read as it is, its subsections aside, where there is one. */
  readonly exact?: GroupLayout;
  /** Makes layouts to try in turn then: each leaves more open than the one before. */
  readonly openLayouts: readonly (() => GroupLayout | undefined)[];
  /** Whether a reading, though the only one of its layout, leaves room for others. */
  readonly isDoubtful?: (nodes: readonly StateNode[]) => boolean;
}

/**
 * Finds the one reading of a body by any of the candidates.
 *
 * @param whyUnknown what to say where there are none
 */
export function decodeByCandidates(
  { idstr }: SectionHead,
  candidates: readonly Candidate[],
  body: Uint8Array,
  offset: number,
  whyUnknown: string,
): readonly StateNode[] {
  let closest: Mismatch | undefined;
  let unknown: Mismatch | undefined;
  const readings: (readonly StateNode[])[] = [];
  for (const { exact } of candidates) {
    if (exact === undefined) continue;
    const cursor = new Cursor(body, offset, true);
    const nodes = exact.readInside(cursor);
    if (cursor.mismatch === undefined && cursor.left === 0) readings.push(nodes);
    else closest ??= cursor.mismatch ?? mismatchAtEnd(cursor);
  }
  const open = candidates.filter(({ name, knowsSubsection }) => {
    const own = unknownSubsection(body, name, knowsSubsection);
    unknown ??= own; // an array of bytes could take it in, but that would be no reading
    return own === undefined;
  });
  const levels = Math.max(0, ...open.map(({ openLayouts }) => openLayouts.length));
  for (let level = 0; level < levels && readings.length === 0; level++) {
    for (const { openLayouts, isDoubtful } of open) {
      const layout = openLayouts[level]?.();
      const reading = layout === undefined ? 'none' : findReading(layout, body, offset);
      if (reading === 'none') continue;
      if (typeof reading === 'string') throw ambiguous(idstr, reading, offset, closest);
      if (isDoubtful?.(reading)) throw ambiguous(idstr, 'several', offset, closest);
      readings.push(reading);
    }
  }
  const [first, ...others] = readings;
  if (first === undefined) {
    const isKnown = candidates.length > 0;
    throw isKnown
      ? mismatched(idstr, body, offset, unknown ?? closest, unknown !== undefined)
      : new VmstateError('SCHEMA_MISMATCH', 'The schema does not know a section', {
          expected: `an entry for ${idstr}`,
          found: 'none',
          offset,
          path: [idstr],
          likely: whyUnknown,
        });
  }
  const form = formOf(first);
  if (others.some((other) => formOf(other) !== form)) {
    throw ambiguous(idstr, 'several', offset, closest);
  }
  return first;
}

/** Tells readings apart: two with the same values in the same places are one. */
function formOf(nodes: readonly StateNode[]): string {
  return nodes
    .map(({ name, type, offset, children }) =>
      children === undefined ? `${name} ${type} ${offset}` : formOf(children),
    )
    .join();
}

function mismatched(
  idstr: string,
  body: Uint8Array,
  offset: number,
  closest: Mismatch | undefined,
  isSubsection: boolean,
): VmstateError {
  const code = isSubsection ? 'SUBSECTION_UNKNOWN' : 'SCHEMA_MISMATCH';
  return new VmstateError(code, 'A section differs from the schema', {
    expected: closest?.expected ?? 'fields that fill the section',
    found: closest?.found ?? `${body.length} bytes that they do not`,
    offset: offset + (closest?.at ?? 0),
    path: [idstr, ...(closest?.path ?? [])],
    likely:
      'The schema is of another machine, release or machine type, or of a state in which the device sends other fields',
  });
}

function unknownSubsection(
  body: Uint8Array,
  description: string,
  knows: (name: string) => boolean,
): Mismatch | undefined {
  const first = description.charCodeAt(0);
  for (let at = body.indexOf(SUBSECTION); at >= 0; at = body.indexOf(SUBSECTION, at + 1)) {
    if (body[at + 2] !== first) continue;
    const name = subsectionNameAt(body, at);
    if (name?.startsWith(`${description}/`) && !knows(name)) {
      return { expected: 'a subsection that is known', found: `subsection ${name}`, at, path: [] };
    }
  }
  return undefined;
}

function mismatchAtEnd(cursor: Cursor): Mismatch {
  const subsection = subsectionNameAt(cursor.bytes, cursor.at);
  return {
    expected: 'the end of the section',
    found: subsection === undefined ? `${cursor.left} more bytes` : `subsection ${subsection}`,
    at: cursor.at,
    path: [],
  };
}

function ambiguous(
  idstr: string,
  reading: 'several' | 'too many',
  offset: number,
  closest: Mismatch | undefined,
): VmstateError {
  return new VmstateError('SCHEMA_AMBIGUOUS', 'The schema leaves open how a section reads', {
    expected: 'one reading that fills the section',
    found: reading === 'several' ? 'more than one' : 'more than can be tried',
    // Where it first differs from the schema as it stands.
    offset: offset + (closest?.at ?? 0),
    path: [idstr, ...(closest?.path ?? [])],
    likely:
      'Give a precopy stream of the same machine, in a like state: its vmdesc says which fields were sent, and how many elements arrays had',
  });
}
