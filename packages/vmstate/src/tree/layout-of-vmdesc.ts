import { innerStates, type VmdescField, type VmdescState } from '../vmdesc.ts';
import { GroupLayout, type Item, type Layout, LeafLayout, type Subsections } from './layout.ts';
import { CountedLayout, FreeLayout } from './layout-free.ts';
import { ArrayLayout, ListLayout, NullableLayout } from './layout-sequences.ts';

/** What may differ between the description and the bytes. */
export interface Freedom {
  /**
   * `none`: nothing. `pointers`: which elements of an array of structs are NULL, because QEMU before
   * 10.0 describes the first alone, and 10.0 counts the NULLs behind the first run twice. `lengths`:
   * that, and how many elements an array has and how long a buffer is.
   */
  readonly lengths: 'none' | 'pointers' | 'lengths';
  /** Gives a subsection that the state's own entry does not list; absent where all that are listed must follow. */
  readonly subsection?: (description: string, name: string) => VmdescState | undefined;
}

/** Makes the layout of a device's state, or of a part of it, of its description in a vmdesc. */
export class VmdescCompiler {
  readonly #freedom: Freedom;
  readonly #subsections = new Map<VmdescState, GroupLayout>();
  /** Whether a field was met that leaves a choice. */
  hasChoice = false;

  constructor(freedom: Freedom) {
    this.#freedom = freedom;
  }

  group(type: string, state: Partial<VmdescState>): GroupLayout {
    const { vmsd_name: name, version = 0, fields = [] } = state;
    const description = name === undefined ? undefined : { name, version };
    const items: Item[] = [];
    for (let i = 0; i < fields.length; ) {
      const run = this.#pointerRun(fields, i);
      items.push(run === 1 ? this.#item(fields[i]!) : this.#mergedRun(fields.slice(i, i + run)));
      i += run;
    }
    return new GroupLayout(type, description, items, this.#subsectionsOf(state));
  }

  /** Counts the fields from `i` on that are one array of pointers, parted where NULLs begin and end. */
  #pointerRun(fields: readonly VmdescField[], i: number): number {
    if (this.#freedom.lengths === 'none') return 1;
    const isSame = (f: VmdescField | undefined): boolean =>
      f?.name === fields[i]!.name && f.index === undefined;
    let end = i;
    while (isSame(fields[end])) end++;
    const run = fields.slice(i, end);
    // Markers one by one belong to elements that the receiver allocates: each has one of its own.
    const areRuns = run.every((f, j) => !isMarker(f) || j === 0 || !isMarker(run[j - 1]!));
    return areRuns && run.some(isMarker) && !run.every(isMarker) ? run.length : 1;
  }

  #mergedRun(run: readonly VmdescField[]): Item {
    this.hasChoice = true;
    const counts = run.map(({ array_len: count = 1 }) => count);
    const sum = counts.slice(1).reduce((total, count) => total + count, 0);
    // A first run that is no NULL carries the count of the whole array.
    const [first = 0] = counts;
    const count = !isMarker(run[0]!) && first > sum ? first : first + sum;
    const element = new NullableLayout(this.#element(run.find((f) => !isMarker(f))!));
    const length = this.#freedom.lengths === 'lengths' ? undefined : count;
    return { name: run[0]!.name, layout: new ArrayLayout(element, length) };
  }

  #item(f: VmdescField): Item {
    const { index, array_len: count } = f;
    const name = index === undefined ? f.name : `${f.name}[${index}]`;
    return { name, index, layout: count === undefined ? this.#element(f) : this.#array(f, count) };
  }

  #array(f: VmdescField, count: number): Layout {
    const { lengths } = this.#freedom;
    if (lengths === 'none') return new ArrayLayout(this.#element(f), count);
    if (isUndescribed(f)) {
      // Its first element is NULL, and nothing is known of the others.
      this.hasChoice = true;
      return new FreeLayout('undescribed', count, count);
    }
    const plain = this.#element(f);
    const element =
      f.struct !== undefined && plain.minBytes > 1 ? new NullableLayout(plain) : plain;
    const isFree = lengths === 'lengths' && element.minBytes > 0;
    if (isFree || element !== plain) this.hasChoice = true;
    return new ArrayLayout(element, isFree ? undefined : count);
  }

  #element(f: VmdescField): Layout {
    if (isUndescribed(f))
      return new LeafLayout(f.size === 1 ? 'ptr-marker' : 'undescribed', f.size);
    if (f.struct !== undefined) return this.group('struct', f.struct);
    const { type, size } = f;
    const inner = innerStates(f);
    switch (type) {
      case 'tmp':
      case 'vstruct':
        if (inner[0] !== undefined) return this.group(type, inner[0]);
        break;
      case 'qtailq':
      case 'qlist':
        return new ListLayout(
          type,
          inner.map((state) => this.group('struct', state)),
        );
      case 'gtree':
        return this.#tree(inner);
      case 'GByteArray':
        return new CountedLayout(type, 4);
      case 'capability':
        return new CountedLayout(type, 1);
    }
    if (this.#freedom.lengths !== 'lengths' || !FREE_TYPES.has(type)) {
      return new LeafLayout(type, size);
    }
    this.hasChoice = true;
    return new FreeLayout(type, size);
  }

  /** Makes a tree: its keys are described where two descriptions alternate, or there are two for each entry. */
  #tree(inner: readonly VmdescState[]): Layout {
    const groups = inner.map((state) => this.group('struct', state));
    const plain = groups.map((value) => entry(new LeafLayout('uint64', 8), value));
    const keyed: Layout[] = [];
    for (let i = 0; i + 1 < groups.length; i += 2) keyed.push(entry(groups[i]!, groups[i + 1]!));
    const doAlternate = inner.length > 1 && inner[0]!.vmsd_name !== inner[1]!.vmsd_name;
    return doAlternate ? new ListLayout('gtree', keyed) : new ListLayout('gtree', plain, keyed);
  }

  #subsectionsOf(state: Partial<VmdescState>): Subsections {
    const own = state.subsections ?? [];
    const { subsection } = this.#freedom;
    const parent = state.vmsd_name;
    if (own.length === 0 && (subsection === undefined || parent === undefined)) {
      return NO_SUBSECTIONS;
    }
    const layoutOf = (found: VmdescState): GroupLayout => {
      const known = this.#subsections.get(found);
      const layout = known ?? this.group('subsection', found);
      if (known === undefined) this.#subsections.set(found, layout);
      return layout;
    };
    const byName = new Map(own.map((found) => [found.vmsd_name, found]));
    const get = (name: string): GroupLayout | undefined => {
      const found = byName.get(name) ?? (parent && subsection?.(parent, name));
      return found ? layoutOf(found) : undefined;
    };
    if (subsection !== undefined) return { get };
    for (const found of own) layoutOf(found); // now, so that choices inside are known
    return { get, required: [...byName.keys()] };
  }
}

function entry(key: Layout, value: Layout): Layout {
  const items = [
    { name: 'key', layout: key },
    { name: 'value', layout: value },
  ];
  return new GroupLayout('entry', undefined, items, NO_SUBSECTIONS);
}

const NO_SUBSECTIONS: Subsections = { required: [], get: () => undefined };

/** Whether a field is an element of an array of pointers that is NULL, of which QEMU before 10.0 says no more. */
function isUndescribed({ struct }: VmdescField): boolean {
  return struct !== undefined && struct.fields === undefined && struct.vmsd_name === undefined;
}

/** Whether a field stands for elements that are NULL; QEMU 11.1 has its own name for them. */
function isMarker({ type }: VmdescField): boolean {
  return type === 'nullptr' || type === 'ptr-marker';
}

/** Types whose size another field, or the device's state, decides. */
const FREE_TYPES: ReadonlySet<string> = new Set([
  'bitmap',
  'buffer',
  'scsi-requests',
  'usb-redir-bufpq',
  'usb-redir-packet-id-q',
  'usb-redir-parser',
  'vdagent/cbinfos',
  'virtio',
  'virtio-gpu',
]);
