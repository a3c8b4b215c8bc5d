import { afterEach, describe, expect, test } from 'vitest';
import { CALM, expectGuestRuns, Lab, untilStatus } from './processes.ts';

const lab = new Lab();
afterEach(() => lab.close());

const add = (...devices: readonly string[]): string[] =>
  devices.flatMap((device) => ['--device', device]);

describe('a guest that cannot be migrated', () => {
  const BLOCKERS = add('nvme', 'ivshmem-plain', 'rocker,addr=10.0', 'virtio-crypto-pci', 'nvme');
  /** As QEMU lists them: its own blockers, then the devices, youngest first. */
  const REASONS = [
    "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
    'non-migratable device: 0000:00:07.0/nvme',
    'non-migratable device: 0000:00:06.0/virtio-crypto',
    'non-migratable device: 0000:00:10.0/rocker',
    'non-migratable device: 0000:00:01.0/nvme',
  ];

  test('says what blocks it, all at once, and refuses to begin', async () => {
    const host = await lab.host([...CALM, ...BLOCKERS]);
    const { client } = host;
    await client.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'events', state: true }],
    });
    expect(await client.execute('query-migrate')).toEqual({ 'blocked-reasons': REASONS });
    await expect(client.execute('migrate', { uri: 'tcp:127.0.0.1:1' })).rejects.toMatchObject({
      qmpClass: 'GenericError',
      desc: [
        "State blocked by non-migratable device '0000:00:01.0/nvme'",
        "State blocked by non-migratable device '0000:00:10.0/rocker'",
        "State blocked by non-migratable device '0000:00:06.0/virtio-crypto'",
        "State blocked by non-migratable device '0000:00:07.0/nvme'",
        "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
      ].join('; '),
    });
    expect(await client.execute('query-migrate')).toEqual({ 'blocked-reasons': REASONS });
    expect(host.events).toEqual([]);
    await expectGuestRuns(host);
  });

  test('refuses with QEMU’s own words where there is one', async () => {
    const { client } = await lab.host([...CALM, ...add('virtio-sound-pci')]);
    await expect(client.execute('migrate', { uri: 'tcp:127.0.0.1:1' })).rejects.toThrow(
      /^State blocked by non-migratable device '0000:00:01.0\/virtio-sound-device'$/,
    );
  });

  test('is one clear failure of `wherry migrate`, and neither side is changed', async () => {
    const source = await lab.host([...CALM, ...BLOCKERS]);
    const destination = await lab.host([...CALM, '--incoming', 'defer']);
    const { code, stdout, stderr } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--postcopy'],
    ]);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr.split('\n')).toEqual([
      'wherry: The guest cannot be migrated; nothing was changed on either side:',
      ...REASONS.map((reason) => `  ${reason}`),
      'Unplug what blocks it, or start the guest without it',
      '',
    ]);
    expect(await destination.client.execute('query-migrate')).toEqual({});
    for (const { client } of [source, destination]) {
      const capabilities = await client.execute('query-migrate-capabilities');
      expect(capabilities.every(({ state }) => !state)).toBe(true);
    }
    await expectGuestRuns(source);
  });

  test('is not started with --only-migratable, which names all that is in its way', async () => {
    const qmp = `unix:${await lab.path('qmp')}`;
    const start = (...args: string[]) => lab.run(['host', '--qmp', qmp, ...CALM, ...args]);
    const { code, stderr } = await start('--only-migratable', ...BLOCKERS);
    expect(code).toBe(2);
    expect(stderr).toBe(
      `wherry: ${[
        'Device nvme is not migratable, but --only-migratable was specified',
        "disallowing migration blocker (--only-migratable) for: Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
        'Device rocker is not migratable, but --only-migratable was specified',
        'Device virtio-crypto-device is not migratable, but --only-migratable was specified',
      ].join('; ')}\n`,
    );
    const { client } = await lab.host([...CALM, '--only-migratable', ...add('wherry-testdev')]);
    expect(await client.execute('query-status')).toMatchObject({ running: true });
  });

  test.each([
    [['foo'], /'foo' is not a valid device model name here: use nvme, /],
    [['nvme,addr=20'], /Property 'nvme\.addr' doesn't take value '20'/],
    [['nvme,fail=pre_save'], /Property 'nvme\.fail' not found/],
    [['wherry-testdev,state=65M'], /Property 'wherry-testdev\.state' doesn't take value '65M'/],
    [['wherry-testdev,fail=often'], /Property 'wherry-testdev\.fail' doesn't take value 'often'/],
    [
      ['nvme,addr=2'],
      /^wherry: PCI: slot 2 function 0 not available for nvme, in use by virtio-net-pci$/m,
    ],
    [['nvme,addr=1f.0'], /PCI: slot 31 function 0 not available for nvme, in use by ICH9-LPC/],
    [Array<string>(28).fill('nvme'), /PCI: no slot\/function available for nvme, all in use/],
    [['amd-iommu', 'amd-iommu'], /QEMU does not support multiple vIOMMUs for x86 yet/],
  ])('devices that cannot be are refused: %j', async (devices, why) => {
    const qmp = `unix:${await lab.path('qmp')}`;
    const { code, stderr } = await lab.run(['host', '--qmp', qmp, ...CALM, ...add(...devices)]);
    expect(code).toBe(2);
    expect(stderr).toMatch(why);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe('a device whose hook fails', () => {
  test.each([
    ['pre_save', 'precopy', []],
    ['post_save', 'postcopy', ['--postcopy', '--max-bandwidth', '10M']],
  ] as const)(
    '%s at the source, in %s: said by name, the guest goes on',
    async (hook, _, options) => {
      const source = await lab.host([
        ...CALM,
        ...add('wherry-testdev', `wherry-testdev,fail=${hook}`),
      ]);
      const destination = await lab.host([
        ...[...CALM, '--incoming', 'defer'],
        ...add('wherry-testdev', 'wherry-testdev'),
      ]);
      const { code, stderr } = await lab.run([
        ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...options],
      ]);
      expect(code).toBe(1);
      const why = `error while saving state for instance 0x1 of device 'wherry-testdev': ${hook} of 'wherry-testdev' refused the state: found this device was made to fail, in wherry-testdev`;
      expect(stderr.split('\n')).toEqual([
        `source: ${why}`,
        expect.stringMatching(/^destination: /),
        'the guest runs on at the source',
        '',
      ]);
      expect(await untilStatus(source, 'failed')).toMatchObject({ 'error-desc': why });
      await expectGuestRuns(source);
    },
  );

  test.each([
    ['pre_load', 'precopy', []],
    ['post_load', 'postcopy', ['--postcopy', '--max-bandwidth', '10M']],
  ] as const)(
    '%s at the destination, in %s: said by name, the guest goes on',
    async (hook, _, options) => {
      const source = await lab.host([...CALM, ...add('wherry-testdev')]);
      const destination = await lab.host([
        ...[...CALM, '--incoming', 'defer'],
        ...add(`wherry-testdev,fail=${hook}`),
      ]);
      const { code, stderr } = await lab.run([
        ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', ...options],
      ]);
      expect(code).toBe(1);
      const { 'error-desc': why = '' } = await untilStatus(destination, 'failed');
      expect(why.replace(/0x[0-9a-f]+ \(\d+\)/, 'N')).toBe(
        `error while loading state for instance 0x0 of device 'wherry-testdev': ${hook} of 'wherry-testdev' refused the state: found this device was made to fail, at offset N, in wherry-testdev`,
      );
      expect(stderr.split('\n')).toEqual([
        expect.stringMatching(/^source: The destination could not load the guest/),
        `destination: ${why}`,
        'the guest runs on at the source',
        '',
      ]);
      await expectGuestRuns(source);
    },
  );

  test('moves where none fails', async () => {
    const [source, destination] = await lab.pair([...CALM, ...add('wherry-testdev,state=3M')]);
    const { code, stdout } = await lab.run([
      ...['migrate', source.qmp, destination.qmp, 'tcp:127.0.0.1:0', '--json'],
    ]);
    expect(code).toBe(0);
    const devices: { name: string; equal: boolean }[] = JSON.parse(stdout).comparison.devices;
    expect(devices).toContainEqual(
      expect.objectContaining({ name: 'wherry-testdev', equal: true }),
    );
    await expectGuestRuns(destination);
  });
});
