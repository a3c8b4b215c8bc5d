import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ByteReader, runParser } from '@wherry/bytes';
import { readCommand, readItem, readReturnPathMessage } from '@wherry/stream';
import { describe, expect, test } from 'vitest';
import { Locator } from '../src/locator.ts';
import { RamWalk } from '../src/ram-walk.ts';
import { walk } from './synthetic-stream.ts';

const folder = join(import.meta.dirname, '../../../docs/wire');
const pages = readdirSync(folder).map((name) => ({
  name,
  text: readFileSync(join(folder, name), 'utf8'),
}));

/** The bytes of each block that is marked as `hex` of this kind. */
function examples(kind: string): Uint8Array[] {
  const block = new RegExp(`^\`\`\`hex ${kind}\n(.*?)^\`\`\`$`, 'gms');
  return pages.flatMap(({ text }) =>
    [...text.matchAll(block)].map(([, lines]) =>
      Uint8Array.from(
        lines!
          .replaceAll(/#.*$/gm, '')
          .match(/\S+/g)!
          .map((byte) => {
            expect(byte).toMatch(/^[0-9a-f]{2}$/);
            return Number.parseInt(byte, 16);
          }),
      ),
    ),
  );
}

describe('the byte examples of docs/wire', () => {
  test('are all of a kind that is read here', () => {
    const kinds = pages.flatMap(({ text }) =>
      [...text.matchAll(/^```(\w+.*)$/gm)].map((m) => m[1]),
    );
    const known = ['hex stream', 'hex ram', 'hex items', 'hex return-path', 'text'];
    expect(kinds.filter((kind) => !known.includes(kind!))).toEqual([]);
    expect(new Set(kinds).size).toBe(known.length);
  });

  test('a stream is whole', () => {
    for (const bytes of examples('stream')) {
      const { model } = walk(bytes);
      expect(model).toMatchObject({
        configuration: { machineType: 'pc-q35-5.2' },
        ram: { blocks: [{ name: 'm', usedBytes: 0x1000, pages: { zero: 1 } }] },
        devices: [{ idstr: 'toy', body: Uint8Array.of(0xde, 0xad, 0xbe, 0xef) }],
        endOffset: bytes.length,
      });
    }
  });

  test('RAM records are read to their end', () => {
    for (const bytes of examples('ram')) {
      const reader = ByteReader.over(bytes);
      const ram = new RamWalk({
        ...{ targetPageBytes: 4096, ignoreShared: false, mappedRam: false },
        ...{ sink: undefined, locator: new Locator(), byteOrder: undefined },
      });
      while (reader.available > 0) runParser(ram.readBody(reader), reader);
      expect(ram.model?.blocks).toMatchObject([
        { name: 'pc.ram', usedBytes: 0x2000, pages: { zero: 2, xbzrle: 1 } },
        { name: 'rom', usedBytes: 0x1000, pages: { zero: 1 } },
      ]);
    }
  });

  test('commands are read to their end', () => {
    for (const bytes of examples('items')) {
      const reader = ByteReader.over(bytes);
      const names: string[] = [];
      while (reader.available > 0) {
        expect(runParser(readItem(reader), reader).type).toBe('command');
        names.push(runParser(readCommand(reader), reader).name);
      }
      expect(names).toEqual([
        'open-return-path',
        'ping',
        'postcopy-advise',
        'postcopy-advise',
        'postcopy-ram-discard',
        'recv-bitmap',
        'postcopy-resume',
      ]);
    }
  });

  test('messages of the return path are read to their end', () => {
    for (const bytes of examples('return-path')) {
      const reader = ByteReader.over(bytes);
      const names: string[] = [];
      while (reader.available > 0) {
        names.push(runParser(readReturnPathMessage(reader), reader).name);
      }
      expect(names).toEqual([
        'pong',
        'req-pages',
        'req-pages',
        'recv-bitmap',
        'resume-ack',
        'switchover-ack',
        'shut',
      ]);
    }
  });
});

test('the links between the pages of docs/wire lead somewhere', () => {
  const anchors = new Map(
    pages.map(({ name, text }) => [
      name,
      new Set(
        [...text.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
          title!
            .toLowerCase()
            .replaceAll(/[^\p{L}\p{N}\- ]/gu, '')
            .replaceAll(' ', '-'),
        ),
      ),
    ]),
  );
  for (const { name, text } of pages) {
    for (const [, file, anchor] of text.matchAll(/\]\(([\w.-]*)(?:#([\w-]+))?\)/g)) {
      const target = anchors.get(file || name);
      expect(target, `${name}: ${file}`).toBeDefined();
      if (anchor !== undefined) expect([...target!], `${name}: ${file}`).toContain(anchor);
    }
  }
});
