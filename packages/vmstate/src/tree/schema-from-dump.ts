import type { Dump, DumpDescription, DumpField } from '../dump.ts';
import { GroupLayout, type Item, type Layout, LeafLayout } from './layout.ts';
import { ChoiceLayout, FreeLayout } from './layout-free.ts';
import { ArrayLayout, ListLayout, NullableLayout } from './layout-sequences.ts';
import { type Candidate, decodeByCandidates, type Schema } from './schema.ts';
import type { StateNode } from './state-node.ts';

/** Bytes of a QEMUTimer in memory on a 64-bit host, of which 8 go on the wire. */
const TIMER_BYTES = 48;

/**
 * Makes a schema of a dump of the sender's device types. A dump has neither types nor what decides
 * whether a field is sent, nor the lengths of arrays that other fields hold (before QEMU 10.0: of any
 * array): a section is decoded where one reading alone fills it. Numbers appear as unsigned.
 */
export function schemaFromDump(dump: Dump): Schema {
  const byName = new Map<string, DumpDescription[]>();
  for (const { description } of dump.types.values()) {
    if (description === undefined) continue;
    const same = byName.get(description.name) ?? [];
    byName.set(description.name, [...same, description]);
  }
  const levels: readonly Openness[] = [...byName.values()].flat().some(hasNumber)
    ? ['nothing', 'states', 'anything']
    : ['nothing', 'anything'];
  return {
    decode(section, body, offset = 0) {
      const candidates = descriptionsFor(byName, section.idstr).map(
        (description): Candidate => ({
          name: description.name,
          knowsSubsection: (name) => hasSubsection(description, name),
          openLayouts: levels.map(
            (open) => () => new DumpCompiler(open).group('section', description, section.version),
          ),
          isDoubtful,
        }),
      );
      const why =
        'A dump describes device types alone, and those that this QEMU was built with: a precopy stream of the same machine describes all';
      return decodeByCandidates(section, candidates, body, offset, why);
    },
  };
}

/** Gives the descriptions of the type whose name ends the section's: the longest such name, each form once. */
function descriptionsFor(
  byName: ReadonlyMap<string, readonly DumpDescription[]>,
  idstr: string,
): DumpDescription[] {
  let name = '';
  for (const known of byName.keys()) {
    const isIts = idstr === known || idstr.endsWith(`/${known}`);
    if (isIts && known.length > name.length) name = known;
  }
  const forms = new Map<string, DumpDescription>();
  for (const form of byName.get(name) ?? []) forms.set(JSON.stringify(form), form);
  return [...forms.values()];
}

/**
 * What a dump may leave open: nothing; how many elements there are of nested states without a number,
 * which is all that is open since QEMU 10.0 but for rare fields; how many there are of anything.
 */
type Openness = 'nothing' | 'states' | 'anything';

/** Type of the bytes of which the dump says nothing at all. */
const OPAQUE = 'opaque';

/** Whether a reading has bytes of which nothing is known beside values that could be arrays. */
function isDoubtful(nodes: readonly StateNode[]): boolean {
  const leaves = nodes.flatMap(leavesOf).filter(({ lengthBytes }) => lengthBytes > 0);
  return leaves.length > 1 && leaves.some(({ type }) => type === OPAQUE);
}

function leavesOf(node: StateNode): StateNode[] {
  return node.children === undefined ? [node] : node.children.flatMap(leavesOf);
}

function hasSubsection({ fields, subsections }: DumpDescription, name: string): boolean {
  return (
    subsections.some((subsection) => subsection.name === name || hasSubsection(subsection, name)) ||
    fields.some(({ description }) => description !== undefined && hasSubsection(description, name))
  );
}

function hasNumber({ fields, subsections }: DumpDescription): boolean {
  return (
    fields.some(
      ({ num, description }) =>
        num !== undefined || (description !== undefined && hasNumber(description)),
    ) || subsections.some(hasNumber)
  );
}

class DumpCompiler {
  readonly #open: Openness;

  constructor(open: Openness) {
    this.#open = open;
  }

  group(type: string, description: DumpDescription, version: number): GroupLayout {
    const { name, fields, subsections } = description;
    const items = fields
      .filter(({ versionId, fieldExists }) => fieldExists || versionId <= version)
      .map((f): Item => ({ name: f.field, layout: this.#layout(f), isOptional: f.fieldExists }));
    const layouts = new Map<string, GroupLayout>();
    const get = (wanted: string): GroupLayout | undefined => {
      const known = layouts.get(wanted);
      const found = subsections.find((subsection) => subsection.name === wanted);
      if (known !== undefined || found === undefined) return known;
      const layout = this.group('subsection', found, found.versionId);
      layouts.set(wanted, layout);
      return layout;
    };
    const isBare = subsections.length === 0;
    return new GroupLayout(
      type,
      { name, version },
      items,
      isBare ? { required: [], get } : { get },
    );
  }

  #layout(f: DumpField): Layout {
    const element = this.#element(f);
    if (f.num !== undefined) return new ArrayLayout(element, f.num);
    const isOpen =
      this.#open === 'anything' || (this.#open === 'states' && f.description !== undefined);
    if (!isOpen || element.minBytes === 0) return element;
    // Without a number it may be one value, an array whose length is elsewhere, or a list.
    const array = new ArrayLayout(element, undefined);
    return f.description === undefined
      ? array
      : new ChoiceLayout([array, new ListLayout('qtailq', [this.#plain(f)])]);
  }

  #element(f: DumpField): Layout {
    const plain = this.#plain(f);
    const mayBeNull =
      this.#open === 'anything' && f.description !== undefined && plain.minBytes > 1;
    return mayBeNull ? new NullableLayout(plain) : plain;
  }

  #plain({ field, size, description }: DumpField): Layout {
    if (description !== undefined) {
      return this.group('struct', description, description.versionId);
    }
    if (field === 'unused') return new LeafLayout('unused_buffer', size);
    switch (size) {
      case 0:
        return new FreeLayout(OPAQUE, 0);
      case 1:
      case 2:
      case 4:
      case 8:
        return new LeafLayout(`uint${size * 8}`, size);
      case TIMER_BYTES:
        return new ChoiceLayout([new LeafLayout('timer', 8), new LeafLayout('buffer', size)]);
      default:
        return new LeafLayout('buffer', size);
    }
  }
}
