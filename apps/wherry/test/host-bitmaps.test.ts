import { readFile, writeFile } from 'node:fs/promises';
import { createQcow2, MemoryFile, Qcow2Image } from '@wherry/machine';
import { afterEach, describe, expect, test } from 'vitest';
import { incomingPort, Lab, type RunningHost, until, untilStatus } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const MIB = 2 ** 20;
const GUEST = ['--ram', 'pc.ram=8M', '--vcpu', 'random,rate=300'];

async function newImage(): Promise<string> {
  const file = new MemoryFile();
  createQcow2(file, { sizeBytes: 64 * MIB });
  const path = await lab.path('disk.qcow2');
  await writeFile(path, file.toBytes());
  return path;
}

const drive = (path: string): string[] => [
  '--drive',
  `file=${path},format=qcow2,if=none,id=drive0`,
];
const write = ({ client }: RunningHost, node: string, range: string): Promise<string> =>
  client.execute('human-monitor-command', { 'command-line': `qemu-io ${node} "write ${range}"` });
const bitmapsOf = async ({ client }: RunningHost) =>
  (await client.execute('query-block'))[0]?.inserted?.['dirty-bitmaps'];

async function switchOn(hosts: readonly RunningHost[], ...names: string[]): Promise<void> {
  const capabilities = ['events', 'dirty-bitmaps', ...names].map((capability) => ({
    capability: capability as 'events',
    state: true,
  }));
  for (const { client } of hosts)
    await client.execute('migrate-set-capabilities', { capabilities });
}

async function migrate(source: RunningHost, destination: RunningHost): Promise<void> {
  await destination.client.execute('migrate-incoming', {
    uri: 'tcp:127.0.0.1:0',
    'exit-on-error': false,
  });
  await source.client.execute('migrate', {
    uri: `tcp:127.0.0.1:${await incomingPort(destination)}`,
  });
}

describe.each([
  ['precopy', []],
  ['postcopy', ['postcopy-ram']],
  ['postcopy of bitmaps alone', ['return-path']],
])('%s between two hosts without shared storage, the disk being mirrored', (mode, more) => {
  test('a bitmap arrives below the device, records on, and is kept there', async () => {
    const [from, to] = [await newImage(), await newImage()];
    const [source, destination] = await Promise.all([
      lab.host([
        ...GUEST,
        ...drive(from),
        '--blockdev',
        `driver=null-co,node-name=copy,size=${64 * MIB}`,
      ]),
      lab.host([...GUEST, ...drive(to), '--incoming', 'defer']),
    ]);
    await source.client.execute('block-dirty-bitmap-add', {
      node: 'drive0',
      name: 'b',
      persistent: true,
    });
    await write(source, 'drive0', '1M 100k');
    await source.client.execute('blockdev-mirror', {
      device: 'drive0',
      target: 'copy',
      sync: 'none',
    });
    await switchOn([source, destination], ...more);
    if (mode !== 'precopy') {
      await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 1_000_000 });
    }
    await migrate(source, destination);
    if (mode !== 'precopy') {
      await untilStatus(source, 'active');
      await source.client.execute('migrate-start-postcopy');
    }
    await untilStatus(source, 'completed');
    await untilStatus(destination, 'completed');
    expect(await bitmapsOf(destination)).toEqual([
      {
        name: 'b',
        count: 2 * 65_536,
        granularity: 65_536,
        recording: true,
        busy: false,
        persistent: true,
      },
    ]);
    expect(await write(destination, 'drive0', '5M 1')).toMatch(/^wrote/);
    expect(await write(source, 'drive0', '6M 1')).toMatch(/read-only|inactive/);
    await Promise.all([source.process.end(), destination.process.end()]);
    const [bitmap] = new Qcow2Image(new MemoryFile(await readFile(to))).bitmaps.load();
    expect(bitmap).toMatchObject({ name: 'b', enabled: true, inconsistent: false });
    expect([...bitmap!.dirtyRanges()]).toEqual([
      [MIB, MIB + 131_072],
      [5 * MIB, 5 * MIB + 65_536],
    ]);
    expect(new Qcow2Image(new MemoryFile(await readFile(from))).bitmaps.load()).toEqual([]);
  });
});

test('with shared storage the images change hands, with the bitmaps that do not migrate', async () => {
  const path = await newImage();
  const source = await lab.host([...GUEST, ...drive(path)]);
  const destination = await lab.host([...GUEST, ...drive(path), '--incoming', 'defer']);
  await source.client.execute('block-dirty-bitmap-add', {
    node: 'drive0',
    name: 'b',
    persistent: true,
  });
  await write(source, 'drive0', '1M 100k');
  await switchOn([source, destination]);
  await source.client.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'dirty-bitmaps', state: false }],
  });
  await migrate(source, destination);
  await untilStatus(destination, 'completed');
  await until(async () => (await bitmapsOf(destination))?.length === 1, 'the bitmap is read');
  expect((await bitmapsOf(destination))?.[0]).toMatchObject({
    name: 'b',
    count: 2 * 65_536,
    recording: true,
  });
});

test('a bitmap on a node with a generated name is refused before anything is begun', async () => {
  const source = await lab.host([
    ...GUEST,
    ...['--blockdev', `driver=copy-on-read,node-name=top,file.driver=null-co,file.size=${MIB}`],
  ]);
  const destination = await lab.host([...GUEST, '--incoming', 'defer']);
  const nodes = await source.client.execute('query-named-block-nodes');
  const generated = nodes.map((node) => node['node-name']).find((name) => name?.startsWith('#'))!;
  await source.client.execute('block-dirty-bitmap-add', { node: generated, name: 'b' });
  await switchOn([source, destination]);
  await expect(migrate(source, destination)).rejects.toThrow(
    `Bitmap 'b' in a node with auto-generated name '${generated}' can't be migrated`,
  );
  expect(await destination.client.execute('query-migrate')).toMatchObject({ status: 'setup' });
});

test('a failed migration leaves disk and bitmaps as they were', async () => {
  const [from, to] = [await newImage(), await newImage()];
  const source = await lab.host([...GUEST, ...drive(from)]);
  const destination = await lab.host([...GUEST, ...drive(to), '--incoming', 'defer']);
  for (const { client } of [source]) {
    await client.execute('block-dirty-bitmap-add', { node: 'drive0', name: 'b', persistent: true });
  }
  await switchOn([source, destination]);
  await source.client.execute('migrate-set-parameters', { 'max-bandwidth': 100_000 });
  await migrate(source, destination);
  await untilStatus(source, 'active');
  expect((await bitmapsOf(source))?.[0]).toMatchObject({ busy: true });
  await expect(
    source.client.execute('block-dirty-bitmap-clear', { node: 'drive0', name: 'b' }),
  ).rejects.toThrow(/currently in use/);
  await source.client.execute('migrate_cancel');
  await untilStatus(source, 'cancelled');
  await untilStatus(destination, 'failed');
  expect((await bitmapsOf(source))?.[0]).toMatchObject({ busy: false, recording: true });
  expect(await bitmapsOf(destination)).toBeUndefined();
  await write(source, 'drive0', '2M 1');
  expect((await bitmapsOf(source))?.[0]).toMatchObject({ count: 65_536 });
});

test('a mapping renames on both sides; what it leaves out stays, with a warning', async () => {
  const [from, to] = [await newImage(), await newImage()];
  const source = await lab.host([
    ...GUEST,
    '--blockdev',
    `driver=qcow2,node-name=here,file.driver=file,file.filename=${from}`,
  ]);
  const destination = await lab.host([
    ...GUEST,
    ...['--blockdev', `driver=qcow2,node-name=there,file.driver=file,file.filename=${to}`],
    ...['--incoming', 'defer'],
  ]);
  for (const name of ['goes', 'stays']) {
    await source.client.execute('block-dirty-bitmap-add', { node: 'here', name });
  }
  await switchOn([source, destination]);
  const mapping = (node: string, name: string) => ({
    'block-bitmap-mapping': [
      {
        'node-name': node,
        alias: 'disk',
        bitmaps: [{ name, alias: 'wire', transform: { persistent: true } }],
      },
    ],
  });
  await source.client.execute('migrate-set-parameters', mapping('here', 'goes'));
  await destination.client.execute('migrate-set-parameters', mapping('there', 'arrived'));
  expect(await source.client.execute('query-migrate-parameters')).toMatchObject(
    mapping('here', 'goes'),
  );
  await migrate(source, destination);
  await untilStatus(destination, 'completed');
  const nodes = await destination.client.execute('query-named-block-nodes');
  expect(nodes.find((node) => node['node-name'] === 'there')?.['dirty-bitmaps']).toMatchObject([
    { name: 'arrived', persistent: true, recording: true },
  ]);
  expect(source.process.stderr).toContain("Bitmap 'stays' on node 'here' stays behind");
  await expect(
    source.client.execute('migrate-set-parameters', {
      'block-bitmap-mapping': [{ 'node-name': 'n', alias: '#', bitmaps: [] }],
    }),
  ).rejects.toThrow(
    "Invalid mapping given for block-bitmap-mapping: The node alias '#' is not well-formed",
  );
});

test('a bitmap that has no place at the destination is dropped there, and the guest arrives', async () => {
  const from = await newImage();
  const source = await lab.host([...GUEST, ...drive(from)]);
  const destination = await lab.host([...GUEST, '--incoming', 'defer']);
  await source.client.execute('block-dirty-bitmap-add', { node: 'drive0', name: 'b' });
  await write(source, 'drive0', '1M 100k');
  await switchOn([source, destination]);
  await migrate(source, destination);
  await untilStatus(destination, 'completed');
  expect(destination.process.stderr).toMatch(
    /Dirty bitmaps are dropped.*Cannot find device='drive0'/,
  );
});

test('`wherry migrate --capability dirty-bitmaps` brings them along, or says why not', async () => {
  const [from, to] = [await newImage(), await newImage()];
  const source = await lab.host([...GUEST, ...drive(from)]);
  const destination = await lab.host([...GUEST, ...drive(to), '--incoming', 'defer']);
  const add = (node: string) =>
    source.client.execute('block-dirty-bitmap-add', { node, name: 'b', granularity: 4096 });
  await add('drive0');
  await write(source, 'drive0', '1M 8k');
  const run = (to: RunningHost) =>
    lab.run([
      ...['migrate', source.qmp, to.qmp, 'tcp:127.0.0.1:0', '--capability', 'dirty-bitmaps'],
    ]);
  const file = (await source.client.execute('query-named-block-nodes')).find(
    ({ drv }) => drv === 'file',
  )?.['node-name'];
  await add(file!);
  const refused = await run(destination);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(
    /The source refused: Bitmap 'b' in a node with auto-generated name '#block\d+' can't be migrated.*Give the node a name of its own/,
  );
  await source.client.execute('block-dirty-bitmap-remove', { node: file!, name: 'b' });
  const again = await lab.host([...GUEST, ...drive(await newImage()), '--incoming', 'defer']);
  const { code } = await run(again);
  expect(code).toBe(0);
  expect(await bitmapsOf(again)).toMatchObject([{ name: 'b', count: 8192, recording: true }]);
});
