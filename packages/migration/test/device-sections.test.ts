import { ByteReader, ByteWriter, type Parser, runParser, skip } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import {
  readConfiguration,
  readFooter,
  readHeader,
  readItem,
  readVmdescLength,
} from '@wherry/stream';
import {
  type Device,
  DeviceRegistry,
  describe as describeState,
  field,
  type MigrationPriority,
  parseVmdesc,
  u32,
} from '@wherry/vmstate';
import { describe, expect, it } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
import { SourceFrames } from '../src/source-frames.ts';
import { simulate } from './simulate.ts';

interface DeviceSpec {
  readonly name: string;
  readonly priority?: MigrationPriority;
  readonly earlySetup?: boolean;
  readonly busPath?: string;
  readonly instanceId?: number;
  readonly hook?: 'preSave' | 'postSave' | 'preLoad' | 'postLoad';
  readonly unmigratable?: boolean;
}

/** A device of one number, and the number. */
function device(registry: DeviceRegistry, spec: DeviceSpec, value = 0): { value: number } {
  const { name, busPath, instanceId, hook, ...where } = spec;
  const held = { value };
  const refuse = (): void => {
    throw new Error('the backend is gone');
  };
  registry.register({
    ...(busPath === undefined ? {} : { busPath }),
    ...(instanceId === undefined ? {} : { instanceId }),
    description: describeState({
      name,
      version: 1,
      fields: [field('value', u32)],
      ...where,
      ...(hook === undefined ? {} : { [hook]: refuse }),
    }),
    get: () => ({ ...held }),
    set: (state) => Object.assign(held, state),
  });
  return held;
}

function devicesOf(...specs: readonly DeviceSpec[]): readonly Device[] {
  const registry = new DeviceRegistry();
  for (const [i, spec] of specs.entries()) device(registry, spec, i + 1);
  return registry.devices;
}

/** The sections of a stream of these devices, and what its vmdesc tells of them. */
async function sectionsOf(devices: readonly Device[]) {
  const ram = await GuestRam.create([{ name: 'pc.ram', lengthBytes: 8192, hostPageBytes: 4096 }]);
  const writer = new ByteWriter();
  const frames = new SourceFrames(writer, 'pc', new DeviceRegistry(devices));
  frames.begin();
  frames.setUp(ram, false);
  frames.ramHead('end');
  frames.ramEnd();
  frames.devices();
  frames.end(true);
  const bytes = writer.finish();
  const reader = ByteReader.over(bytes);
  const run = <T>(parser: Parser<T>): T => runParser(parser, reader);
  run(readHeader(reader));
  run(readConfiguration(reader));
  const sections: string[] = [];
  const bodies = { start: 8 + 1 + 6 + 8 + 8, end: 8, full: 4, part: 0 };
  for (;;) {
    const item = run(readItem(reader));
    if (item.type !== 'section') break;
    const { head } = item;
    const name = 'idstr' in head ? `${head.idstr} ${head.instanceId}` : 'ram';
    sections.push(`${head.kind} ${name} #${head.sectionId}`);
    run(skip(reader, bodies[head.kind]));
    run(readFooter(reader, head.sectionId, name));
  }
  run(readVmdescLength(reader));
  const vmdesc = parseVmdesc(new TextDecoder().decode(bytes.subarray(reader.offset)));
  return {
    sections,
    described: vmdesc.devices.map(({ name, instance_id }) => `${name} ${instance_id}`),
  };
}

describe('the sections of devices', () => {
  it('go out by priority, with the ids of their registration', async () => {
    const { sections, described } = await sectionsOf(
      devicesOf(
        { name: 'serial' },
        { name: 'late', priority: 'low' },
        { name: 'iommu', priority: 'iommu' },
        { name: 'apic', priority: 'apic' },
        { name: 'apic', priority: 'apic' },
        { name: 'e1000', busPath: '0000:00:01.0' },
      ),
    );
    expect(sections).toEqual([
      'start ram 0 #1',
      'end ram #1',
      'full apic 0 #6',
      'full apic 1 #7',
      'full iommu 0 #5',
      'full serial 0 #3',
      'full 0000:00:01.0/e1000 0 #8',
      'full late 0 #4',
    ]);
    expect(described).toEqual(
      sections.slice(2).map((section) => section.replace(/^full (.*) #.*/, '$1')),
    );
  });

  it('of early setup go out once, around the beginning of RAM, and lead the vmdesc', async () => {
    const { sections, described } = await sectionsOf(
      devicesOf(
        { name: 'serial' },
        { name: 'last', priority: 'low', earlySetup: true },
        { name: 'mem-early', earlySetup: true },
        { name: 'virtio-mem-device-early', priority: 'virtio-mem', earlySetup: true },
        { name: 'bus', priority: 'pci-bus' },
      ),
    );
    expect(sections).toEqual([
      'full virtio-mem-device-early 0 #6',
      'start ram 0 #1',
      'full mem-early 0 #5',
      'full last 0 #4',
      'end ram #1',
      'full bus 0 #7',
      'full serial 0 #3',
    ]);
    const names = ['virtio-mem-device-early', 'mem-early', 'last', 'bus', 'serial'];
    expect(described).toEqual(names.map((name) => `${name} 0`));
  });
});

/** What releases give a priority of its own, of what is in the recorded streams. */
function recordedPriority(release: string, idstr: string): MigrationPriority {
  if (release === '11.1') {
    if (idstr === 'apic') return 'apic';
    if (idstr.endsWith('/virtio-mem-device-early')) return 'virtio-mem';
  }
  return 'default';
}

/** The START of RAM and the FULL sections of a recorded stream in their order, and the devices in that of their section ids. */
function recordedSections(release: string, name: string) {
  const stream = Buffer.from(loadFixture(release, name).stream);
  const find = (type: number, idstr: string, instanceId: number) => {
    const head = new ByteWriter().counted(idstr).u32(instanceId).finish();
    let at = -1;
    do at = stream.indexOf(head, at + 1);
    while (at > 0 && stream[at - 5] !== type);
    return { idstr, instanceId, offset: at, sectionId: stream.readUInt32BE(at - 4) };
  };
  const vmdescAt = Math.max(
    stream.lastIndexOf('{"configuration"'), // from 10.0 on
    stream.lastIndexOf('{"page_size"'),
  );
  const { devices } = parseVmdesc(stream.toString('utf8', vmdescAt));
  const full = devices.map((entry) => find(0x04, entry.name, entry.instance_id));
  const byOffset = [find(0x01, 'ram', 0), ...full].toSorted((a, b) => a.offset - b.offset);
  return {
    order: byOffset.map(({ idstr, instanceId }) => `${idstr} ${instanceId}`),
    described: devices.map((entry) => `${entry.name} ${entry.instance_id}`),
    devices: full.toSorted((a, b) => a.sectionId - b.sectionId),
  };
}

describe.each([
  ...['7.2/zoo-q35', '7.2/zoo-pc', '7.2/s390x', '7.2/ppc64'],
  ...['10.0/zoo-q35', '10.0/zoo-microvm', '10.0/early-setup'],
  ...['11.1/zoo-q35', '11.1/zoo-pc', '11.1/zoo-microvm', '11.1/early-setup', '11.1/s390x'],
])('the stream of QEMU %s', (fixture) => {
  it('has its sections in the order in which this sends them', async () => {
    const [release = '', name = ''] = fixture.split('/');
    const recorded = recordedSections(release, name);
    const registry = new DeviceRegistry();
    for (const { idstr, instanceId } of recorded.devices) {
      const priority = recordedPriority(release, idstr);
      const earlySetup = idstr.endsWith('-early');
      device(registry, { name: idstr, instanceId, priority, earlySetup });
    }
    const { sections, described } = await sectionsOf(registry.devices);
    const order = sections.filter((section) => !section.startsWith('end'));
    expect(order.map((section) => section.replace(/^\w+ (.*) #.*/, '$1'))).toEqual(recorded.order);
    expect(described).toEqual(recorded.described);
    expect(recorded.order.length).toBeGreaterThan(15);
  });
});

const MODES = [
  ['precopy', {}],
  ['postcopy', { startPostcopyAfterMs: 5, network: { bytesPerMs: 3000 } }],
] as const;
const CAPABILITIES = { precopy: ['return-path'], postcopy: ['postcopy-ram'] } as const;

describe.each(MODES)('devices in %s', (mode, scenario) => {
  const run = (source: readonly Device[], destination: readonly Device[]) =>
    simulate({
      ...scenario,
      seed: 3,
      capabilities: CAPABILITIES[mode],
      source: { furtherDevices: source },
      destination: { furtherDevices: destination },
    });

  it('arrive whatever their order, early ones too', async () => {
    const specs: DeviceSpec[] = [
      { name: 'early', earlySetup: true, priority: 'virtio-mem' },
      { name: 'other-early', earlySetup: true },
      { name: 'plain' },
      { name: 'plain' },
      { name: 'first', priority: 'gicv3' },
    ];
    const registry = new DeviceRegistry();
    const held = specs.map((spec) => device(registry, spec));
    const outcome = await run(devicesOf(...specs), registry.devices);
    const { deviceStates } = outcome.source;
    expect(outcome.source.error ?? outcome.destination.error).toBeUndefined();
    expect(held.map(({ value }) => value)).toEqual([1, 2, 3, 4, 5]);
    expect(deviceStates.map(({ idstr }) => idstr)).toEqual([
      ...['early', 'other-early', 'first', 'globalstate', 'witness', 'plain', 'plain'],
    ]);
    expect(new Set(outcome.destination.deviceStates)).toEqual(new Set(deviceStates));
  });

  it('find their way by the name of an older release', async () => {
    const registry = new DeviceRegistry();
    const [first, second] = ['0000:00:05.0', '0000:00:06.0'].map((busPath) =>
      device(registry, { name: 'e1000', busPath }),
    );
    const outcome = await run(devicesOf({ name: 'e1000' }, { name: 'e1000' }), registry.devices);
    expect(outcome.destination.error).toBeUndefined();
    expect(outcome.running.names).toEqual(['destination']);
    expect([first?.value, second?.value]).toEqual([1, 2]);
  });

  it.each([
    ['preSave', false, 'pre_save'],
    ['postSave', false, 'post_save'],
    ['preSave', true, 'pre_save'],
  ] as const)(
    '%s that fails at the source ends it there, early setup %s',
    async (hook, earlySetup, name) => {
      const spec = { name: 'tpm', busPath: 'isa', earlySetup };
      const outcome = await run(devicesOf({ ...spec, hook }), devicesOf(spec));
      const { source, destination, running } = outcome;
      expect(source.info['error-desc']).toBe(
        `error while saving state for instance 0x0 of device 'isa/tpm': ${name} of 'tpm' refused the state: found the backend is gone, in isa/tpm`,
      );
      expect([source.status, destination.status]).toEqual(['failed', 'failed']);
      expect(running.names).toEqual(['source']);
      expect(source.info['total-time']).toBeLessThan(500); // nobody's last word is waited for
    },
  );

  it.each([
    ['preLoad', false, 'pre_load'],
    ['postLoad', false, 'post_load'],
    ['postLoad', true, 'post_load'],
  ] as const)(
    '%s that fails at the destination is told there, early setup %s',
    async (hook, earlySetup, name) => {
      const spec = { name: 'tpm', busPath: 'isa', earlySetup };
      const outcome = await run(devicesOf(spec), devicesOf({ ...spec, hook }));
      const { source, destination, running } = outcome;
      expect(destination.info['error-desc']?.replace(/0x[0-9a-f]+ \(\d+\)/, 'N')).toBe(
        `error while loading state for instance 0x0 of device 'isa/tpm': ${name} of 'tpm' refused the state: found the backend is gone, at offset N, in isa/tpm`,
      );
      expect(source.error?.message).toMatch(
        /The destination could not load the guest: found status 1 on the return path/,
      );
      expect([source.status, destination.status]).toEqual(['failed', 'failed']);
      expect(running.names).toEqual(['source']);
    },
  );

  it('that cannot take their state over are told like those', async () => {
    const [plain] = devicesOf({ name: 'tpm' });
    const broken: Device = {
      ...plain!,
      *load(reader) {
        yield* skip(reader, 4);
        throw new TypeError('no such bank');
      },
    };
    const { destination, running } = await run([plain!], [broken]);
    expect(destination.error).toMatchObject({ name: 'MigrationError', code: 'DEVICE_STATE' });
    expect(destination.error?.message).toMatch(
      /^error while loading state for instance 0x0 of device 'tpm': no such bank, at offset 0x\S+ \(\d+\), in tpm$/,
    );
    expect(running.names).toEqual(['source']);
  });

  it('say all that blocks them at once, and nothing is sent', async () => {
    let received = 0;
    const outcome = await simulate({
      ...scenario,
      seed: 4,
      capabilities: CAPABILITIES[mode],
      network: { corrupt: (bytes) => void (received += bytes.length) },
      source: {
        furtherDevices: devicesOf(
          { name: 'nvme', busPath: '0000:00:01.0', unmigratable: true },
          { name: 'ok' },
          { name: 'rocker', busPath: '0000:00:05.0', unmigratable: true },
        ),
        blockers: ['An old reason', 'A new reason'],
      },
    });
    expect(outcome.source.info['error-desc']).toBe(
      "State blocked by non-migratable device '0000:00:01.0/nvme'; State blocked by non-migratable device '0000:00:05.0/rocker'; A new reason; An old reason",
    );
    expect(outcome.sourceStatuses).toEqual(['setup', 'failed']);
    expect(outcome.running.names).toEqual(['source']);
    expect(received).toBe(0);
  });
});
