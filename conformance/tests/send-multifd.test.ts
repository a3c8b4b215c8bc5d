import { join } from 'node:path';
import { describe, expect } from 'vitest';
import { peerTest } from '../peer-test.ts';
import { type Peer, type Release, releases } from '../peers/peers.ts';
import { QemuProcess } from '../qemu.ts';
import { expectGoesOn, save, send } from '../sent-guest.ts';
import { TLS_HOSTNAME, tlsFolder, tlsObject } from '../tls-credentials.ts';

// What happens depends on the numbers: one release is enough where time is short.
const strict = process.env['WHERRY_ALL_PEERS'] === '1' ? releases : releases.slice(-1);
const UUID = '12345678-9abc-def0-1234-56789abcdef0';

interface Cell {
  readonly channels: number;
  readonly compression: 'none' | 'zlib' | 'zstd';
  /** The oldest that all releases know, unless told: it waits for the channels at each section. */
  readonly machine?: string;
  readonly detection?: 'legacy' | 'multifd';
  readonly tls?: 'good' | 'psk';
  readonly uuid?: string;
}

/** What each release can do. */
function cellsOf(release: Release): readonly Cell[] {
  const isNew = release === '10.0' || release === '11.1';
  const newest = { machine: 'pc-q35-10.0' };
  return [
    { channels: 8, compression: 'none', uuid: UUID },
    { channels: 2, compression: 'zlib' },
    ...(release === '5.2'
      ? [] // without zstd in its build, and TLS with multifd is since 6.0
      : ([
          { channels: 2, compression: 'zstd' },
          { channels: 2, compression: 'none', tls: 'good' },
          { channels: 2, compression: 'zlib', tls: 'psk' },
        ] as const)),
    ...(isNew
      ? ([
          { channels: 2, compression: 'none', ...newest },
          { channels: 2, compression: 'none', ...newest, detection: 'legacy' },
          { channels: 8, compression: 'zstd', ...newest },
        ] as const)
      : []),
  ];
}

const titleOf = ({ channels, compression, ...cell }: Cell): string =>
  [`${channels} channels`, compression, ...Object.values(cell)].join(', ');

/** Sends a guest into a QEMU that listens with these channels. */
async function moves(peer: Peer, cell: Cell): Promise<void> {
  const { channels, compression, machine = 'pc-q35-5.2', detection, tls, uuid } = cell;
  const common = uuid === undefined ? [] : ['-uuid', uuid];
  await using source = await QemuProcess.start(peer, { machine, args: common });
  const file = await save(source);
  await using destination = await QemuProcess.start(peer, {
    ...{ machine, incoming: 'defer' },
    args: [...common, ...(tls === undefined ? [] : tlsObject(tlsFolder(tls), 'server'))],
  });
  await destination.listen('unix:in.sock', {
    capabilities: ['multifd'],
    parameters: {
      ...{ 'multifd-channels': channels, 'multifd-compression': compression },
      ...(tls === undefined ? {} : { 'tls-creds': 'tls0' }),
    },
  });
  const { exitCode, stdout, stderr } = await send(
    ...[file, `unix:${join(destination.directory, 'in.sock')}`],
    ...['--multifd', `${channels}`, '--multifd-compression', compression],
    ...(detection === undefined ? [] : ['--zero-page-detection', detection]),
    ...(uuid === undefined ? [] : ['--uuid', uuid]),
    ...(tls === undefined ? [] : ['--tls-creds', tlsFolder(tls), '--tls-hostname', TLS_HOSTNAME]),
  );
  expect({ exitCode, stderr }, destination.stderr).toEqual({ exitCode: 0, stderr: '' });
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ status: 'completed', confirmed: true });
  expect(report.zeroPages).toBeGreaterThan(1000);
  expect(report.normalPages).toBeGreaterThan(20);
  await destination.waitForMigration();
  await expectGoesOn(source, destination);
}

describe.each(releases)('wherry send --multifd to %s', (release) => {
  for (const cell of cellsOf(release)) {
    peerTest(release, `${titleOf(cell)}: the guest goes on`, (peer) => moves(peer, cell));
  }
});

describe.each(strict)(
  'wherry send --multifd beside a destination that does not fit, %s',
  (release) => {
    for (const [title, channels, expected] of [
      ['fewer channels', 1, 'multifd|closed the connection'],
      ['more channels', 3, 'It waits for more connections'],
      ['no multifd', undefined, 'multifd|closed the connection'],
    ] as const) {
      peerTest(release, `one error where it has ${title}`, async (peer) => {
        await using source = await QemuProcess.start(peer);
        const file = await save(source);
        await using destination = await QemuProcess.start(peer, { incoming: 'defer' });
        await destination.listen(
          'unix:in.sock',
          channels === undefined
            ? {}
            : { capabilities: ['multifd'], parameters: { 'multifd-channels': channels } },
        );
        const uri = `unix:${join(destination.directory, 'in.sock')}`;
        const { exitCode, stdout, stderr } = await send(file, uri, '--multifd', '2');
        expect(exitCode).toBe(1);
        expect(stderr).toMatch(new RegExp(expected));
        expect(JSON.parse(stdout)).toMatchObject({ status: 'failed' });
      });
    }
  },
);
