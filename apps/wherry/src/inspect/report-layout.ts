import { wrap } from './wrap.ts';

/** Fits lines to a terminal: what is too long goes on below, further in. */
export function* fitLines(lines: Iterable<string>, columns: number | undefined): Generator<string> {
  for (const line of lines) {
    if (columns === undefined || line.length <= columns || line.includes('\n')) {
      yield line;
      continue;
    }
    const indent = /^ */.exec(line)![0];
    const [first = '', ...rest] = wrap(line.slice(indent.length), columns - indent.length - 4);
    yield indent + first;
    for (const more of rest) yield `${indent}    ${more}`;
  }
}
