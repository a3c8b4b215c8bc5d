import { CAUSES } from './catalogue.ts';
import type { Cause } from './cause.ts';

/** A cause that a line of text tells of, with what the line says in the places of its names. */
export interface Explanation {
  readonly cause: Cause;
  readonly names: Readonly<Record<string, string>>;
}

interface Pattern {
  readonly cause: Cause;
  readonly expression: RegExp;
  /** The longest part without placeholders: a line that lacks it cannot match, which is found out fast. */
  readonly anchor: string;
  /** Characters that are not placeholders: of two equal matches the more literal one is meant. */
  readonly literalLength: number;
}

interface Match extends Explanation {
  readonly start: number;
  readonly end: number;
  readonly literalLength: number;
}

/** Longer lines are cut: no message is so long, and the patterns take time by it. */
const MAX_LINE_CHARS = 4096;

let patterns: readonly Pattern[] | undefined;

/** Finds every cause that a line tells of, in the order of the line. */
export function explainLine(line: string): readonly Explanation[] {
  patterns ??= CAUSES.flatMap((cause) =>
    (cause.messages ?? []).map((message) => ({ cause, ...compile(message) })),
  );
  const text = line.slice(0, MAX_LINE_CHARS).trimEnd();
  const matches: Match[] = [];
  for (const { cause, expression, anchor, literalLength } of patterns) {
    if (!text.includes(anchor)) continue;
    // A line can say the same of several devices.
    for (const { 0: said, index: start, groups } of text.matchAll(expression)) {
      const end = start + said.length;
      matches.push({ cause, names: { ...groups }, start, end, literalLength });
    }
  }
  return matches
    .filter((match) => !matches.some((other) => covers(other, match)))
    .sort((a, b) => a.start - b.start)
    .map(({ cause, names }) => ({ cause, names }));
}

/** Whether `a` says all that `b` says and more. */
function covers(a: Match, b: Match): boolean {
  if (a === b || a.start > b.start || a.end < b.end) return false;
  if (a.start < b.start || a.end > b.end) return true;
  return a.literalLength > b.literalLength;
}

/**
 * Puts names into a text: `[…]` is left out when a name in it is not known.
 *
 * @param names undefined shows the names themselves, for the catalogue
 */
export function fillNames(
  text: string,
  names: Readonly<Record<string, string>> | undefined,
): string {
  return text
    .replace(/\[([^\]]*)\]/g, (_, part: string) =>
      names === undefined || namesIn(part).every((name) => names[name] !== undefined) ? part : '',
    )
    .replace(/\{(\w+)\}/g, (_, name: string) => names?.[name] ?? `<${name}>`);
}

/** Lists the names in a text. */
export function namesIn(text: string): string[] {
  return [...text.matchAll(/\{(\w+)#?\}/g)].map(([, name]) => name!);
}

function compile(message: string): Omit<Pattern, 'cause'> {
  let source = '';
  let anchor = '';
  let literalLength = 0;
  const tokens = message.match(/\{\w+#?\}|\[[^\]]*\]|\^|\$|[^{[^$]+/g) ?? [];
  tokens.forEach((token, i) => {
    const [, name, isNumber] = /^\{(\w+)(#?)\}$/.exec(token) ?? [];
    if (name !== undefined) {
      source += `(?<${name}>${isNumber ? NUMBER : anyText(i === 0, i === tokens.length - 1)})`;
    } else if (token.startsWith('[')) {
      source += `(?:${literal(token.slice(1, -1))})?`;
    } else if (token === '^' || token === '$') {
      source += token;
    } else {
      source += literal(token);
      literalLength += token.length;
      if (token.length > anchor.length) anchor = token;
    }
  });
  if (/[0-9a-zA-Z]$/.test(message)) source += '(?![0-9a-zA-Z])';
  return { expression: new RegExp(source, 'g'), anchor, literalLength };
}

const NUMBER = '-?(?:0x)?[0-9a-fA-F]{1,20}';

/** A program's name before the message ends with ": ", and so does a message before what led to it. */
function anyText(isFirst: boolean, isLast: boolean): string {
  if (isFirst) return '\\w(?:(?!: )[^"\']){0,254}?';
  return isLast ? '[^"]{1,255}?(?=: |"|$)' : '[^"\']{1,255}?';
}

function literal(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
}
