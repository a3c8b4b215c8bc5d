import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ByteWriter } from '@wherry/bytes';
import { QmpClient } from '@wherry/qmp';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../fixtures.ts';
import { peerTest } from '../peer-test.ts';
import { releases } from '../peers/peers.ts';
import { connectQmpSocket } from '../qmp-socket.ts';
import { startMachine } from '../record-case.ts';
import { recordCases } from '../record-cases.ts';
import { SimulatedHost } from '../simulated-host.ts';

type Name = readonly [idstr: string, instanceId: number];

/** Gives the section of a device in a stream another name. */
function rename(stream: Uint8Array, from: Name, to: Name): Uint8Array {
  const encode = ([idstr, instanceId]: Name): Uint8Array =>
    new ByteWriter().counted(idstr).u32(instanceId).finish();
  const at = Buffer.from(stream).indexOf(encode(from));
  expect(stream[at - 5]).toBe(0x04); // FULL, and its id
  const rest = stream.subarray(at + encode(from).length);
  return new ByteWriter().raw(stream.subarray(0, at)).raw(encode(to)).raw(rest).finish();
}

describe('a device is found by', () => {
  const recordCase = recordCases.find(({ name }) => name === 'host-devices')!;
  const cases: readonly { what: string; from: Name; to: Name; refused?: RegExp }[] = [
    {
      what: 'the bare name of before bus paths',
      from: ['0000:00:02.0/virtio-net', 0],
      to: ['virtio-net', 0],
    },
    { what: 'its alias', from: ['serial', 0], to: ['serial', 0x3f8] },
    {
      what: 'no other instance',
      from: ['0000:00:02.0/virtio-net', 0],
      to: ['virtio-net', 1],
      refused: /Unknown (savevm )?section or instance 'virtio-net' 1/,
    },
    {
      what: 'no alias that it has not',
      from: ['serial', 0],
      to: ['serial', 0x2f8],
      refused: /Unknown (savevm )?section or instance 'serial' 760/,
    },
  ];
  for (const release of releases) {
    for (const { what, from, to, refused } of cases) {
      peerTest(release, what, async (peer) => {
        const { stream, meta } = loadFixture(release, 'host-devices');
        await using qemu = await startMachine(peer, recordCase, 'defer');
        writeFileSync(join(qemu.directory, 'stream.qevm'), rename(stream, from, to));
        const loaded = qemu.listen('exec:cat stream.qevm').then(() => qemu.waitForMigration());
        if (refused !== undefined) {
          await expect(loaded).rejects.toThrow(refused);
          return;
        }
        await loaded;
        const pass = meta.lastPass! + 1;
        expect((await qemu.waitForPass(pass))[0]).toEqual({ pass, wrongWords: 0 });
      });
    }
  }

  test.each(cases)('$what, in a simulated host', async ({ from, to, refused }) => {
    const directory = mkdtempSync(join(tmpdir(), 'wherry-names-'));
    const path = (name: string): string => join(directory, name);
    const open = async (name: string, ...args: string[]) => {
      const guest = ['--ram', 'pc.ram=4M', '--vcpu', 'idle', ...args];
      const host = await SimulatedHost.start(path(name), guest);
      return { host, client: await QmpClient.connect(await connectQmpSocket(path(name))) };
    };
    const ended = async (client: QmpClient) => {
      for (;;) {
        const info = await client.execute('query-migrate');
        if (['completed', 'failed'].includes(info.status ?? '')) return info;
        await sleep(20);
      }
    };
    try {
      const source = await open('source');
      await using _source = source.host;
      await source.client.execute('migrate', { uri: `exec:cat > ${path('stream')}` });
      expect((await ended(source.client)).status).toBe('completed');
      writeFileSync(path('renamed'), rename(readFileSync(path('stream')), from, to));
      const destination = await open('destination', '--incoming', 'defer');
      await using _destination = destination.host;
      await destination.client.execute('migrate-incoming', {
        uri: `exec:cat ${path('renamed')}`,
        'exit-on-error': false,
      });
      const info = await ended(destination.client);
      if (refused === undefined) expect(info.status).toBe('completed');
      else expect(info['error-desc']).toMatch(refused);
      for (const { client } of [source, destination]) client.close();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
