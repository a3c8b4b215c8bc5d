import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { QmpClient } from '@wherry/qmp';
import { expect } from 'vitest';
import type { Peer } from './peers/peers.ts';
import { QemuProcess } from './qemu.ts';
import { connectQmpSocket } from './qmp-socket.ts';
import { ramPages } from './ram-pages.ts';
import { SimulatedHost } from './simulated-host.ts';

/** All of a q35's RAM blocks: in postcopy QEMU asks for pages of each of them. */
const BLOCKS = [
  ['pc.ram', '16M'],
  ['hugemem', '8M'],
  ['pc.bios', '64K'],
  ['pc.rom', '128K'],
  ['/rom@etc/acpi/tables', '128K'],
  ['/rom@etc/table-loader', '4K'],
  ['/rom@etc/acpi/rsdp', '4K'],
] as const;

/** Options of a host with these blocks. An idle vCPU sends no section that QEMU would not know. */
export function hostOptions(args: readonly string[], isHuge: boolean): string[] {
  const ram = BLOCKS.flatMap(([name, size]) => [
    '--ram',
    `${name}=${size}${isHuge && name === 'hugemem' ? ',page=2M' : ''}`,
  ]);
  return [...ram, '--vcpu', 'idle', ...args];
}

/** Starts a QEMU that a host with these blocks can move into; its `pc.ram` may lie in a shared file. */
export function startQemu(
  peer: Peer,
  args: readonly string[],
  isHuge: boolean,
  sharedFile?: string,
): Promise<QemuProcess> {
  const huge = isHuge ? 'memfd,hugetlb=on,hugetlbsize=2M,share=off' : 'ram';
  const ram = sharedFile === undefined ? 'ram' : `file,share=on,mem-path=${sharedFile}`;
  const memory = [
    ...['-object', `memory-backend-${ram},id=pc.ram,size=16M`, '-numa', 'node,memdev=pc.ram'],
    ...['-object', `memory-backend-${huge},id=hugemem,size=8M`, '-numa', 'node,memdev=hugemem'],
  ];
  const disk = 'driver=null-co,node-name=disk0,size=1048576,read-zeroes=on';
  return QemuProcess.start(peer, {
    ram: '24M',
    incoming: 'defer',
    args: [
      ...memory,
      ...['-qmp', 'unix:second.sock,server=on,wait=off'], // the first has a client already
      ...['-blockdev', disk],
      ...['-device', 'virtio-net-pci,addr=02.0,romfile='],
      ...['-device', 'virtio-blk-pci,addr=03.0,drive=disk0'],
      ...['-device', 'virtio-balloon-pci,addr=04.0'],
      ...args,
    ],
  });
}

/** Has QEMU write its own stream. */
export async function streamOf(qemu: QemuProcess): Promise<Uint8Array> {
  // A file gives no return path, which postcopy wants.
  const capabilities = (await qemu.qmp.execute('query-migrate-capabilities'))
    .filter(({ capability, state }) => state && capability.startsWith('postcopy-'))
    .map(({ capability }) => ({ capability, state: false }));
  await qemu.qmp.execute('migrate-set-capabilities', { capabilities });
  await qemu.migrate('exec:cat > out.stream');
  return readFileSync(join(qemu.directory, 'out.stream'));
}

/** The pages of a host with these options: it writes them into a file itself. */
async function pagesOfHost(hostArgs: readonly string[]): Promise<Map<string, string>> {
  const directory = mkdtempSync(join(tmpdir(), 'wherry-twin-'));
  try {
    const qmp = join(directory, 'twin.qmp');
    const file = join(directory, 'twin.stream');
    await using _ = await SimulatedHost.start(qmp, hostOptions(hostArgs, false));
    const client = await QmpClient.connect(await connectQmpSocket(qmp));
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    const completed = client.waitForEvent('MIGRATION', ({ data }) => data.status === 'completed');
    await client.execute('migrate', { uri: `exec:cat > ${file}` });
    await completed;
    client.close();
    return ramPages(readFileSync(file));
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Holds what QEMU has against what a host with the same options has. */
export async function expectSamePages(
  stream: Uint8Array,
  hostArgs: readonly string[],
): Promise<void> {
  const expected = await pagesOfHost(hostArgs);
  const found = ramPages(stream);
  const wrong = [...expected].filter(([page, digest]) => found.get(page) !== digest);
  expect(expected.size).toBeGreaterThan(6000);
  expect(wrong).toEqual([]);
}
