import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateSync } from 'node:zlib';
import type { RamBlockModel, StreamModel } from '@wherry/snapshot';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fileNameOf, RamFiles } from './ram-files.ts';

const PAGE = 4096;
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'wherry-ram-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function block(name: string, usedBytes: number): RamBlockModel {
  return { name, usedBytes, pages: { page: 0, zero: 0, xbzrle: 0, compress: 0, mapped: 0 } };
}

function modelOf(...blocks: RamBlockModel[]): StreamModel {
  const ram = { totalBytes: 0, targetPageBytes: PAGE, blocks, multifdFlushes: 0 };
  return { items: [], devices: [], liveSections: [], omittedItems: 0, trailingBytes: 0, ram };
}

test('puts every kind of page in its place, the last one counting', () => {
  const files = new RamFiles(directory, false);
  const ram = block('pc.ram', 64 * PAGE);
  const expected = new Uint8Array(ram.usedBytes);
  const page = (fill: number): Uint8Array => new Uint8Array(PAGE).fill(fill);
  files.begin(ram);
  for (const [at, fill] of [
    [1, 1],
    [2, 2],
    [3, 3],
    [1, 4],
  ] as const) {
    files.page(ram, at * PAGE, page(fill));
    expected.fill(fill, at * PAGE, (at + 1) * PAGE);
  }
  files.zero(ram, 2 * PAGE, PAGE);
  expected.fill(0, 2 * PAGE, 3 * PAGE);
  files.xbzrle(ram, 3 * PAGE, PAGE, Uint8Array.of(5, 2, 0xaa, 0xbb), 0);
  expected.set([0xaa, 0xbb], 3 * PAGE + 5);
  files.compressed(ram, 40 * PAGE, PAGE, deflateSync(page(9)), 0);
  expected.fill(9, 40 * PAGE, 41 * PAGE);
  files.zero(ram, 50 * PAGE, PAGE); // never written: stays a hole
  files.finish(modelOf(ram), true);
  expect(Buffer.compare(readFileSync(join(directory, 'pc.ram')), expected)).toBe(0);
  expect(ram.sha256).toBe(createHash('sha256').update(expected).digest('hex'));
});

test('leaves holes where nothing came', () => {
  const files = new RamFiles(directory, false);
  const ram = block('pc.ram', 2 ** 30);
  files.begin(ram);
  files.page(ram, 2 ** 29, new Uint8Array(PAGE).fill(1));
  files.finish(undefined, true);
  const { size, blocks } = statSync(join(directory, 'pc.ram'));
  expect(size).toBe(2 ** 30);
  expect(blocks * 512).toBeLessThan(2 ** 20);
});

test('keeps what a broken stream brought under another name', () => {
  const files = new RamFiles(directory, false);
  const ram = block('pc.ram', PAGE);
  files.begin(ram);
  files.page(ram, 0, new Uint8Array(PAGE).fill(1));
  files.finish(modelOf(ram), false);
  expect(readdirSync(directory)).toEqual(['pc.ram.partial']);
  expect(files.names.get('pc.ram')).toBe(join(directory, 'pc.ram.partial'));
});

test('replaces files only when told to', () => {
  const path = join(directory, 'pc.ram');
  writeFileSync(path, 'mine');
  expect(() => new RamFiles(directory, false).begin(block('pc.ram', PAGE))).toThrow('--force');
  expect(readFileSync(path, 'utf8')).toBe('mine');
  const files = new RamFiles(directory, true);
  files.begin(block('pc.ram', PAGE));
  files.finish(undefined, true);
  expect(statSync(path).size).toBe(PAGE);
});

test.each([
  ['pc.ram', 'pc.ram'],
  ['/rom@etc/acpi/tables', '%2From@etc%2Facpi%2Ftables'],
  ['0000:00:02.0/vga.vram', '0000:00:02.0%2Fvga.vram'],
  ['../../etc/passwd', '%2E.%2F..%2Fetc%2Fpasswd'],
  ['..', '%2E.'],
  ['a\u001b[2J\nb', 'a%1B%5B2J%0Ab'],
  ['100%', '100%25'],
  ['\ud800', '%EF%BF%BD'],
])('calls the file of %j %s', (name, file) => {
  expect(fileNameOf(name)).toBe(file);
});

test('refuses lengths that no host has, and leaves nothing of them', () => {
  const files = new RamFiles(directory, false);
  expect(() => files.begin(block('huge', 2 ** 52))).toThrow('likely damaged');
  expect(existsSync(join(directory, 'huge.partial'))).toBe(false);
});

test('refuses a compressed page that is none', () => {
  const files = new RamFiles(directory, false);
  const ram = block('pc.ram', PAGE);
  files.begin(ram);
  for (const packed of [
    Uint8Array.of(1, 2, 3),
    deflateSync(new Uint8Array(5)),
    deflateSync(new Uint8Array(2 ** 20)),
  ]) {
    expect(() => files.compressed(ram, 0, PAGE, packed, 77)).toThrow(
      'A compressed page cannot be expanded',
    );
  }
});
