import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ReadProgress } from './read-progress.ts';

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }));
afterEach(() => void vi.useRealTimers());

/** A stream that keeps what was drawn on it. */
function terminal(size: object): { readonly stream: NodeJS.WriteStream; readonly drawn: string[] } {
  const drawn: string[] = [];
  const write = (text: string): boolean => drawn.push(text) > 0;
  const stream = { write, ...size } as unknown as NodeJS.WriteStream;
  return { stream, drawn };
}

test.each([
  ['a file', 2 ** 30, '[#####.....] 512 MiB of 1 GiB, 512 MiB/s  a.stream'],
  ['a pipe', undefined, '512 MiB, 512 MiB/s  a.stream'],
])('shows how far %s is, in one line', (_, sizeBytes, line) => {
  const { stream, drawn } = terminal({ isTTY: true, rows: 20, columns: 80 });
  const progress = new ReadProgress(stream, 'a.stream');
  progress.show(1, sizeBytes);
  expect(drawn).toEqual([]); // too soon
  vi.advanceTimersByTime(1000);
  progress.show(2 ** 29, sizeBytes);
  expect(drawn.join('')).toContain(line);
  progress.done();
});

test('stays within a narrow terminal', () => {
  const { stream, drawn } = terminal({ isTTY: true, rows: 20, columns: 30 });
  const progress = new ReadProgress(stream, 'a-rather-long-name.stream');
  vi.advanceTimersByTime(1000);
  progress.show(2 ** 29, 2 ** 30);
  expect(drawn.join('')).toContain('[#####.....] 512 MiB of 1 GiB');
  expect(drawn.join('')).not.toContain('a-rather');
});

test.each([
  ['a pipe', { isTTY: false }],
  ['a terminal without rows', { isTTY: true, rows: 0 }],
])('draws nothing on %s', (_, size) => {
  const { stream, drawn } = terminal(size);
  const progress = new ReadProgress(stream, 'a.stream');
  vi.advanceTimersByTime(10_000);
  progress.show(2 ** 29, 2 ** 30);
  progress.done();
  expect(drawn).toEqual([]);
});
