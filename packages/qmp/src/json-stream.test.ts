import { describe, expect, it } from 'vitest';
import { type JsonItem, JsonStream, type JsonStreamOptions } from './json-stream.ts';
import { JsonDouble } from './json-value.ts';

function readAll(chunks: (string | Uint8Array)[], options: JsonStreamOptions = {}): JsonItem[] {
  const stream = new JsonStream(options);
  const items: JsonItem[] = [];
  for (const chunk of chunks) {
    stream.push(chunk);
    for (let item = stream.next(); item !== undefined; item = stream.next()) items.push(item);
  }
  return items;
}

function values(...chunks: (string | Uint8Array)[]): unknown[] {
  return readAll(chunks).map((item) => (item.kind === 'value' ? item.value : item.message));
}

describe('JsonStream', () => {
  it('splits values with and without white space between them', () => {
    expect(values('{"a": 1}{"b":2}\r\n[3] "x"true ')).toEqual([{ a: 1 }, { b: 2 }, [3], 'x', true]);
  });

  it('does not take braces in strings for structure', () => {
    expect(values('{"}": "{[\\"}"}')).toEqual([{ '}': '{["}' }]);
  });

  it('tells where each value begins', () => {
    const offsets = readAll(['  {"a"', ': 1}  ', ' [2] @']).map((item) => item.offset);
    expect(offsets).toEqual([2, 13, 17]);
  });

  it('keeps all digits of integers of 64 bits, and says what was a float', () => {
    const [item] = readAll(
      [
        '[18446744073709551615, -9223372036854775808, 9007199254740993, 9007199254740991, 1.0, 0.5]',
      ],
      { keepDoubles: true },
    );
    expect(item).toMatchObject({
      value: [
        18446744073709551615n,
        -9223372036854775808n,
        9007199254740993n,
        9007199254740991,
        new JsonDouble(1),
        0.5,
      ],
    });
    expect(values('[1.0, 1e3, 18446744073709551616, -0]')).toEqual([[1, 1000, 2 ** 64, 0]]);
  });

  it('decodes every escape and raw UTF-8', () => {
    expect(values('"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD83D\\ude00é😀\\\'"')).toEqual([
      '"\\/\b\f\n\r\té😀é😀\'',
    ]);
  });

  it('joins a surrogate pair that two string chunks share', () => {
    expect(values('"\ud83d', '\ude00"')).toEqual(['😀']);
  });

  it('makes __proto__ an ordinary member', () => {
    const [value] = values('{"__proto__": {"polluted": true}}');
    expect(Object.keys(value as object)).toEqual(['__proto__']);
    expect((value as Record<string, unknown>)['polluted']).toBeUndefined();
  });

  it('limits the size of a message and recovers', () => {
    const long = `"${'x'.repeat(100)}"`;
    const found = readAll([`[${long}]\n{"a": 1}`], { maxMessageBytes: 50 });
    expect(found.map((item) => (item.kind === 'value' ? item.value : item.message))).toEqual([
      'JSON token size limit exceeded',
      'JSON parse error, expecting value',
      { a: 1 },
    ]);
  });

  it('limits the size of many small tokens together, and does not count white space', () => {
    expect(readAll([`[${'1,'.repeat(100)}`], { maxMessageBytes: 50 })[0]).toMatchObject({
      message: 'JSON token size limit exceeded',
    });
    expect(readAll([`[${' '.repeat(100)}1]`], { maxMessageBytes: 50 })).toHaveLength(1);
  });

  it('limits the number of tokens and the nesting', () => {
    expect(readAll([`[${'1,'.repeat(10)}1]`], { maxTokens: 20 })[0]).toMatchObject({
      message: 'JSON token count limit exceeded',
    });
    expect(readAll(['[[[['], { maxNesting: 3 })).toEqual([
      { kind: 'error', message: 'JSON nesting depth limit exceeded', offset: 0 },
    ]);
  });

  it('reads an integer of many digits in linear time', () => {
    expect(values(`[${'9'.repeat(1_000_000)}]`)).toEqual([[Number.POSITIVE_INFINITY]]);
  });

  it('quotes a stray token up to 1 KiB', () => {
    const [item] = readAll([`"${'x'.repeat(5000)}\n`]);
    expect(item).toMatchObject({ message: `JSON parse error, stray '"${'x'.repeat(1023)}'` });
  });

  it('keeps what is unread and counts it', () => {
    const stream = new JsonStream();
    stream.push('1 2 ');
    expect(stream.next()).toMatchObject({ value: 1 });
    expect(stream.pendingBytes).toBe(3);
    expect(stream.next()).toMatchObject({ value: 2 });
    expect(stream.next()).toBeUndefined();
    expect(stream.pendingBytes).toBe(0);
  });
});
