import { describe, expect, it } from 'vitest';
import { JsonDouble, toJsonText, withoutDoubles } from './json-value.ts';

describe('toJsonText', () => {
  it('writes as QEMU does', () => {
    expect(toJsonText({ a: [1, true, null], b: 'x', c: undefined })).toBe(
      '{"a": [1, true, null], "b": "x"}',
    );
  });

  it('writes ASCII only, and a lone surrogate as U+FFFD', () => {
    expect(toJsonText('é😀\ud800\u007f\n"')).toBe('"\\u00E9\\uD83D\\uDE00\\uFFFD\\u007F\\n\\""');
  });

  it('writes numbers without loss', () => {
    expect(toJsonText([2n ** 64n - 1n, -0, new JsonDouble(2), 0.1])).toBe(
      '[18446744073709551615, 0, 2, 0.1]',
    );
    expect(JSON.parse(toJsonText([Infinity, -Infinity]))).toEqual([Infinity, -Infinity]);
  });

  it.each([
    ['NaN', Number.NaN],
    ['a function', () => {}],
    ['a symbol', Symbol('s')],
  ])('refuses %s', (_name, value) => {
    expect(() => toJsonText({ value })).toThrow(expect.objectContaining({ code: 'NOT_JSON' }));
  });

  it('refuses a cycle', () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    expect(() => toJsonText(cycle)).toThrow(expect.objectContaining({ code: 'NOT_JSON' }));
  });
});

describe('withoutDoubles', () => {
  it('unwraps at any depth', () => {
    expect(withoutDoubles({ a: [new JsonDouble(1)], b: 'x' })).toEqual({ a: [1], b: 'x' });
  });
});
