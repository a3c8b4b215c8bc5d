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
   * @throws VmstateError `SCHEMA_MISMATCH` when no reading fills the body, `SCHEMA_AMBIGUOUS` when several do
   */
  decode(section: SectionHead, body: Uint8Array, offset?: number): readonly StateNode[];
}

/** Layouts of one device to try in turn: each leaves more open than the one before. */
export interface Candidate {
  /** Name of the device's description. */
  readonly name: string;
  /** Whether the schema has a subsection of this name in any place. */
  readonly knowsSubsection: (name: string) => boolean;
  readonly layouts: Iterable<GroupLayout>;
  /** Whether the first layout can be read as it is, its subsections aside. */
  readonly isExact: boolean;
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
  candidates: Iterable<Candidate>,
  body: Uint8Array,
  offset: number,
  whyUnknown: string,
): readonly StateNode[] {
  let closest: Mismatch | undefined;
  let isKnown = false;
  for (const { name, knowsSubsection, layouts, isExact, isDoubtful } of candidates) {
    isKnown = true;
    let tryExact = isExact;
    for (const layout of layouts) {
      if (tryExact) {
        tryExact = false;
        const cursor = new Cursor(body, offset, true);
        const nodes = layout.readInside(cursor);
        if (cursor.mismatch === undefined && cursor.left === 0) return nodes;
        closest ??= cursor.mismatch ?? mismatchAtEnd(cursor);
        continue;
      }
      const unknown = unknownSubsection(body, name, knowsSubsection);
      if (unknown !== undefined) {
        closest = unknown; // an array of bytes could take it in, but that would be no reading
        break;
      }
      const reading = findReading(layout, body, offset);
      if (reading === 'several' || reading === 'too many') {
        throw ambiguous(idstr, reading, offset, closest);
      }
      if (reading === 'none') continue;
      if (isDoubtful?.(reading)) throw ambiguous(idstr, 'several', offset, closest);
      return reading;
    }
  }
  throw new VmstateError(
    'SCHEMA_MISMATCH',
    isKnown ? 'A section differs from the schema' : 'The schema does not know a section',
    {
      expected:
        closest?.expected ?? (isKnown ? 'fields that fill the section' : `an entry for ${idstr}`),
      found: closest?.found ?? (isKnown ? `${body.length} bytes that they do not` : 'none'),
      offset: offset + (closest?.at ?? 0),
      path: [idstr, ...(closest?.path ?? [])],
      likely: isKnown
        ? 'The schema is of another machine, release or machine type, or of a state in which the device sends other fields'
        : whyUnknown,
    },
  );
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
