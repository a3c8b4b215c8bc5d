import { describe, expect, test } from 'vitest';
import { type BlockFile, MemoryFile } from './block-file.ts';
import { BlockGraph } from './block-graph.ts';
import { createQcow2 } from './qcow2-image.ts';

const MIB = 1024 * 1024;

/** Images in memory by name; names are relative to nothing. */
function graphOf(images: Readonly<Record<string, BlockFile>>, inactive = false): BlockGraph {
  return new BlockGraph({
    inactive,
    random: () => 0.07,
    files: {
      resolve: (filename) => filename.replace(/^.*\//, ''),
      open: (path) => {
        const file = images[path];
        if (file === undefined) throw new Error(`ENOENT: no such file, open '${path}'`);
        return file;
      },
    },
  });
}

function image(backingFile?: string, backingFormat = 'qcow2'): MemoryFile {
  const file = new MemoryFile();
  const backing = backingFile === undefined ? {} : { backingFile, backingFormat };
  createQcow2(file, { sizeBytes: MIB, ...backing });
  return file;
}

const file = (filename: string) => ({ driver: 'file', filename }) as const;

test('a chain of backing files is opened, read through, and written at its top alone', () => {
  const graph = graphOf({
    base: new MemoryFile(new Uint8Array(MIB / 2).fill(5)),
    mid: image('base', 'raw'),
    top: image('dir/mid'),
  });
  const top = graph.add({ driver: 'qcow2', 'node-name': 'disk', file: file('top') });
  const before = graph.nodes.find(
    ({ filename, driver }) => filename === 'base' && driver === 'raw',
  )!;
  top.write(1000, new Uint8Array(10).fill(9));
  const there = new Uint8Array(MIB);
  top.read(0, there);
  expect([there[999], there[1000], there[1010], there[MIB / 2]]).toEqual([5, 9, 5, 0]);
  const below = new Uint8Array(1);
  before.read(1000, below);
  expect(below[0]).toBe(5);
  expect(() => before.write(0, below)).toThrow('Block node is read-only');
  expect(graph.nodes.map(({ nodeName }) => nodeName)).toContain('#block007');
});

test('reading through copy-on-read keeps what was read, and records no write', () => {
  const top = image('base', 'raw');
  const graph = graphOf({ base: new MemoryFile(new Uint8Array(MIB).fill(5)), top });
  graph.add({ driver: 'qcow2', 'node-name': 'top', file: file('top') });
  const filter = graph.add({ driver: 'copy-on-read', file: 'top' });
  const node = graph.find('top');
  node.createBitmap('b', 65_536);
  filter.read(10, new Uint8Array(100));
  expect(node.bitmap('b').dirtyBytes).toBe(0);
  graph.close();
  const alone = graphOf({ top }).add({ driver: 'qcow2', backing: null, file: file('top') });
  const there = new Uint8Array(70_000);
  alone.read(0, there);
  expect([there[0], there[110], there[65_535], there[65_536]]).toEqual([5, 5, 5, 0]); // a whole cluster
});

test('a mirror writes to both disks, while devices go through its filter', () => {
  const graph = graphOf({});
  const disk = graph.add({ driver: 'null-co', 'node-name': 'disk', size: MIB });
  const copy = graph.add({ driver: 'null-co', 'node-name': 'copy', size: MIB });
  const device = graph.addBackend('drive0', disk);
  for (const node of [disk, copy]) node.createBitmap('b', 4096);
  const filter = graph.insertMirror(disk, copy);
  expect(device.root).toBe(filter);
  expect(filter).toMatchObject({ isFilter: true, filtered: disk });
  device.root.write(8192, new Uint8Array(1));
  for (const node of [disk, copy])
    expect([...node.bitmap('b').dirtyRanges()]).toEqual([[8192, 12_288]]);
  graph.removeFilter(filter);
  expect(device.root).toBe(disk);
});

describe('persistent bitmaps', () => {
  const open = (disk: MemoryFile, inactive = false): BlockGraph => {
    const graph = graphOf({ disk }, inactive);
    graph.add({ driver: 'qcow2', 'node-name': 'disk', file: file('disk') });
    return graph;
  };
  const addBitmap = (graph: BlockGraph, name: string): void => {
    const node = graph.find('disk');
    node.createBitmap(name).persistent = true;
    node.write(0, new Uint8Array(512));
  };
  const namesIn = (disk: MemoryFile): (string | undefined)[] => {
    const graph = open(new MemoryFile(disk.toBytes()));
    return graph
      .find('disk')
      .bitmaps.map(({ name, inconsistent }) => (inconsistent ? `${name}!` : name));
  };

  test('are stored when the image is left to another host, and read by it', () => {
    const disk = image();
    const here = open(disk);
    const there = open(disk, true);
    addBitmap(here, 'b');
    expect(() => there.find('disk').write(0, new Uint8Array(1))).toThrow(/inactive/);
    here.inactivate();
    expect(here.find('disk').bitmaps).toEqual([]);
    there.activate();
    expect(there.find('disk').bitmap('b').dirtyBytes).toBe(65_536);
    expect(namesIn(disk)).toEqual(['b!']);
    there.close();
    expect(namesIn(disk)).toEqual(['b']);
  });

  test('that went to the other host themselves are its to store', () => {
    const disk = image();
    const here = open(disk);
    addBitmap(here, 'kept');
    here.close();
    const again = open(disk);
    addBitmap(again, 'moved');
    again.find('disk').bitmap('moved').skipStore = true;
    again.inactivate();
    expect(namesIn(disk)).toEqual(['kept']);
    again.activate(); // the guest is back
    expect(again.find('disk').bitmap('moved').skipStore).toBe(false);
    again.close();
    expect(namesIn(disk).sort()).toEqual(['kept', 'moved']);
  });

  test('are lost with a host that dies, and say so', () => {
    const disk = image();
    const here = open(disk);
    addBitmap(here, 'b');
    here.close();
    addBitmap(open(disk), 'later');
    expect(namesIn(disk)).toEqual(['b!']);
    const node = open(disk).find('disk');
    node.removeBitmap(node.bitmap('b'));
    expect(namesIn(disk)).toEqual([]);
  });
});

describe('what cannot be is refused by name', () => {
  test.each<[string, Parameters<BlockGraph['add']>[0], RegExp]>([
    ['a loop', { driver: 'qcow2', file: file('a') }, /lies below itself.*a → b → a/],
    ['an image below itself', { driver: 'qcow2', file: file('self') }, /self → self/],
    ['no such file', { driver: 'raw', file: file('none') }, /Could not open 'none': ENOENT/],
    ['another protocol', { driver: 'raw', file: file('nbd://host/x') }, /Unknown protocol 'nbd'/],
    [
      'another protocol below',
      { driver: 'qcow2', file: file('remote') },
      /Unknown protocol 'json'/,
    ],
    ['another format', { driver: 'vmdk' as 'raw', file: file('a') }, /Unknown driver 'vmdk'/],
    ['a bad name', { driver: 'null-co', 'node-name': '#block1' }, /Invalid node-name: '#block1'/],
    ['a long name', { driver: 'null-co', 'node-name': 'n'.repeat(32) }, /Node name too long/],
    [
      'a name twice',
      { driver: 'null-co', 'node-name': 'there' },
      /Duplicate nodes with node-name='there'/,
    ],
    ['a device’s name', { driver: 'null-co', 'node-name': 'dev' }, /conflicting with a device id/],
    ['no file', { driver: 'raw' }, /must be specified for "file"/],
  ])('%s', (_, options, message) => {
    const graph = graphOf({
      a: image('b'),
      b: image('a'),
      self: image('self'),
      remote: image('json:{}'),
    });
    graph.addBackend('dev', graph.add({ driver: 'null-co', 'node-name': 'there' }));
    expect(() => graph.add(options)).toThrow(message);
    expect(graph.nodes.length).toBe(1);
  });

  test('a chain of 300 images', () => {
    const images = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [`i${i}`, image(`i${i + 1}`)]),
    );
    expect(() => graphOf(images).add({ driver: 'qcow2', file: file('i0') })).toThrow(
      /More than 200/,
    );
  });
});
