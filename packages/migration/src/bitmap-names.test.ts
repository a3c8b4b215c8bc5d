import { describe, expect, test } from 'vitest';
import { type BitmapMapping, checkBitmapMapping } from './bitmap-mapping.ts';
import { outgoingBitmaps } from './bitmap-save.ts';
import type { BitmapPort, BlockNodePort, BlockPort } from './block-port.ts';

const bitmap = (name: string | undefined, more: Partial<BitmapPort> = {}): BitmapPort => ({
  ...{ name, granularityBytes: 65_536, lengthBytes: 2, inconsistent: false, readOnly: false },
  ...{ enabled: true, persistent: false, busy: false, skipStore: false },
  bytesAt: () => undefined,
  setBytes() {},
  createSuccessor() {},
  enableSuccessor() {},
  reclaimSuccessor() {},
  ...more,
});

function node(
  nodeName: string,
  bitmaps: readonly BitmapPort[],
  over?: BlockNodePort,
): BlockNodePort {
  return {
    ...{ nodeName, bitmaps, isFilter: over !== undefined, filtered: over, sizeBytes: 2 ** 20 },
    createBitmap: () => bitmap('made'),
    removeBitmap() {},
  };
}

function disks(
  backends: readonly [string, BlockNodePort][],
  nodes: readonly BlockNodePort[],
): BlockPort {
  return {
    backends: backends.map(([name, root]) => ({ name, root })),
    nodes,
    activate() {},
    inactivate() {},
  };
}

const namesOf = (blocks: BlockPort, mapping?: BitmapMapping, warnings: string[] = []): string[] =>
  outgoingBitmaps(blocks, mapping, (message) => warnings.push(message)).map(
    ({ node: at, bitmap: name, persistent }) => `${at}/${name}${persistent ? '!' : ''}`,
  );

describe('the name of a node that a bitmap goes by', () => {
  test('is the device’s above it, whatever the node is called', () => {
    const root = node('#block001', [bitmap('b')]);
    const named = node('disk1', [bitmap('c')]);
    expect(
      namesOf(
        disks(
          [
            ['drive0', root],
            ['drive1', named],
          ],
          [named, root],
        ),
      ),
    ).toEqual(['drive0/b', 'drive1/c']);
  });

  test('is the device’s through the filters of a mirror and of copy-on-read', () => {
    const root = node('#block001', [bitmap('b')]);
    const top = node('#block003', [], node('#block002', [bitmap(undefined)], root));
    expect(namesOf(disks([['drive0', top]], [root, top]))).toEqual(['drive0/b']);
  });

  test('is its own below a device without a name, and deeper than the root', () => {
    const backing = node('base', [bitmap('old')]);
    const root = node('disk0', [bitmap('b')]);
    expect(namesOf(disks([['', root]], [backing, root]))).toEqual(['base/old', 'disk0/b']);
  });

  test('is never a generated one: all of them are told, and what to do', () => {
    const deep = node('#block001', [bitmap('x'), bitmap('y')]);
    const filter = node('#block003', [bitmap('z')], node('#block002', []));
    expect(() => namesOf(disks([['drive0', filter]], [deep, filter]))).toThrow(
      /Bitmap 'x' in a node with auto-generated name '#block001' can't be migrated; Bitmap 'y'.*Bitmap 'z' in a node with auto-generated name '#block003'.*Give the node a name of its own \(node-name=…\)/,
    );
  });

  test('does not matter for nodes without bitmaps', () => {
    expect(
      namesOf(disks([], [node('#block001', []), node('#block002', [bitmap(undefined)])])),
    ).toEqual([]);
  });
});

test.each<[Partial<BitmapPort>, RegExp]>([
  [{ busy: true }, /'b' is currently in use by another operation/],
  [{ readOnly: true }, /'b' is readonly/],
  [{ inconsistent: true }, /'b' is inconsistent/],
  [
    { name: 'n'.repeat(256) },
    /Cannot migrate bitmap 'n+' on node 'disk0': Name is longer than 255 bytes/,
  ],
])('a bitmap that cannot be used fails the migration: %j', (state, message) => {
  expect(() => namesOf(disks([], [node('disk0', [bitmap('b', state)])]))).toThrow(message);
});

describe('with a mapping', () => {
  const root = node('#block001', [bitmap('b', { persistent: true }), bitmap('c')]);
  const other = node('disk1', [bitmap('d')]);
  const blocks = disks([['drive0', root]], [root, other]);
  const map = (bitmaps: BitmapMapping[number]['bitmaps']): BitmapMapping => [
    { 'node-name': '#block001', alias: 'disk', bitmaps },
  ];

  test('what it names goes by its aliases, also from a node with a generated name; the rest is told of', () => {
    const warnings: string[] = [];
    expect(namesOf(blocks, map([{ name: 'b', alias: 'backup' }]), warnings)).toEqual([
      'disk/backup!',
    ]);
    expect(warnings).toEqual([
      "Bitmap 'c' on node '#block001' stays behind: block-bitmap-mapping does not name it",
      "Bitmap 'd' on node 'disk1' stays behind: block-bitmap-mapping does not name the node",
    ]);
    expect(namesOf(blocks, [])).toEqual([]);
  });

  test('it decides whether the other side keeps them', () => {
    expect(
      namesOf(
        blocks,
        map([
          { name: 'b', alias: 'b', transform: { persistent: false } },
          { name: 'c', alias: 'c', transform: { persistent: true } },
        ]),
      ),
    ).toEqual(['disk/b', 'disk/c!']);
  });

  const one = (name: string, alias: string, bitmaps: [string, string][] = []) => ({
    'node-name': name,
    alias,
    bitmaps: bitmaps.map(([from, to]) => ({ name: from, alias: to })),
  });
  test.each<[BitmapMapping, string]>([
    [[one('n', '#x')], "The node alias '#x' is not well-formed"],
    [[one('n', 'a'), one('n', 'b')], "The node name 'n' is mapped twice"],
    [[one('n', 'a'), one('m', 'a')], "The node alias 'a' is used twice"],
    [
      [
        one('n', 'a', [
          ['x', '1'],
          ['x', '2'],
        ]),
      ],
      "The bitmap 'n'/'x' is mapped twice",
    ],
    [
      [
        one('n', 'a', [
          ['x', '1'],
          ['y', '1'],
        ]),
      ],
      "The bitmap alias 'a'/'1' is used twice",
    ],
    [[one('n'.repeat(32), 'a')], `The node name '${'n'.repeat(32)}' is longer than 31 bytes`],
    [[one('n', 'a'.repeat(256))], `The node alias '${'a'.repeat(256)}' is longer than 255 bytes`],
  ])('one that is ambiguous or too long is refused in QEMU’s words: %#', (mapping, text) => {
    expect(() => checkBitmapMapping(mapping)).toThrow(
      `Invalid mapping given for block-bitmap-mapping: ${text}`,
    );
  });
});
