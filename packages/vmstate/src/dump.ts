import { VmstateError } from './vmstate-error.ts';

/** What a QEMU's `-dump-vmstate` says: how each of its device types describes its state. */
export interface Dump {
  /** Name of the machine type that it was made with; the device types do not depend on it. */
  readonly machine: string;
  /** Device types by their QOM name, in the dump's order. */
  readonly types: ReadonlyMap<string, DumpType>;
}

/** A device type of a dump. */
export interface DumpType {
  /** QOM name of the type. */
  readonly name: string;
  /** Version that its sections carry. */
  readonly versionId: number;
  /** Oldest version of a section that it loads. */
  readonly minimumVersionId: number;
  readonly description?: DumpDescription;
}

/** A table of fields, with its subsections. */
export interface DumpDescription {
  readonly name: string;
  readonly versionId: number;
  readonly minimumVersionId: number;
  readonly fields: readonly DumpField[];
  readonly subsections: readonly DumpDescription[];
}

/** One field of a table. */
export interface DumpField {
  /** Its name; bytes that carry nothing are called `unused`. */
  readonly field: string;
  /** First version of the table that has it. */
  readonly versionId: number;
  /** Whether a test decides if it is there, instead of the version. */
  readonly fieldExists: boolean;
  /** Elements of an array of fixed length; dumps of QEMU before 10.0 do not tell. */
  readonly num?: number;
  /** Bytes of one element in the sender's memory: those on the wire only for a plain value. */
  readonly size: number;
  /** Of a nested state. */
  readonly description?: DumpDescription;
}

const MAX_DEPTH = 32;
/** A real dump has some 10,000 fields. */
const MAX_FIELDS = 1_000_000;

/**
 * Parses what QEMU wrote for `-dump-vmstate FILE`.
 *
 * @throws VmstateError `DUMP_INVALID`
 * @see dump_vmstate_json_to_file in QEMU's migration/savevm.c
 */
export function parseDump(text: string): Dump {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid([], 'JSON', cause instanceof Error ? cause.message : String(cause));
  }
  const dump = members(value, []);
  const machine = stringIn(members(dump['vmschkmachine'], [MACHINE]), 'Name', [MACHINE]);
  const types = new Map<string, DumpType>();
  const parser = new DumpParser();
  for (const [name, type] of Object.entries(dump)) {
    if (name !== MACHINE) types.set(name, parser.type(name, type));
  }
  return { machine, types };
}

const MACHINE = 'vmschkmachine';
type Members = Readonly<Record<string, unknown>>;
type Path = readonly string[];

class DumpParser {
  #fields = 0;

  type(name: string, value: unknown): DumpType {
    const path = [name];
    const type = members(value, path);
    const description = type['Description'];
    return {
      name,
      versionId: integerIn(type, 'version_id', path),
      minimumVersionId: integerIn(type, 'minimum_version_id', path),
      ...(description === undefined ? {} : { description: this.#description(description, path) }),
    };
  }

  #description(value: unknown, parent: Path): DumpDescription {
    if (parent.length > MAX_DEPTH) {
      throw invalid(parent, `at most ${MAX_DEPTH} nested descriptions`, 'more');
    }
    const description = members(value, parent);
    const name = stringIn(description, 'name', parent);
    const path = [...parent, name];
    return {
      name,
      versionId: integerIn(description, 'version_id', path),
      minimumVersionId: integerIn(description, 'minimum_version_id', path),
      fields: listIn(description, 'Fields', path).map((field) => this.#field(field, path)),
      subsections: listIn(description, 'Subsections', path).map((subsection) =>
        this.#description(subsection, path),
      ),
    };
  }

  #field(value: unknown, parent: Path): DumpField {
    if (++this.#fields > MAX_FIELDS) {
      throw invalid(parent, `at most ${MAX_FIELDS} fields in all`, 'more');
    }
    const member = members(value, parent);
    const field = stringIn(member, 'field', parent);
    const path = [...parent, field];
    const fieldExists = member['field_exists'];
    if (typeof fieldExists !== 'boolean') {
      throw invalid(path, "a boolean 'field_exists'", typeof fieldExists);
    }
    const { num, Description: description } = member;
    return {
      field,
      versionId: integerIn(member, 'version_id', path),
      fieldExists,
      ...(num === undefined ? {} : { num: integerIn(member, 'num', path, 0) }),
      size: integerIn(member, 'size', path, 0),
      ...(description === undefined ? {} : { description: this.#description(description, path) }),
    };
  }
}

function members(value: unknown, path: Path): Members {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(path, 'an object', Array.isArray(value) ? 'an array' : typeof value);
  }
  return value as Members;
}

function listIn(value: Members, key: string, path: Path): readonly unknown[] {
  const list = value[key] ?? [];
  if (!Array.isArray(list)) throw invalid(path, `an array '${key}'`, typeof list);
  return list;
}

function stringIn(value: Members, key: string, path: Path): string {
  const text = value[key];
  if (typeof text !== 'string') throw invalid(path, `a string '${key}'`, typeof text);
  return text;
}

function integerIn(value: Members, key: string, path: Path, least = -(2 ** 31)): number {
  const number = value[key];
  if (!Number.isSafeInteger(number) || (number as number) < least) {
    const found = typeof number === 'number' ? `${number}` : typeof number;
    throw invalid(path, `an integer '${key}' of at least ${least}`, found);
  }
  return number as number;
}

function invalid(path: Path, expected: string, found: string): VmstateError {
  return new VmstateError('DUMP_INVALID', 'This is no dump of device descriptions', {
    expected,
    found,
    path,
    likely: "Make one with 'qemu-system-x86_64 -M MACHINE -dump-vmstate FILE'",
  });
}
