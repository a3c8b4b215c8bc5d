/** A member that begins the description of one element of a list; QEMU repeats it in one object. */
const ELEMENT_KEY = 'vmsd_name';
const ELEMENT_KEYS: readonly string[] = [ELEMENT_KEY, 'version', 'fields', 'subsections'];

const MAX_DEPTH = 256;

const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

/**
 * Parses JSON in which one object may describe several elements of a list, each by the same members
 * again: these become its member `elements`, of which `JSON.parse` would keep the last alone.
 *
 * @throws SyntaxError
 */
export function parseRepeatingJson(text: string): unknown {
  const reader = new JsonReader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

class JsonReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): unknown {
    if (depth > MAX_DEPTH) throw new SyntaxError(`more than ${MAX_DEPTH} nested values`);
    const next = this.#peek();
    if (next === '{') return this.#object(depth);
    if (next === '[') return this.#array(depth);
    if (next === '"') return this.#string();
    for (const [word, value] of [
      ['true', true],
      ['false', false],
      ['null', null],
    ] as const) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    return this.#number();
  }

  end(): void {
    if (this.#peek() !== '') throw this.#unexpected();
  }

  #object(depth: number): object {
    const members = new Map<string, unknown>();
    const elements: object[] = [];
    this.#list('}', () => {
      const key = this.#string();
      this.#expect(':');
      if (key === ELEMENT_KEY && members.has(key)) elements.push(takeElement(members));
      members.set(key, this.value(depth + 1));
    });
    if (elements.length > 0) members.set('elements', [...elements, takeElement(members)]);
    return Object.fromEntries(members);
  }

  #array(depth: number): unknown[] {
    const values: unknown[] = [];
    this.#list(']', () => values.push(this.value(depth + 1)));
    return values;
  }

  #list(close: string, item: () => void): void {
    this.#at++;
    if (this.#peek() === close) {
      this.#at++;
      return;
    }
    for (;;) {
      item();
      const next = this.#peek();
      if (next !== ',' && next !== close) throw this.#unexpected();
      this.#at++;
      if (next === close) return;
    }
  }

  #string(): string {
    if (this.#peek() !== '"') throw this.#unexpected();
    const start = this.#at;
    for (let end = start + 1; ; end++) {
      end = this.#text.indexOf('"', end);
      if (end < 0) throw new SyntaxError(`an unterminated string at position ${start}`);
      let backslashes = 0;
      while (this.#text[end - 1 - backslashes] === '\\') backslashes++;
      if (backslashes % 2 === 1) continue;
      this.#at = end + 1;
      return JSON.parse(this.#text.slice(start, this.#at)) as string;
    }
  }

  #number(): number {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.#text);
    if (match === null) throw this.#unexpected();
    this.#at = NUMBER.lastIndex;
    return Number(match[0]);
  }

  #expect(character: string): void {
    if (this.#peek() !== character) throw this.#unexpected();
    this.#at++;
  }

  /** Gives the next character that is no white space, or nothing at the end. */
  #peek(): string {
    for (;;) {
      const next = this.#text[this.#at] ?? '';
      if (next !== ' ' && next !== '\n' && next !== '\t' && next !== '\r') return next;
      this.#at++;
    }
  }

  #unexpected(): SyntaxError {
    const found = this.#text[this.#at];
    return new SyntaxError(
      found === undefined
        ? 'the end of the text'
        : `${JSON.stringify(found)} at position ${this.#at}`,
    );
  }
}

/** Takes the members of one element out of its list's object. */
function takeElement(members: Map<string, unknown>): object {
  const element: [string, unknown][] = [];
  for (const key of ELEMENT_KEYS) {
    if (members.has(key)) element.push([key, members.get(key)]);
    members.delete(key);
  }
  return Object.fromEntries(element);
}
