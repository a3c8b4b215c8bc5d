import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type JsonItem, JsonStream, toJsonText } from '../src/index.ts';

function readAll(chunks: readonly Uint8Array[]): JsonItem[] {
  const stream = new JsonStream();
  const items: JsonItem[] = [];
  for (const chunk of chunks) {
    stream.push(chunk);
    for (let item = stream.next(); item !== undefined; item = stream.next()) items.push(item);
  }
  return items;
}

function split(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, i) => bytes.subarray(i === 0 ? 0 : ends[i - 1], end));
}

const cuts = fc.array(fc.nat(), { maxLength: 12 });

/** JSON values as QMP has them: no noncharacters, no -0, integers of up to 64 bits. */
const text = fc
  .string({ unit: 'binary' })
  .map((value) => value.toWellFormed().replace(/\p{Noncharacter_Code_Point}/gu, '\ufffd'));
const { value: jsonValue } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    text,
    fc.boolean(),
    fc.constant(null),
    fc
      .double({ noNaN: true, noDefaultInfinity: true })
      .map((value) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? 0.5 : value || 0)),
    fc.integer(),
    fc
      .bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n })
      .map((value) => (Number.isSafeInteger(Number(value)) ? Number(value) : value)),
    fc.array(tie('value'), { maxLength: 5 }),
    fc.dictionary(text, tie('value'), { maxKeys: 5, noNullPrototype: true }),
  ),
}));

/** Bytes that look like JSON for a while. */
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom(
        '{',
        '}',
        '[',
        ']',
        ',',
        ':',
        '"',
        "'",
        '\\',
        ' ',
        '\n',
        '\0',
        '-',
        '0',
        '1.',
      ),
      fc.constantFrom('true', 'nul', '"a"', '{"execute":', '\\u', 'd800', '1e', 'é', '\u0001'),
      fc.string({ maxLength: 3 }),
    ),
    { maxLength: 60 },
  )
  .map((parts) => new TextEncoder().encode(parts.join('')))
  .chain((bytes) =>
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }).map((edits) => {
      const edited = bytes.slice();
      if (edited.length > 0) for (const [at, byte] of edits) edited[at % edited.length] = byte;
      return edited;
    }),
  );

describe('JsonStream', () => {
  it('reads back what toJsonText wrote, wherever the chunks end', () => {
    fc.assert(
      fc.property(fc.array(jsonValue, { maxLength: 4 }), cuts, (values, at) => {
        const bytes = new TextEncoder().encode(values.map((v) => `${toJsonText(v)} `).join(''));
        const items = readAll(split(bytes, at));
        expect(items.map((item) => item.kind === 'value' && item.value)).toEqual(values);
      }),
    );
  });

  it('reads what JSON.stringify wrote, raw UTF-8 included', () => {
    fc.assert(
      fc.property(text, cuts, (value, at) => {
        const bytes = new TextEncoder().encode(JSON.stringify({ [value]: value }));
        expect(readAll(split(bytes, at))).toMatchObject([{ value: { [value]: value } }]);
      }),
    );
  });

  it('answers hostile bytes the same wherever the chunks end', () => {
    fc.assert(
      fc.property(hostile, cuts, (bytes, at) => {
        expect(readAll(split(bytes, at))).toEqual(readAll([bytes]));
      }),
      { numRuns: 500 },
    );
  });

  it('is in a known state after FF and a newline, whatever came before', () => {
    fc.assert(
      fc.property(hostile, (bytes) => {
        const end = new TextEncoder().encode('\n{"execute": "x"}');
        const items = readAll([bytes, Uint8Array.of(0xff), end]);
        expect(items.at(-1)).toMatchObject({ kind: 'value', value: { execute: 'x' } });
        expect(items.at(-2)).toMatchObject({ kind: 'error' });
      }),
      { numRuns: 500 },
    );
  });

  it('accepts only what JSON.parse accepts, but for single quotes', () => {
    fc.assert(
      fc.property(hostile, (bytes) => {
        for (const item of readAll([bytes])) {
          if (item.kind === 'value') expect(() => JSON.parse(toJsonText(item.value))).not.toThrow();
        }
      }),
      { numRuns: 500 },
    );
  });
});
