import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BlockGraph, type BlockNode, createQcow2, MemoryFile } from '@wherry/machine';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { blockFiles } from '../../apps/wherry/src/host/block-files.ts';

const isThere = spawnSync('qemu-img', ['--version']).status === 0;
const title = isThere ? 'qemu-img' : 'qemu-img (skipped: not installed, it is in qemu-utils)';

interface Info {
  readonly 'format-specific': {
    readonly data: {
      readonly bitmaps?: readonly {
        readonly name: string;
        readonly granularity: number;
        readonly flags: readonly string[];
      }[];
    };
  };
}

describe.skipIf(!isThere)(title, () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'wherry-images-'));
  });
  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  const qemuImg = (...args: string[]): string =>
    execFileSync('qemu-img', args, { cwd: directory, encoding: 'utf8', stdio: 'pipe' });
  const qemuIo = (image: string, ...commands: string[]): string =>
    execFileSync(
      'qemu-io',
      ['-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), image],
      {
        cwd: directory,
        encoding: 'utf8',
      },
    );
  const check = (image: string): void => {
    expect(qemuImg('check', '-f', 'qcow2', image)).toContain('No errors were found on the image');
  };
  const bitmapsOf = (image: string): Info['format-specific']['data']['bitmaps'] =>
    (JSON.parse(qemuImg('info', '-f', 'qcow2', '--output=json', image)) as Info)['format-specific']
      .data.bitmaps;

  function withImage<T>(image: string, use: (node: BlockNode) => T): T {
    const graph = new BlockGraph({ files: blockFiles, random: () => 0 });
    try {
      return use(
        graph.add({ driver: 'qcow2', file: { driver: 'file', filename: join(directory, image) } }),
      );
    } finally {
      graph.close();
    }
  }

  test.each([
    [65_536, []],
    [512, []],
    [4096, ['-o', 'refcount_bits=1']],
    [65_536, ['-o', 'refcount_bits=64']],
    [65_536, ['-o', 'compat=0.10']],
  ])('agrees about what was written, clusters of %i bytes %s', (clusterBytes, more) => {
    const name = `written-${clusterBytes}-${more.at(-1) ?? ''}.qcow2`;
    qemuImg(
      'create',
      '-f',
      'qcow2',
      '-o',
      `cluster_size=${clusterBytes}`,
      ...more,
      name,
      '10000000',
    );
    const disk = new Uint8Array(10_000_000 - (10_000_000 % 512));
    qemuIo(name, 'write -P 0x11 1M 100k', 'write -z 1050k 64k');
    disk.fill(0x11, 1 << 20, (1 << 20) + 102_400);
    disk.fill(0, 1050 * 1024, 1114 * 1024);
    withImage(name, (node) => {
      for (const [offset, length, value] of [
        [0, 1, 1],
        [1 << 20, 70_000, 2],
        [1_100_000, 400_000, 3],
        [5_000_001, 3_000_000, 4],
        [9_999_000, 360, 5],
      ] as const) {
        node.write(offset, new Uint8Array(length).fill(value));
        disk.fill(value, offset, offset + length);
      }
    });
    check(name);
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', name, `${name}.raw`);
    const raw = readFileSync(join(directory, `${name}.raw`));
    expect(Buffer.compare(raw.subarray(0, disk.length), disk)).toBe(0);
  });

  test('opens and checks an image that was made here, over a backing file of its', () => {
    qemuImg('create', '-f', 'qcow2', 'base.qcow2', '4M');
    qemuIo('base.qcow2', 'write -P 0x22 0 4M');
    const file = new MemoryFile();
    createQcow2(file, { sizeBytes: 8 << 20, backingFile: 'base.qcow2', backingFormat: 'qcow2' });
    writeFileSync(join(directory, 'overlay.qcow2'), file.toBytes());
    withImage('overlay.qcow2', (node) => {
      node.write((4 << 20) - 10, new Uint8Array(20).fill(0x33));
      const there = new Uint8Array(2);
      node.read(1000, there);
      expect([...there]).toEqual([0x22, 0x22]);
    });
    check('overlay.qcow2');
    expect(qemuIo('overlay.qcow2', 'read -P 0x22 0 4193792', 'read -P 0 5M 3M')).not.toContain(
      'failed',
    );
  });

  test('keeps a snapshot apart from what is written after it', () => {
    qemuImg('create', '-f', 'qcow2', 'snap.qcow2', '4M');
    qemuIo('snap.qcow2', 'write -P 0x44 0 1M');
    qemuImg('snapshot', '-c', 'before', 'snap.qcow2');
    withImage('snap.qcow2', (node) => node.write(100, new Uint8Array(200_000).fill(0x55)));
    check('snap.qcow2');
    qemuImg('snapshot', '-a', 'before', 'snap.qcow2');
    expect(qemuIo('snap.qcow2', 'read -P 0x44 0 1M')).not.toContain('failed');
  });

  test('reads the bitmaps that are stored here', () => {
    qemuImg('create', '-f', 'qcow2', 'ours.qcow2', '64M');
    withImage('ours.qcow2', (node) => {
      node.checkCanPersist();
      for (const [name, granularity] of [
        ['coarse', 65_536],
        ['fine', 4096],
      ] as const) {
        const bitmap = node.createBitmap(name, granularity);
        bitmap.persistent = true;
      }
      node.write(128 * 1024, new Uint8Array(200 * 1024).fill(1));
      node.bitmap('fine').enabled = false;
    });
    check('ours.qcow2');
    expect(bitmapsOf('ours.qcow2')).toEqual([
      expect.objectContaining({ name: 'fine', granularity: 4096, flags: [] }),
      expect.objectContaining({ name: 'coarse', granularity: 65_536, flags: ['auto'] }),
    ]);
    // Merged by qemu-img into one of its own, the bits show here again.
    qemuImg('bitmap', '--add', '-g', '4096', '--merge', 'fine', 'ours.qcow2', 'theirs');
    qemuImg('bitmap', '--remove', 'ours.qcow2', 'coarse');
    withImage('ours.qcow2', (node) => {
      expect(node.bitmaps.map(({ name }) => name).sort()).toEqual(['fine', 'theirs']);
      expect([...node.bitmap('theirs').dirtyRanges()]).toEqual([[131_072, 335_872]]);
      expect(node.bitmap('theirs')).toMatchObject({
        enabled: true,
        persistent: true,
        granularityBytes: 4096,
      });
      node.removeBitmap(node.bitmap('theirs'));
    });
    check('ours.qcow2');
    expect(bitmapsOf('ours.qcow2')?.map(({ name }) => name)).toEqual(['fine']);
  });

  test('sees bitmaps in use while a host has the image', () => {
    qemuImg('create', '-f', 'qcow2', 'used.qcow2', '1M');
    qemuImg('bitmap', '--add', 'used.qcow2', 'b');
    withImage('used.qcow2', () => {
      const copy = readFileSync(join(directory, 'used.qcow2'));
      writeFileSync(join(directory, 'copy.qcow2'), copy);
    });
    expect(bitmapsOf('copy.qcow2')?.[0]?.flags).toEqual(['in-use', 'auto']);
    withImage('copy.qcow2', (node) => expect(node.bitmap('b').inconsistent).toBe(true));
    expect(bitmapsOf('used.qcow2')?.[0]?.flags).toEqual(['auto']);
    check('used.qcow2');
  });
});
