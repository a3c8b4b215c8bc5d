import { describe, expect, it } from 'vitest';
import {
  checkDumpAgainstStream,
  checkStream,
  type Dump,
  parseDump,
  type StreamFacts,
  type Vmdesc,
  type VmdescField,
  type VmdescState,
} from '../src/index.ts';

const leaf = (name: string, type: string, size: number, more = {}): VmdescField => ({
  name,
  type,
  size,
  ...more,
});
const nic = (fields: VmdescField[], subsections: VmdescState[] = []): VmdescState => ({
  vmsd_name: 'nic',
  version: 2,
  fields,
  ...(subsections.length > 0 ? { subsections } : {}),
});

/** A stream with `ram`, `timer` and one network card. */
function stream(state: VmdescState, more: Partial<StreamFacts> = {}): StreamFacts {
  const vmdesc: Vmdesc = {
    page_size: 4096,
    devices: [
      { name: 'timer', instance_id: 0, vmsd_name: 'timer', version: 2, fields: [] },
      { name: '0000:00:02.0/nic', instance_id: 0, ...state },
    ],
  };
  return {
    machine: 'pc-q35-7.2',
    capabilities: [],
    ramBlocks: [{ name: 'pc.ram', usedBytes: 0x80_0000 }],
    sections: [
      { idstr: 'ram', instanceId: 0, version: 4 },
      { idstr: 'timer', instanceId: 0, version: 2 },
      { idstr: '0000:00:02.0/nic', instanceId: 0, version: state.version },
    ],
    vmdesc,
    ...more,
  };
}

interface DumpedField {
  readonly field: string;
  readonly size: number;
  readonly num?: number;
  readonly field_exists?: boolean;
  readonly Description?: object;
}

function dump(fields: readonly DumpedField[], more: object = {}): Dump {
  const description = {
    name: 'nic',
    version_id: 2,
    minimum_version_id: 2,
    Fields: fields.map((f) => ({ version_id: 0, field_exists: false, ...f })),
    ...more,
  };
  const { version_id, minimum_version_id } = description;
  return parseDump(
    JSON.stringify({
      vmschkmachine: { Name: 'pc-q35-7.2' },
      'nic-pci': { Name: 'nic-pci', version_id, minimum_version_id, Description: description },
    }),
  );
}

const FIELDS = [leaf('mac', 'buffer', 6), leaf('queues', 'uint16', 2, { array_len: 4 })];
const DUMPED = [
  { field: 'mac', size: 6 },
  { field: 'queues', size: 2, num: 4 },
];
const brief = (findings: ReturnType<typeof checkStream>): string[][] =>
  findings.map(({ verdict, rule, path }) => [verdict, rule, path.join('/')]);

describe('a stream against a dump', () => {
  const against = (state: VmdescState, dest: Dump, more: Partial<StreamFacts> = {}): string[][] =>
    brief(checkStream(stream(state, more), { dump: dest }));
  const at = '0000:00:02.0/nic';

  it('loads when its sections, versions and fields are known there', () => {
    expect(against(nic(FIELDS), dump(DUMPED))).toEqual([]);
  });

  it.each([
    ['a device that is not there', nic(FIELDS), { name: 'other' }, 'SECTION_UNKNOWN', at],
    ['a version that is too new', { ...nic(FIELDS), version: 3 }, {}, 'VERSION_TOO_NEW', at],
    [
      'a version that is too old',
      nic(FIELDS),
      { version_id: 4, minimum_version_id: 3 },
      'VERSION_TOO_OLD',
      at,
    ],
    [
      'a subsection that is not known',
      nic(FIELDS, [{ vmsd_name: 'nic/rss', version: 1, fields: [leaf('key', 'buffer', 40)] }]),
      {},
      'SUBSECTION_UNKNOWN',
      `${at}/nic/rss`,
    ],
    [
      'another number of queues',
      nic([FIELDS[0]!, leaf('queues', 'uint16', 2, { array_len: 8 })]),
      {},
      'ARRAY_LENGTH',
      `${at}/queues`,
    ],
    ['a longer value', nic([leaf('mac', 'buffer', 8), FIELDS[1]!]), {}, 'FIELD_SIZE', `${at}/mac`],
  ])('breaks with %s', (_what, state, more, rule, path) => {
    expect(against(state, dump(DUMPED, more))).toEqual([['breaks', rule, path]]);
  });

  it('says what QEMU will say', () => {
    const say = (state: VmdescState, dest: Dump): string | undefined =>
      checkStream(stream(state), { dump: dest })[0]?.message;
    expect(say(nic(FIELDS), dump(DUMPED, { name: 'other' }))).toMatch(
      /^Unknown savevm section or instance '0000:00:02\.0\/nic' 0\./,
    );
    expect(say({ ...nic(FIELDS), version: 3 }, dump(DUMPED))).toBe(
      "savevm: unsupported version 3 for '0000:00:02.0/nic' v2",
    );
    expect(say(nic(FIELDS), dump(DUMPED, { version_id: 4, minimum_version_id: 3 }))).toBe(
      'nic: incoming version_id 2 is too old for local minimum version_id 3',
    );
    expect(say(nic([...FIELDS, leaf('more', 'uint8', 1)]), dump(DUMPED))).toBe(
      'Missing section footer for 0000:00:02.0/nic',
    );
  });

  it('refuses another machine type', () => {
    expect(against(nic(FIELDS), dump(DUMPED), { machine: 'pc-q35-8.0' })).toEqual([
      ['breaks', 'MACHINE_TYPE', ''],
    ]);
  });

  it('takes conditions as the stream shows them, and arrays without elements as possible', () => {
    const extra = { field: 'extra', size: 4, field_exists: true };
    const Description = { name: 'entry', version_id: 1, minimum_version_id: 1 };
    const list = { field: 'list', size: 8, Description };
    expect(against(nic(FIELDS), dump([...DUMPED, extra]))).toEqual([
      ['fine', 'FIELD_EXTRA', `${at}/extra`],
    ]);
    expect(against(nic(FIELDS), dump([...DUMPED, extra, list]))).toEqual([
      ['cannot-tell', 'FIELD_EXTRA', `${at}/extra, list`],
    ]);
    const surely = { field: 'surely', size: 4 };
    expect(against(nic(FIELDS), dump([...DUMPED, extra, surely]))).toEqual([
      ['breaks', 'FIELD_EXTRA', `${at}/extra, surely`],
    ]);
  });

  it('reads arrays that are listed by element, with and without an index', () => {
    const ring = { vmsd_name: 'ring', version: 1, fields: [leaf('head', 'uint16', 2)] };
    const dest = dump([
      {
        field: 'rings',
        size: 64,
        num: 2,
        Description: {
          ...{ name: 'ring', version_id: 1, minimum_version_id: 1 },
          Fields: [{ field: 'head', version_id: 0, field_exists: false, size: 2 }],
        },
      },
    ]);
    const elements = (...indices: (number | undefined)[]): VmdescState =>
      nic(
        indices.map((index) =>
          leaf('rings', 'struct', 2, { struct: ring, ...(index === undefined ? {} : { index }) }),
        ),
      );
    expect(against(elements(0, 1), dest)).toEqual([]);
    expect(against(elements(0, undefined), dest)).toEqual([]);
    expect(against(elements(undefined, undefined), dest)).toEqual([]);
    expect(against(elements(0, 1, 2), dest)).toEqual([['breaks', 'ARRAY_LENGTH', `${at}/rings`]]);
  });

  it('cannot tell of sections that no dump has, nor of fields without a vmdesc', () => {
    const more = { sections: [{ idstr: 'spapr', instanceId: 0, version: 3 }] };
    expect(against(nic(FIELDS), dump(DUMPED), more)).toEqual([
      ['cannot-tell', 'SECTION_UNDESCRIBED', 'spapr'],
    ]);
    const { vmdesc: _, ...bare } = stream(nic(FIELDS));
    expect(brief(checkStream(bare, { dump: dump(DUMPED) }))).toEqual([
      ['cannot-tell', 'SECTION_UNDESCRIBED', ''],
    ]);
  });
});

describe('a stream against a stream of the destination', () => {
  const against = (dest: StreamFacts): string[][] =>
    brief(checkStream(stream(nic(FIELDS)), { stream: dest }));

  it('loads when both send the same', () => {
    expect(against(stream(nic(FIELDS)))).toEqual([]);
  });

  it.each([
    [
      'a capability',
      { capabilities: ['x-ignore-shared'] },
      'CAPABILITY',
      'configuration/x-ignore-shared',
    ],
    [
      'a RAM block of another size',
      { ramBlocks: [{ name: 'pc.ram', usedBytes: 1 }] },
      'RAM_BLOCK',
      'ram/pc.ram',
    ],
    ['a RAM block that is missing', { ramBlocks: [] }, 'RAM_BLOCK', 'ram/pc.ram'],
    [
      'a device that is missing',
      { sections: stream(nic([])).sections.slice(0, 2) },
      'SECTION_UNKNOWN',
      '0000:00:02.0/nic',
    ],
  ])('breaks with %s', (_what, more, rule, path) => {
    expect(against(stream(nic(FIELDS), more))).toEqual([['breaks', rule, path]]);
  });

  it('sees types', () => {
    const typed = (type: string): StreamFacts => stream(nic([leaf('mode', type, 4)]));
    const find = (a: string, b: string): string[][] =>
      brief(checkStream(typed(a), { stream: typed(b) }));
    expect(find('uint32', 'uint32')).toEqual([]);
    expect(find('uint32', 'int32')).toEqual([['fine', 'FIELD_TYPE', '0000:00:02.0/nic/mode']]);
    expect(find('uint32', 'uint32 equal')).toEqual([
      ['may-break', 'FIELD_TYPE', '0000:00:02.0/nic/mode'],
    ]);
  });

  it('cannot tell what that side knows beyond what it sent', () => {
    const older = stream({ ...nic(FIELDS), version: 3 });
    expect(against(older)).toEqual([['cannot-tell', 'VERSION_UNKNOWN', '0000:00:02.0/nic']]);
  });

  it('names a device of the destination that gets no state', () => {
    const dest = stream(nic(FIELDS));
    const sections = [...dest.sections, { idstr: 'usb-kbd', instanceId: 0, version: 1 }];
    expect(against({ ...dest, sections })).toEqual([['may-break', 'SECTION_NOT_SENT', 'usb-kbd']]);
  });
});

describe('a dump against a stream of the destination', () => {
  it('compares the sections that the stream has', () => {
    const findings = checkDumpAgainstStream(
      dump([{ field: 'mac', size: 8 }, DUMPED[1]!]),
      stream(nic(FIELDS)),
    );
    expect(brief(findings)).toEqual([
      ['breaks', 'FIELD_SIZE', '0000:00:02.0/nic/mac'],
      ['cannot-tell', 'SUBSECTION_UNKNOWN', ''],
    ]);
  });
});
