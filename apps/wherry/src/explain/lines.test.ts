import { expect, test } from 'vitest';
import { linesOf } from './lines.ts';

async function split(...pieces: (Uint8Array | string)[]): Promise<string[]> {
  const source = async function* (): AsyncGenerator<Uint8Array | string> {
    yield* pieces;
  };
  const lines: string[] = [];
  for await (const line of linesOf(source())) lines.push(line);
  return lines;
}

test('joins what the pieces cut', async () => {
  expect(await split('a\nb', 'c', '\n\nd')).toEqual(['a', 'bc', '', 'd']);
  const euro = new TextEncoder().encode('€\n');
  expect(await split(euro.subarray(0, 1), euro.subarray(1))).toEqual(['€']);
  expect(await split()).toEqual([]);
});

test('keeps the beginning of a line that has no end', async () => {
  const lines = await split(...new Array(100).fill('x'.repeat(1000)), '\ny');
  expect(lines).toEqual(['x'.repeat(4096), 'y']);
});
