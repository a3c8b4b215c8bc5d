import { readFile, writeFile } from 'node:fs/promises';
import { createQcow2, MemoryFile, Qcow2Image } from '@wherry/machine';
import { afterEach, expect, test } from 'vitest';
import { Lab, type RunningHost, until } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const IDLE = ['--ram', 'pc.ram=1M', '--vcpu', 'idle'];
const MIB = 2 ** 20;

async function newImage(): Promise<string> {
  const file = new MemoryFile();
  createQcow2(file, { sizeBytes: 4 * MIB });
  const path = await lab.path('disk.qcow2');
  await writeFile(path, file.toBytes());
  return path;
}

const qemuIo = ({ client }: RunningHost, line: string): Promise<string> =>
  client.execute('human-monitor-command', { 'command-line': `qemu-io ${line}` });

test('a disk with a bitmap: written through its device, kept in its image when the host ends', async () => {
  const path = await newImage();
  const host = await lab.host([
    ...IDLE,
    ...['--drive', `file=${path},format=qcow2,if=none,id=drive0`],
    ...['--device', 'virtio-blk-pci,drive=drive0,id=disk'],
  ]);
  const { client } = host;
  const [device] = await client.execute('query-block');
  expect(device).toMatchObject({
    device: 'drive0',
    qdev: '/machine/peripheral/disk/virtio-backend',
    inserted: {
      drv: 'qcow2',
      file: path,
      image: { 'virtual-size': 4 * MIB, 'cluster-size': 65_536 },
    },
  });
  expect(device?.inserted?.['node-name']).toMatch(/^#block\d+$/);
  await client.execute('block-dirty-bitmap-add', { node: 'drive0', name: 'b', persistent: true });
  expect(await qemuIo(host, 'drive0 "write -P 7 1M 4k"')).toBe(
    'wrote 4096/4096 bytes at offset 1048576\r\n',
  );
  expect(await qemuIo(host, 'drive0 "read -P 7 1M 4k"')).toMatch(/^read 4096/);
  expect(await qemuIo(host, 'drive0 "read -P 8 1M 4k"')).toMatch(/^Pattern verification failed/);
  expect(await qemuIo(host, 'none "write 0 1"')).toMatch(/^Cannot find device='none'/);
  expect(await qemuIo(host, 'drive0 "write 5M 1"')).toMatch(/lies behind the end/);
  await host.process.end();
  const image = new Qcow2Image(new MemoryFile(await readFile(path)));
  const [bitmap] = image.bitmaps.load();
  expect(bitmap).toMatchObject({ name: 'b', inconsistent: false, enabled: true });
  expect([...bitmap!.dirtyRanges()]).toEqual([[MIB, MIB + 65_536]]);
});

test('a mirror copies a disk while it is written, and hands it over', async () => {
  const [from, to] = [await newImage(), await newImage()];
  const host = await lab.host([
    ...IDLE,
    ...['--drive', `file=${from},format=qcow2,if=none,id=drive0,node-name=disk0`],
    ...['--blockdev', `driver=qcow2,node-name=copy,file.driver=file,file.filename=${to}`],
  ]);
  const { client } = host;
  const jobEvents: string[] = [];
  for (const name of ['BLOCK_JOB_READY', 'BLOCK_JOB_COMPLETED'] as const) {
    client.on(name, ({ data }) => jobEvents.push(`${name} ${data.device} ${data.offset}`));
  }
  await qemuIo(host, 'drive0 "write -P 1 0 2M"');
  await client.execute('blockdev-mirror', { device: 'drive0', target: 'copy', sync: 'full' });
  const [device] = await client.execute('query-block');
  expect(device?.inserted).toMatchObject({
    drv: 'mirror_top',
    'node-name': expect.stringMatching(/^#block/),
  });
  await until(() => jobEvents.length === 1, 'the mirror is ready');
  await qemuIo(host, 'drive0 "write -P 2 1M 64k"');
  expect(await qemuIo(host, 'copy "read -P 2 1M 64k"')).toMatch(/^read/);
  expect(await qemuIo(host, 'copy "read -P 1 0 1M"')).toMatch(/^read/);
  expect(await client.execute('query-block-jobs')).toMatchObject([
    { device: 'drive0', ready: true },
  ]);
  await client.execute('block-job-complete', { device: 'drive0' });
  expect((await client.execute('query-block'))[0]?.inserted?.['node-name']).toBe('copy');
  await expect(client.execute('block-job-cancel', { device: 'drive0' })).rejects.toThrow(
    /not found/,
  );
  expect(jobEvents).toEqual([
    `BLOCK_JOB_READY drive0 ${4 * MIB}`,
    `BLOCK_JOB_COMPLETED drive0 ${4 * MIB}`,
  ]);
});

test.each([
  [['--blockdev', 'driver=null-co'], /'node-name' must be specified for the root node/],
  [['--drive', 'file=/nowhere/x,format=raw,if=none'], /Could not open '\/nowhere\/x'/],
  [['--drive', 'file=x,format=raw'], /if=none is missing/],
  [['--device', 'virtio-blk-pci,drive=x'], /Cannot find device='x' nor node-name='x'/],
])('a host whose disks cannot be opened does not start: %j', async (args, message) => {
  const { code, stderr } = await lab.run([
    'host',
    '--qmp',
    `unix:${await lab.path('qmp')}`,
    ...IDLE,
    ...args,
  ]);
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});
