import { VmstateError } from '../vmstate-error.ts';
import builtIn from './known.json' with { type: 'json' };

/** What no dump tells, stated as data: renames, conditions, sections without a description. docs/check.md describes the file. */
export interface Known {
  /** Month of each release, `YYYY-MM`. */
  readonly releases: Readonly<Record<string, string>>;
  /** Names of one device type. */
  readonly types: readonly KnownNames[];
  /** Device types whose sections a release without the type has all the same. */
  readonly absentTypes: readonly { readonly types: readonly string[]; readonly why: string }[];
  /** Names of one field. */
  readonly fields: readonly (KnownNames & { readonly description: string })[];
  /** When fields under a test, and subsections, are sent. */
  readonly conditions: readonly KnownCondition[];
  /** Arrays that may have no elements, and so are not in each stream. */
  readonly variableArrays: readonly {
    readonly description: string;
    readonly names: readonly string[];
    readonly why: string;
  }[];
  /** Sections that no dump describes, and that all releases from 5.2 to 11.1 load unless told. */
  readonly undescribed: readonly KnownSection[];
  /** What is stated of fields that lie over bytes that were unused. */
  readonly unused: readonly KnownUnused[];
}

interface KnownNames {
  readonly names: readonly string[];
  /** Releases between which the name changed. */
  readonly between: readonly string[];
  readonly why: string;
}

/** Bounds are inclusive; those of machine types are releases in their names. */
export interface KnownCondition {
  readonly description: string;
  readonly names: readonly string[];
  readonly fromMachine?: string;
  readonly untilMachine?: string;
  readonly fromVersion?: number;
  readonly untilVersion?: number;
  /** Within the bounds of machine types it is always sent; otherwise the device's options decide. */
  readonly always?: boolean;
  readonly why: string;
}

interface KnownSection {
  readonly section: string;
  readonly version: number;
  readonly subsections?: readonly string[];
  /** The first release that loads it, where that is after 5.2. */
  readonly since?: string;
}

interface KnownUnused {
  readonly description: string;
  readonly field: string;
  /** The last release that sent something in these bytes. */
  readonly lastSentBy?: string;
  /** Why the field's load survives a zero. */
  readonly survivesZero?: string;
  readonly why?: string;
}

/** Returns what the package knows itself. */
export function builtInKnown(): Known {
  return builtIn;
}

type Lists = Exclude<keyof Known, 'releases'>;

const REQUIRED: Readonly<Record<Lists, readonly string[]>> = {
  types: ['names', 'between', 'why'],
  absentTypes: ['types', 'why'],
  fields: ['description', 'names', 'between', 'why'],
  conditions: ['description', 'names', 'why'],
  variableArrays: ['description', 'names', 'why'],
  undescribed: ['section', 'version'],
  unused: ['description', 'field'],
};
const STRINGS = new Set([
  ...['description', 'field', 'why', 'section', 'lastSentBy', 'survivesZero'],
  ...['fromMachine', 'untilMachine', 'since'],
]);
const NUMBERS = new Set(['version', 'fromVersion', 'untilVersion']);
const TEXT_LISTS = new Set(['names', 'types', 'between', 'subsections']);

/**
 * Parses a file of further statements and adds it to what is known; each member may be left out.
 *
 * @throws VmstateError `KNOWN_INVALID`
 */
export function addKnown(known: Known, text: string): Known {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalid([], 'JSON', cause instanceof Error ? cause.message : String(cause));
  }
  if (!isObject(value)) throw invalid([], 'an object', typeof value);
  const result: { -readonly [K in keyof Known]: Known[K] } = { ...known };
  for (const [key, member] of Object.entries(value)) {
    if (key === 'releases') {
      if (!isObject(member) || !Object.values(member).every((m) => /^\d{4}-\d\d$/.test(`${m}`))) {
        throw invalid([key], 'an object of release: "YYYY-MM"', JSON.stringify(member));
      }
      result.releases = { ...known.releases, ...(member as Record<string, string>) };
    } else if (Object.hasOwn(REQUIRED, key)) {
      const list = checkEntries(key as Lists, member);
      (result as Record<Lists, readonly unknown[]>)[key as Lists] = [
        ...list,
        ...known[key as Lists],
      ];
    } else {
      throw invalid([key], `one of releases, ${Object.keys(REQUIRED).join(', ')}`, key);
    }
  }
  return result;
}

function checkEntries(key: Lists, list: unknown): readonly unknown[] {
  if (!Array.isArray(list)) throw invalid([key], 'an array', typeof list);
  for (const [i, entry] of list.entries()) {
    const path = [key, `${i}`];
    if (!isObject(entry)) throw invalid(path, 'an object', typeof entry);
    for (const name of REQUIRED[key]) {
      if (!Object.hasOwn(entry, name)) throw invalid(path, `a member '${name}'`, 'none');
    }
    for (const [name, member] of Object.entries(entry)) {
      const fits =
        (STRINGS.has(name) && typeof member === 'string') ||
        (NUMBERS.has(name) && Number.isSafeInteger(member)) ||
        (name === 'always' && typeof member === 'boolean') ||
        (TEXT_LISTS.has(name) &&
          Array.isArray(member) &&
          member.every((item) => typeof item === 'string'));
      if (!fits)
        throw invalid([...path, name], 'a member of docs/check.md', JSON.stringify(member));
    }
  }
  return list;
}

/** Compares two releases, such as `9.2` and `10.0`. */
export function compareReleases(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split('.').map(Number);
  const [majorB = 0, minorB = 0] = b.split('.').map(Number);
  return majorA - majorB || minorA - minorB;
}

/** Takes the release out of a machine type's name; undefined where it has none. */
export function releaseOfMachine(machine: string): string | undefined {
  return /-(\d+\.\d+)(?:\.\d+)?$/.exec(machine)?.[1];
}

/** Whether a field or subsection is sent; undefined where that is not known. */
export function isSent(
  known: Known,
  description: string,
  name: string,
  sender: { readonly machine?: string | undefined; readonly version: number },
): boolean | undefined {
  const condition = known.conditions.find(
    (c) => c.description === description && c.names.includes(name),
  );
  if (condition === undefined) return undefined;
  const { fromMachine, untilMachine, fromVersion, untilVersion } = condition;
  if (fromVersion !== undefined || untilVersion !== undefined) {
    return sender.version >= (fromVersion ?? 0) && sender.version <= (untilVersion ?? Infinity);
  }
  const release = sender.machine === undefined ? undefined : releaseOfMachine(sender.machine);
  if (release === undefined) return undefined;
  if (fromMachine !== undefined && compareReleases(release, fromMachine) < 0) return false;
  if (untilMachine !== undefined && compareReleases(release, untilMachine) > 0) return false;
  return condition.always === true ? true : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(path: readonly string[], expected: string, found: string): VmstateError {
  return new VmstateError('KNOWN_INVALID', 'This file of statements is not usable', {
    expected,
    found: found.slice(0, 80),
    path,
    likely: 'docs/check.md describes its members',
  });
}
