import type { MigrationCapability, MigrationParameters } from '@wherry/qmp';
import { expect } from 'vitest';
import { addDirtyBitmaps, bitmapNode } from '../dirty-bitmaps.ts';
import type { MigrationSettings, QemuProcess } from '../qemu.ts';
import { TLS_HOSTNAME, type TlsSet, tlsFolder, tlsObject } from '../tls-credentials.ts';
import type { Mode, Side } from './cell.ts';
import { deviceModes } from './device-modes.ts';
import { fromMappedFile, intoMappedFile } from './mapped.ts';
import {
  type ReceivedOptions,
  type ReceiveReport,
  received,
  slow,
  startPostcopy,
} from './received.ts';
import { breakAndRecover, secondMonitor, sendAndRecover } from './recovery.ts';
import { type SentOptions, sent } from './sent.ts';

const net = { args: ['-device', 'virtio-net-pci,romfile='] };
const sourceOnly = 'the destination has no part in it';

const precopy: readonly Mode[] = [
  ...(['tcp', 'unix', 'exec'] as const).map((channel) => ({
    ...{ group: 'precopy', name: channel, machine: net },
    source: received({ channel, check: expectWhole }),
    destination: sent({ channel }),
  })),
  {
    ...{ group: 'precopy', name: 'fd', machine: net },
    source: 'QEMU takes an outgoing fd: over QMP alone (getfd), and Node can pass none there',
    destination: sent({ channel: 'fd' }),
  },
  {
    ...{ group: 'precopy', name: 'file', since: 8.2, machine: net },
    source: received({ channel: 'file', check: expectWhole }),
    destination: sent({ channel: 'file' }),
  },
  {
    ...{ group: 'precopy', name: 'tcp, return-path', machine: net },
    settings: { capabilities: ['return-path'] },
    source: received({ check: expectWhole }),
    destination: sent(),
  },
];

const postcopySettings: MigrationSettings = { capabilities: ['postcopy-ram'], parameters: slow };
const postcopyWays = {
  source: received({ during: startPostcopy }),
  destination: sent({ sendArgs: ['--postcopy'] }),
};

const postcopy: readonly Mode[] = [
  {
    ...{ group: 'postcopy', name: '4 KiB pages', machine: net, ...postcopyWays },
    settings: postcopySettings,
  },
  {
    ...{ group: 'postcopy', name: '2 MiB hugetlb pages', hugePages: 8, ...postcopyWays },
    settings: postcopySettings,
    machine: {
      machine: 'pc-q35-5.2,memory-backend=pc.ram',
      args: [
        '-object',
        'memory-backend-memfd,id=pc.ram,size=8M,hugetlb=on,hugetlbsize=2M,share=off',
      ],
    },
    destination: sent({ sendArgs: ['--postcopy', '--page-size', 'pc.ram=2M'] }),
  },
  {
    ...{ group: 'postcopy', name: 'preempt', since: 7.1, machine: net, ...postcopyWays },
    settings: {
      capabilities: ['postcopy-ram', 'postcopy-preempt'],
      parameters: slow,
    },
    destination: sent({ sendArgs: ['--postcopy', '--preempt'] }),
  },
  ...([[], ['preempt']] as const).map(
    (preempt): Mode => ({
      ...{ group: 'postcopy', name: ['recovery of a cut link', ...preempt].join(', ') },
      ...(preempt.length === 0 ? {} : { since: 7.1 }),
      machine: { args: [...net.args, ...secondMonitor] },
      settings: {
        capabilities: [
          'postcopy-ram',
          ...preempt.map((): MigrationCapability => 'postcopy-preempt'),
        ],
        parameters: { 'max-bandwidth': 300_000, 'max-postcopy-bandwidth': 300_000 },
      },
      source: received({ during: breakAndRecover }),
      destination: sent({
        channel: 'unix',
        send: (sending) => sendAndRecover(sending, ...preempt.map(() => '--preempt')),
      }),
    }),
  ),
];

const pages: readonly Mode[] = [
  {
    ...{ group: 'pages', name: 'xbzrle', machine: net },
    settings: {
      capabilities: ['xbzrle'],
      parameters: { 'max-bandwidth': 4_000_000, 'downtime-limit': 1 },
    },
    source: received({
      during: async (source) => {
        await source.waitForMigrationInfo(
          (info) => (info['xbzrle-cache']?.pages ?? 0) > 100,
          'send XBZRLE pages',
        );
        await source.configureMigration({
          parameters: { 'max-bandwidth': 2 ** 40, 'downtime-limit': 1000 },
        });
      },
      check: (report) => expect(report.pages.xbzrle).toBeGreaterThan(0),
    }),
    destination: 'a guest out of a file has each page once: wherry host sends differences',
  },
  {
    ...{ group: 'pages', name: 'compress', until: 8.2, machine: net },
    settings: { capabilities: ['compress'] },
    source: received({ check: (report) => expect(report.pages.compress).toBeGreaterThan(0) }),
    destination: sent(),
  },
  {
    ...{ group: 'pages', name: 'auto-converge', machine: net },
    settings: { capabilities: ['auto-converge'] },
    source: received({ check: expectWhole }),
    destination: sourceOnly,
  },
];

/** What both ends of multifd are told. */
function multifd(
  channels: number,
  compression: 'none' | 'zlib' | 'zstd',
  more: MigrationParameters = {},
  sendArgs: readonly string[] = [],
): Pick<Mode, 'settings' | 'source' | 'destination'> {
  const args = ['--multifd', `${channels}`, '--multifd-compression', compression];
  return {
    settings: {
      capabilities: ['multifd'],
      parameters: { 'multifd-channels': channels, 'multifd-compression': compression, ...more },
    },
    source: received({ receiveArgs: args, check: expectMultifd }),
    destination: sent({ sendArgs: [...args, ...sendArgs] }),
  };
}

const multifdModes: readonly Mode[] = [
  ...([2, 8] as const).flatMap((channels) =>
    (['none', 'zlib', 'zstd'] as const).map(
      (compression): Mode => ({
        ...{ group: 'multifd', name: `${channels} channels, ${compression}`, machine: net },
        ...multifd(channels, compression),
        ...(compression === 'zstd' ? { lacking: { '5.2': 'Debian built it without zstd' } } : {}),
      }),
    ),
  ),
  ...(['legacy', 'multifd'] as const).map(
    (detection): Mode => ({
      ...{ group: 'multifd', name: `zero pages: ${detection}`, since: 9, machine: net },
      ...multifd(2, 'none', { 'zero-page-detection': detection }, [
        ...['--zero-page-detection', detection],
      ]),
    }),
  ),
];

const mappedRam: readonly Mode[] = [
  ...(
    [
      ['plain', [], {}],
      ['with multifd', ['multifd'], { 'multifd-channels': 2 }],
      ['direct-io', ['multifd'], { 'multifd-channels': 2, 'direct-io': true }],
    ] as const
  ).map(
    ([name, capabilities, parameters]): Mode => ({
      ...{ group: 'mapped-ram', name, since: name === 'direct-io' ? 9.1 : 9, machine: net },
      settings: { capabilities: ['mapped-ram', ...capabilities], parameters },
      source: fromMappedFile,
      destination: intoMappedFile,
    }),
  ),
  {
    ...{ group: 'mapped-ram', name: 'loaded with postcopy', since: 9 },
    source: 'only a load can be',
    destination:
      'no release lets a destination have both: wherry send --postcopy serves such a file',
  },
];

/** The machine has QEMU's own credentials, as the side it is. */
function tlsMode(
  name: string,
  set: TlsSet,
  {
    capabilities = [],
    parameters = {},
    ...ways
  }: {
    readonly capabilities?: readonly MigrationCapability[];
    readonly parameters?: MigrationParameters;
  } & Pick<ReceivedOptions, 'during' | 'receiveArgs'> &
    Pick<SentOptions, 'sendArgs'>,
): Mode {
  const creds = ['--tls-creds', tlsFolder(set)];
  return {
    ...{ group: 'TLS', name },
    machine: (_, side: Side) => ({
      args: [...net.args, ...tlsObject(tlsFolder(set), side === 'source' ? 'client' : 'server')],
    }),
    settings: {
      capabilities,
      parameters: { ...parameters, 'tls-creds': 'tls0', 'tls-hostname': TLS_HOSTNAME },
    },
    source: received({ ...ways, receiveArgs: [...creds, ...(ways.receiveArgs ?? [])] }),
    destination: sent({ sendArgs: [...creds, ...(ways.sendArgs ?? [])] }),
  };
}

const multifdArgs = ['--multifd', '2'];
const tls: readonly Mode[] = [
  tlsMode('x509', 'good', {}),
  tlsMode('PSK', 'psk', {}),
  tlsMode('x509, multifd', 'good', {
    capabilities: ['multifd'],
    receiveArgs: multifdArgs,
    sendArgs: multifdArgs,
  }),
  tlsMode('x509, postcopy', 'good', {
    capabilities: ['postcopy-ram'],
    parameters: slow,
    during: startPostcopy,
    sendArgs: ['--postcopy'],
  }),
];

const validateUuid: MigrationSettings = { capabilities: ['validate-uuid'] };
const ignoreShared: MigrationSettings = { capabilities: ['x-ignore-shared'] };

const capabilities: readonly Mode[] = [
  {
    ...{ group: 'capabilities', name: 'switchover-ack', since: 8.1, machine: net },
    settings: { capabilities: ['return-path', 'switchover-ack'] },
    source: received({ receiveArgs: ['--switchover-ack'], check: expectWhole }),
    destination: sent(),
  },
  {
    ...{ group: 'capabilities', name: 'pause-before-switchover', machine: net },
    settings: { capabilities: ['pause-before-switchover'] },
    source: received({
      during: async (source) => {
        await source.waitForMigration(['pre-switchover']);
        await source.qmp.execute('migrate-continue', { state: 'pre-switchover' });
      },
      check: expectWhole,
    }),
    destination: sourceOnly,
  },
  {
    ...{ group: 'capabilities', name: 'validate-uuid' },
    machine: { args: [...net.args, '-uuid', '00112233-4455-6677-8899-aabbccddeeff'] },
    settings: validateUuid,
    source: received({ load: validateUuid, check: expectWhole }),
    destination: sent({ save: validateUuid }),
  },
  {
    ...{ group: 'capabilities', name: 'x-ignore-shared' },
    machine: (folder) => ({
      machine: 'pc-q35-5.2,memory-backend=pc.ram',
      args: [
        '-object',
        `memory-backend-file,id=pc.ram,size=8M,share=on,mem-path=${folder}/shared.ram`,
      ],
    }),
    settings: ignoreShared,
    source: received({ load: ignoreShared }),
    destination: sent({ save: ignoreShared }),
    failing: [
      {
        side: 'source',
        releases: ['5.2', '7.2'],
        cause: 'wherry receive keeps no stream without RAM',
        says: /a migration with x-ignore-shared/,
      },
      {
        side: 'source',
        releases: ['10.0'],
        cause:
          '10.0 neither writes nor loads mapped-ram with x-ignore-shared; wherry receive keeps no stream without RAM',
        says: /bad alignment/,
      },
      {
        side: 'destination',
        cause: 'wherry send takes no stream without RAM',
        says: /a migration with x-ignore-shared/,
      },
    ],
  },
  {
    ...{ group: 'capabilities', name: 'background-snapshot', since: 6, machine: net },
    settings: { capabilities: ['background-snapshot'] },
    source: received({ isSnapshot: true }),
    destination: sourceOnly,
  },
];

const bitmapNames = ['coarse', 'empty', 'fine'];
const dirtyBitmaps: MigrationSettings = { capabilities: ['dirty-bitmaps'] };
const mappedBitmaps: MigrationSettings = {
  ...dirtyBitmaps,
  parameters: {
    'block-bitmap-mapping': [
      {
        'node-name': 'disk0',
        alias: 'elsewhere',
        bitmaps: [
          { name: 'coarse', alias: 'rough' },
          { name: 'fine', alias: 'thin' },
        ],
      },
    ],
  },
};

const bitmaps: readonly Mode[] = (
  [
    ['dirty-bitmaps', dirtyBitmaps, bitmapNames],
    ['block-bitmap-mapping', mappedBitmaps, ['coarse', 'fine']],
  ] as const
).map(([name, settings, expected]) => {
  const check = (qemu: QemuProcess): Promise<void> => expectBitmaps(qemu, expected);
  return {
    ...{ group: 'bitmaps', name, settings, machine: { args: bitmapNode } },
    source: received({ before: addDirtyBitmaps, load: settings, checkLoaded: check }),
    destination: sent({ before: addDirtyBitmaps, save: settings, check }),
  };
});

/** The table: what each release is run in, from both sides. */
export const modes: readonly Mode[] = [
  ...precopy,
  ...postcopy,
  ...pages,
  ...multifdModes,
  ...mappedRam,
  ...tls,
  ...capabilities,
  ...bitmaps,
  ...deviceModes,
];

/** Every page that the source counts arrived, and what describes the devices. */
async function expectWhole(report: ReceiveReport, source: QemuProcess): Promise<void> {
  const { ram } = await source.qmp.execute('query-migrate');
  expect(report.vmdesc).toBe(true);
  expect(report.pages.zero).toBe(ram?.duplicate);
  expect(report.pages.page).toBeGreaterThan(0);
}

async function expectMultifd(_: ReceiveReport, source: QemuProcess): Promise<void> {
  const { ram } = await source.qmp.execute('query-migrate');
  // More than the first packets of two channels.
  expect(Number(ram?.['multifd-bytes'])).toBeGreaterThan(1344);
}

async function expectBitmaps({ qmp }: QemuProcess, names: readonly string[]): Promise<void> {
  const nodes = (await qmp.execute('query-named-block-nodes')) as readonly {
    readonly 'dirty-bitmaps'?: readonly { readonly name: string }[];
  }[];
  const found = nodes.flatMap((node) => node['dirty-bitmaps'] ?? []).map(({ name }) => name);
  expect(found.sort()).toEqual(names);
}
