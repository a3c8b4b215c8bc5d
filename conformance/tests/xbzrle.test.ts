import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { QmpClient } from '@wherry/qmp';
import { StreamWalk } from '@wherry/snapshot';
import { describe, expect, vi } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { ramPages } from '../ram-pages.ts';
import { SimulatedHost } from '../simulated-host.ts';

/** No virtqueues fit into the first block, so the guest drives no device: QEMU finds them as at power-on. */
const GUEST = [
  ...['--ram', '/rom@etc/table-loader=4K', '--ram', 'pc.ram=16M', '--seed', '9', '--fill', '1'],
  ...['--vcpu', 'random,rate=10000,changes=0.05'],
];
/** A section's head is its type, id, instance and version, and a byte before its name. */
const [HEAD_BYTES, FOOTER_BYTES] = [1 + 4 + 1 + 4 + 4, 5];

/** Leaves the vCPUs' sections out, which QEMU does not know. */
function withoutVcpus(stream: Uint8Array): Uint8Array {
  const walk = new StreamWalk();
  const reader = ByteReader.over(stream);
  runParser(walk.walk(reader), reader);
  const writer = new ByteWriter();
  let copied = 0;
  for (const { idstr, bodyOffset, bodyLengthBytes } of walk.model.devices) {
    if (idstr !== 'wherry-vcpu') continue;
    writer.raw(stream.subarray(copied, bodyOffset - HEAD_BYTES - idstr.length));
    copied = bodyOffset + bodyLengthBytes + FOOTER_BYTES;
  }
  expect(copied).toBeGreaterThan(0);
  return writer.raw(stream.subarray(copied)).finish();
}

/** Reads the pages of a stream that a `cat` writes, once the whole of it is there. */
function writtenPages(file: string): Promise<Map<string, string>> {
  return vi.waitFor(
    () => {
      const stream = readFileSync(file);
      const reader = ByteReader.over(stream);
      runParser(new StreamWalk().walk(reader), reader);
      return ramPages(stream);
    },
    { timeout: 10_000 },
  );
}

/** Has a host write its guest into a file. @returns its query-migrate */
async function writeGuest(qmp: string, file: string, isXbzrle: boolean) {
  const client = await QmpClient.connect(await connectQmpSocket(qmp));
  await client.execute('migrate-set-capabilities', {
    capabilities: [
      { capability: 'events', state: true },
      { capability: 'xbzrle', state: isXbzrle },
    ],
  });
  await client.execute('migrate-set-parameters', {
    'max-bandwidth': 24 * 2 ** 20,
    'downtime-limit': 300,
    'xbzrle-cache-size': 8 * 2 ** 20,
  });
  const ended = client.waitForEvent(
    'MIGRATION',
    ({ data }) => ['completed', 'failed'].includes(data.status),
    { timeoutMs: 10_000 },
  );
  await client.execute('migrate', { uri: `exec:cat > ${file}` });
  expect((await ended).data.status).toBe('completed');
  const info = await client.execute('query-migrate');
  client.close();
  return info;
}

describe('a simulated host’s XBZRLE records', () => {
  for (const release of releases) {
    peerTest(release, 'make the pages of a busy guest in a real QEMU', async (peer) => {
      await using qemu = await QemuProcess.start(peer, {
        ram: '16M',
        incoming: 'defer',
        args: [
          ...['-S', '-object', 'memory-backend-ram,id=pc.ram,size=16M'],
          ...['-machine', 'memory-backend=pc.ram'],
          ...['-device', 'virtio-net-pci,addr=02.0,romfile=', '-blockdev'],
          ...['driver=null-co,node-name=disk0,size=1048576,read-zeroes=on'],
          ...['-device', 'virtio-blk-pci,addr=03.0,drive=disk0'],
          ...['-device', 'virtio-balloon-pci,addr=04.0'],
        ],
      });
      const path = (name: string): string => join(qemu.directory, name);
      await using _source = await SimulatedHost.start(path('a.qmp'), GUEST);
      const { 'xbzrle-cache': xbzrle } = await writeGuest(path('a.qmp'), path('a.stream'), true);
      expect(xbzrle?.pages).toBeGreaterThan(100);
      // A simulated host takes the same stream and checks every page; its plain stream is the measure.
      await using _twin = await SimulatedHost.start(path('b.qmp'), [
        ...[...GUEST, '--paused', '--incoming', `exec:cat ${path('a.stream')}`],
      ]);
      const twin = await QmpClient.connect(await connectQmpSocket(path('b.qmp')));
      await vi.waitFor(async () =>
        expect((await twin.execute('query-migrate')).status).toBe('completed'),
      );
      twin.close();
      await writeGuest(path('b.qmp'), path('b.stream'), false);
      const expected = await writtenPages(path('b.stream'));

      writeFileSync(path('c.stream'), withoutVcpus(readFileSync(path('a.stream'))));
      await qemu.listen('exec:cat c.stream');
      await qemu.waitForMigration();
      await qemu.migrate('exec:cat > d.stream');
      const found = await writtenPages(path('d.stream'));
      expect(expected.size).toBeGreaterThan(4000);
      const wrong = [...expected].filter(([page, digest]) => found.get(page) !== digest);
      expect(wrong).toEqual([]);
    });
  }
});
