import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import fc from 'fast-check';
import { expect, it, describe as suite } from 'vitest';
import {
  array,
  bool,
  buffer,
  decodeWithVmdesc,
  describe,
  equal,
  field,
  i16,
  i32AtMost,
  i64,
  parseVmdesc,
  type StateNode,
  type StateOf,
  struct,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
  validate,
  varray,
  vbuffer,
} from '../src/index.ts';

const queue = describe({
  name: 'queue',
  version: 1,
  fields: [field('num', u32), field('last', u16)],
});
const named = describe({
  name: 'named',
  version: 1,
  fields: [
    field('count', u8),
    validate('count is below 5', (s: { count: number }) => s.count < 5),
    field('flags', varray(u8, 'count')),
  ],
});
const device = describe({
  name: 'dev',
  version: 3,
  minimumVersion: 2,
  fields: [
    field('id', equal(u32)),
    field('on', bool),
    field('level', i16),
    field('when', i64, { since: 3 }),
    field('alarm', timer),
    field('mac', buffer(6)),
    field('reserved', unused(5)),
    field('regs', array(u16, 4)),
    field('queueCount', i32AtMost),
    field('queues', varray(struct(queue), 'queueCount')),
    field('names', array(struct(named), 2)),
    field('blobLength', u32),
    field('blob', vbuffer('blobLength')),
    field('extra', u8, { present: (state: { on: boolean }) => state.on }),
  ],
  subsections: [
    describe({
      name: 'dev/features',
      version: 1,
      needed: (state: { features: bigint }) => state.features !== 0n,
      fields: [field('features', u64)],
    }),
  ],
  preLoad: (state) => Object.assign(state, { features: 0n }),
});
type Dev = StateOf<typeof device>;

const arbitraryState: fc.Arbitrary<Dev> = fc
  .record({
    on: fc.boolean(),
    level: fc.integer({ min: -32768, max: 32767 }),
    when: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
    alarm: fc.constantFrom(-1n, 0n, 123456789n),
    mac: fc.uint8Array({ minLength: 6, maxLength: 6 }),
    regs: fc.array(fc.nat(65535), { minLength: 4, maxLength: 4 }),
    queues: fc.array(fc.record({ num: fc.nat(2 ** 31), last: fc.nat(65535) }), { maxLength: 5 }),
    flags: fc.array(fc.array(fc.nat(255), { maxLength: 4 }), { minLength: 2, maxLength: 2 }),
    blob: fc.uint8Array({ maxLength: 50 }),
    extra: fc.nat(255),
    features: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  })
  .map(({ flags, ...s }) => ({
    ...s,
    id: 7,
    queueCount: s.queues.length,
    blobLength: s.blob.length,
    names: flags.map((f) => ({ count: f.length, flags: f })),
    extra: s.on ? s.extra : 0,
  }));

const base: Dev = {
  id: 7,
  on: false,
  level: 0,
  when: 0n,
  alarm: -1n,
  mac: new Uint8Array(6),
  regs: [0, 0, 0, 0],
  queueCount: 5,
  queues: Array.from({ length: 5 }, () => ({ num: 0, last: 0 })),
  names: [
    { count: 0, flags: [] },
    { count: 0, flags: [] },
  ],
  blobLength: 0,
  blob: new Uint8Array(),
  extra: 0,
  features: 0n,
};

function load(wire: Uint8Array, over: Dev = base): Dev {
  const reader = ByteReader.over(wire);
  const state = runParser(device.load(reader, over), reader);
  expect(reader.available).toBe(0);
  return state;
}

suite('a description', () => {
  it('loads what it saved', () => {
    fc.assert(
      fc.property(arbitraryState, (state) => {
        expect(load(device.encode(state))).toEqual(state);
      }),
    );
  });

  it('loads from chunks cut anywhere, what follows the state untouched', () => {
    fc.assert(
      fc.property(
        arbitraryState,
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
        (state, cuts) => {
          const wire = new ByteWriter().raw(device.encode(state)).u8(0x7e).u32(9).finish();
          const reader = new ByteReader();
          const parser = device.load(reader, base);
          let step = parser.next();
          for (let at = 0, i = 0; !step.done; i++) {
            reader.push(wire.subarray(at, (at += cuts[i % cuts.length] ?? 1)));
            step = parser.next();
          }
          expect(step.value).toEqual(state);
          expect(reader.offset).toBe(wire.length - 5);
        },
      ),
    );
  });

  it('refuses every truncation and leaves the base as it was', () => {
    fc.assert(
      fc.property(arbitraryState, fc.nat(), (state, seed) => {
        const wire = device.encode({ ...state, features: 0n });
        const before = structuredClone(base);
        expect(() => load(wire.subarray(0, seed % wire.length))).toThrow(/ends too early/);
        expect(base).toEqual(before);
      }),
    );
  });

  it('describes itself so that the vmdesc alone decodes its bytes to the same values', () => {
    fc.assert(
      fc.property(arbitraryState, (state) => {
        const writer = new ByteWriter();
        const described = device.save(writer, state);
        const wire = writer.finish();
        const vmdesc = parseVmdesc(
          JSON.stringify({
            page_size: 4096,
            devices: [{ name: 'dev', instance_id: 0, ...described }],
          }),
        );
        const nodes = decodeWithVmdesc(vmdesc.devices[0]!, wire, 1000);
        expect(nodes.reduce((sum, n) => sum + n.lengthBytes, 0)).toBe(wire.length);
        const byName = (name: string): StateNode | undefined => nodes.find((n) => n.name === name);
        expect(byName('level')?.value).toBe(state.level);
        expect(byName('alarm')?.value).toBe(state.alarm);
        expect(byName('regs')?.children?.map((c) => c.value)).toEqual(state.regs);
        expect(byName('blob')?.value).toEqual(state.blob);
        expect(byName('level')?.offset).toBe(1005);
        expect(byName('dev/features')?.children?.[0]?.value).toEqual(
          state.features === 0n ? undefined : state.features,
        );
      }),
    );
  });

  it('compresses uniform arrays and indexes the others, as QEMU does', () => {
    const described = device.save(new ByteWriter(), {
      ...base,
      queueCount: 3,
      queues: [1, 2, 3].map((num) => ({ num, last: 0 })),
      names: [
        { count: 0, flags: [] },
        { count: 2, flags: [1, 2] },
      ],
    });
    expect(described.fields.filter((f) => f.name === 'queues')).toMatchObject([
      { array_len: 3, type: 'struct', size: 6, struct: { vmsd_name: 'queue' } },
    ]);
    expect(described.fields.filter((f) => f.name === 'names')).toMatchObject([
      { index: 0, type: 'struct', size: 1 },
      { type: 'struct', size: 3 },
    ]);
  });

  it('loads an older version without the fields that came later', () => {
    const { when: _, ...old } = base;
    const writer = new ByteWriter();
    device.save(writer, { ...base, when: 9n, level: -5 }, { version: 2 });
    const reader = ByteReader.over(writer.finish());
    expect(runParser(device.load(reader, { ...base, when: 4n }, 2), reader)).toEqual({
      ...old,
      level: -5,
      when: 4n,
    });
  });

  it.each([
    [4, 'VERSION_TOO_NEW', /expected at most 3, found 4, at offset 0x0/],
    [1, 'VERSION_TOO_OLD', /expected at least 2, found 1/],
  ])('refuses version %i', (version, code, message) => {
    const reader = ByteReader.over(new Uint8Array(100));
    const run = () => runParser(device.load(reader, base, version), reader);
    expect(run).toThrow(expect.objectContaining({ code }));
    expect(run).toThrow(message);
  });

  it('names a subsection that it does not know', () => {
    const wire = new ByteWriter().raw(device.encode(base)).u8(5).counted('dev/new').u32(1).finish();
    expect(() => load(wire)).toThrow(
      /expected dev\/features, found dev\/new, at offset 0x[0-9a-f]+ .*in dev/,
    );
  });

  it('names the field whose value the two sides must share', () => {
    expect(() => load(device.encode({ ...base, id: 8 }))).toThrow(
      /expected 7, found 8, at offset 0x0 \(0\), in dev > id/,
    );
    const six = { ...base, queueCount: 6, queues: Array(6).fill({ num: 0, last: 0 }) };
    expect(() => load(device.encode(six))).toThrow(/at most 5, found 6/);
  });

  it('turns a hook that refuses into an error with the description’s name', () => {
    const picky = describe({
      name: 'picky',
      version: 1,
      fields: [field('a', u8)],
      postLoad: (s) => {
        if (s.a > 3) throw new Error('a is too big');
      },
    });
    const reader = ByteReader.over(Uint8Array.of(4));
    expect(() => runParser(picky.load(reader, { a: 0 }), reader)).toThrow(
      /post_load of 'picky' refused the state: found a is too big/,
    );
  });

  it('ends a save by a hook that refuses, and runs post_save unless pre_save did', () => {
    const ran: string[] = [];
    const fragile = (failing: string) =>
      describe({
        name: 'fragile',
        version: 1,
        fields: [field('mac', buffer(2))],
        preSave: () => {
          if (failing === 'pre_save') throw new Error('not now');
        },
        postSave: () => {
          ran.push(failing);
          if (failing === 'post_save') throw new Error('not now');
        },
      });
    const save = (failing: string, length: number) => () =>
      fragile(failing).encode({ mac: new Uint8Array(length) });
    expect(save('pre_save', 2)).toThrow(/pre_save of 'fragile' refused the state: found not now/);
    expect(save('post_save', 2)).toThrow(/post_save of 'fragile' refused the state/);
    expect(save('none', 2)()).toEqual(new Uint8Array(2));
    expect(save('post_save', 1)).toThrow(/expected 2 bytes, found 1 bytes/);
    expect(ran).toEqual(['post_save', 'none', 'post_save']);
  });

  it('carries what decides about its place in a migration', () => {
    const fields = [field('a', u8)] as const;
    expect(describe({ name: 'd', version: 1, fields })).toMatchObject({
      unmigratable: false,
      earlySetup: false,
      priority: 'default',
    });
    const spec = { unmigratable: true, earlySetup: true, priority: 'apic' } as const;
    expect(describe({ name: 'd', version: 1, fields, ...spec })).toMatchObject(spec);
  });
});

suite('a vmdesc', () => {
  it.each([
    ['{', /expected JSON/],
    ['{"page_size": 4096}', /expected an array 'devices'/],
    ['{"page_size": 4096, "devices": [{"name": "a"}]}', /'instance_id'/],
    [
      '{"page_size": 4096, "devices": [{"name": "a", "instance_id": 0, "fields": [{"name": "x", "size": -1}]}]}',
      /'size' for each field of a/,
    ],
    [
      '{"page_size": 1, "devices": [{"name": "a", "instance_id": 0, "fields": [{"name": "x", "type": "uint8", "size": 1, "array_len": 4294967295}]}]}',
      /usable 'array_len'/,
    ],
  ])('that is malformed is refused: %s', (text, message) => {
    expect(() => parseVmdesc(text)).toThrow(message);
  });

  it('that does not fit its section names the field and the offset', () => {
    const entry = { name: 'd', instance_id: 0, vmsd_name: 'd', version: 1, fields: [] };
    const field = { name: 'x', type: 'buffer', size: 9 };
    expect(() => decodeWithVmdesc({ ...entry, fields: [field] }, new Uint8Array(4), 16)).toThrow(
      /expected 9 bytes, found 4 left, at offset 0x10 \(16\), in d > x/,
    );
    expect(() => decodeWithVmdesc(entry, new Uint8Array(4), 16)).toThrow(
      /4 bytes before the footer/,
    );
  });
});
