/** A value as Python's encoder writes it; a map keeps the order of its keys, also of those that look like numbers. */
export type PythonValue =
  | string
  | number
  | boolean
  | null
  | readonly PythonValue[]
  | ReadonlyMap<string, PythonValue>
  | { readonly [key: string]: PythonValue };

const INDENT = '    ';

/** Writes JSON as Python's `json` does with an indent of 4: empty lists and objects closed at once, nothing but ASCII. */
export function* formatPythonJson(value: PythonValue, indent = ''): Generator<string> {
  if (Array.isArray(value)) {
    yield* formatMembers(
      '[',
      ']',
      value.map((item) => ['', item] as const),
      indent,
    );
  } else if (typeof value === 'object' && value !== null) {
    const members = value instanceof Map ? [...value] : Object.entries(value);
    yield* formatMembers(
      '{',
      '}',
      members.map(([key, member]) => [`${quote(key)}: `, member as PythonValue] as const),
      indent,
    );
  } else {
    yield typeof value === 'string' ? quote(value) : `${value}`;
  }
}

function* formatMembers(
  open: string,
  close: string,
  members: readonly (readonly [label: string, value: PythonValue])[],
  indent: string,
): Generator<string> {
  if (members.length === 0) {
    yield open + close;
    return;
  }
  const inner = indent + INDENT;
  let separator = `${open}\n${inner}`;
  for (const [label, value] of members) {
    yield separator + label;
    yield* formatPythonJson(value, inner);
    separator = `,\n${inner}`;
  }
  yield `\n${indent}${close}`;
}

function quote(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
