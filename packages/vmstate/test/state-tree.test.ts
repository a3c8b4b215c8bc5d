import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeWithVmdesc,
  decodeWithVmdescPartially,
  encodeState,
  parseVmdesc,
  type StateNode,
  type StateValue,
  type VmdescDevice,
  type VmdescField,
  VmstateError,
} from '../src/index.ts';

/** Parses a device as it stands in the text of a vmdesc. */
function deviceOf(members: string): VmdescDevice {
  const text = `{"page_size": 4096, "devices": [{"name": "dev", "instance_id": 0, ${members}}]}`;
  return parseVmdesc(text).devices[0]!;
}

function deviceWith(...fields: readonly VmdescField[]): VmdescDevice {
  return { name: 'dev', instance_id: 0, vmsd_name: 'dev', version: 1, fields };
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(hex.replaceAll(' ', '').match(/../g) ?? [], (byte) => Number(`0x${byte}`));
}

/** Reduces nodes to their values, by name; groups to those of their children. */
function valuesOf(nodes: readonly StateNode[]): object[] {
  return nodes.map(({ name, value, children }) => ({
    [name]: children === undefined ? value : valuesOf(children),
  }));
}

/** Decodes, checks that the bytes come out again, and gives the values. */
function decode(device: VmdescDevice, hex: string): object[] {
  const bytes = bytesOf(hex);
  const nodes = decodeWithVmdesc(device, bytes);
  expect(encodeState(nodes)).toEqual(bytes);
  return valuesOf(nodes);
}

const u8 = '"fields": [{"name": "v", "type": "uint8", "size": 1}]';

describe('a value', () => {
  const kinds: readonly (readonly [type: string, hex: string, value: StateValue])[] = [
    ['bool', '01', true],
    ['bool', '02', bytesOf('02')], // QEMU never sends it; it must not become 01
    ['uint8', 'ff', 255],
    ['uint8 equal', 'ff', 255],
    ['int8', 'ff', -1],
    ['uint16', 'fffe', 65534],
    ['uint16 equal', '0102', 258],
    ['int16', 'fffe', -2],
    ['uint32', 'fffffffe', 4294967294],
    ['uint32 equal', '00000007', 7],
    ['int32', 'fffffffe', -2],
    ['int32 equal', '00000007', 7],
    ['int32 le', '00000007', 7],
    ['uint64', 'ffffffffffffffff', 2n ** 64n - 1n],
    ['int64', 'ffffffffffffffff', -1n],
    ['int64 equal', '0000000000000007', 7n],
    ['timer', 'ffffffffffffffff', -1n],
    ['float64', '3ff8000000000000', 1.5],
    ['CPU_Double_U', 'c004000000000000', -2.5],
    ['CPU_Double_U', '7ff0000000000001', bytesOf('7ff0000000000001')], // a NaN keeps its bits
    ['bitmap', '0000000000000005', bytesOf('0000000000000005')],
    ['buffer', '616263', bytesOf('616263')],
    ['unused_buffer', '0000', bytesOf('0000')],
    ['nullptr', '30', bytesOf('30')],
    ['ptr-marker', '31', bytesOf('31')],
    ['GByteArray', '0000000201ff', bytesOf('0000000201ff')],
    ['uint32', '010203', bytesOf('010203')], // of a size that the type does not have
    [
      'pci irq state',
      '00000000000000010000000000000000',
      bytesOf('00000000000000010000000000000000'),
    ],
  ];

  it.each(kinds)('of type %s, %s', (type, hex, value) => {
    const device = deviceWith({ name: 'v', type, size: hex.length / 2 });
    expect(decode(device, hex)).toEqual([{ v: value }]);
  });

  it.each(kinds)('of type %s, %s, cut short anywhere, is one mismatch', (type, hex) => {
    const size = hex.length / 2;
    const device = deviceWith(
      { name: 'before', type: 'uint8', size: 1 },
      { name: 'v', type, size },
    );
    for (let length = 0; length < size; length++) {
      const bytes = bytesOf(`07${hex}`).subarray(0, 1 + length);
      const { nodes, mismatch } = decodeWithVmdescPartially(device, bytes, 100);
      expect(valuesOf(nodes)).toEqual([{ before: 7 }]);
      expect(mismatch).toMatchObject({
        code: 'VMDESC_MISMATCH',
        offset: 101,
        path: ['dev', 'v'],
        expected: expect.stringContaining('bytes'),
        found: `${length} left`,
      });
    }
  });
});

describe('a group', () => {
  it('of a temporary state has its fields inline', () => {
    const device = deviceOf(
      `"vmsd_name": "dev", "version": 1, "fields": [{"name": "tmp", "type": "tmp", "vmsd_name": "t", "version": 2, ${u8}, "size": 1}]`,
    );
    const [node] = decodeWithVmdesc(device, bytesOf('07'));
    expect(node).toMatchObject({ type: 'tmp', description: { name: 't', version: 2 } });
    expect(decode(device, '07')).toEqual([{ tmp: [{ v: 7 }] }]);
  });

  it('with a version of its own has its fields inline', () => {
    const device = deviceOf(
      `"vmsd_name": "dev", "version": 1, "fields": [{"name": "s", "array_len": 2, "type": "vstruct", "vmsd_name": "t", "version": 2, ${u8}, "size": 1}]`,
    );
    expect(decode(device, '0708')).toEqual([{ s: [{ 0: [{ v: 7 }] }, { 1: [{ v: 8 }] }] }]);
  });

  it('of a subsection has its version', () => {
    const device = deviceOf(
      `"vmsd_name": "dev", "version": 1, "fields": [], "subsections": [{"vmsd_name": "dev/s", "version": 3, ${u8}}]`,
    );
    const [node] = decodeWithVmdesc(device, bytesOf('05 05 6465762f73 00000003 09'));
    expect(node).toMatchObject({
      type: 'subsection',
      lengthBytes: 12,
      description: { name: 'dev/s', version: 3 },
    });
    expect(decode(device, '05 05 6465762f73 00000003 09')).toEqual([{ 'dev/s': [{ v: 9 }] }]);
  });

  it('of elements that are fields of their own has their index', () => {
    const device = deviceWith(
      { name: 'x', index: 0, type: 'uint8', size: 1 },
      { name: 'x', index: 1, type: 'uint8', size: 1 },
    );
    expect(decodeWithVmdesc(device, bytesOf('0102'))).toMatchObject([
      { name: 'x[0]', index: 0, value: 1 },
      { name: 'x[1]', index: 1, value: 2 },
    ]);
  });
});

describe('a list', () => {
  const element = (size: number, type: string): string =>
    `"vmsd_name": "e", "version": 1, "fields": [{"name": "v", "type": "${type}", "size": ${size}}]`;
  const list = (type: string, inner: string): VmdescDevice =>
    deviceOf(
      `"vmsd_name": "dev", "version": 1, "fields": [{"name": "l", "type": "${type}", ${inner}"size": 0}]`,
    );

  it.each(['qtailq', 'qlist'])('of type %s has an element for each byte 1', (type) => {
    expect(decode(list(type, ''), '00')).toEqual([{ l: [] }]);
    expect(decode(list(type, `${element(1, 'uint8')},`), '010700')).toEqual([
      { l: [{ 0: [{ v: 7 }] }] },
    ]);
  });

  it('describes each element in the same object, which need not be alike', () => {
    const device = list('qtailq', `${element(1, 'uint8')}, ${element(2, 'uint16')},`);
    expect(device.fields?.[0]?.elements).toMatchObject([
      { fields: [{ size: 1 }] },
      { fields: [{ size: 2 }] },
    ]);
    expect(decode(device, '0107 010108 00')).toEqual([
      { l: [{ 0: [{ v: 7 }] }, { 1: [{ v: 264 }] }] },
    ]);
  });

  it('of type gtree has a count, and keys that are described or are numbers', () => {
    const direct = list('gtree', `${element(1, 'uint8')}, ${element(1, 'uint8')},`);
    const key = '0000000000000005';
    expect(decode(direct, `00000002 01${key}07 01${key}08 00`)).toEqual([
      {
        l: [
          { 0: [{ key: 5n }, { value: [{ v: 7 }] }] },
          { 1: [{ key: 5n }, { value: [{ v: 8 }] }] },
        ],
      },
    ]);
    const keyed = list(
      'gtree',
      `${element(2, 'uint16').replace('"e"', '"k"')}, ${element(1, 'uint8')},`,
    );
    expect(decode(keyed, '00000001 01 0005 07 00')).toEqual([
      { l: [{ 0: [{ key: [{ v: 5 }] }, { value: [{ v: 7 }] }] }] },
    ]);
    expect(decode(list('gtree', ''), '00000000 00')).toEqual([{ l: [] }]);
  });

  it('that does not end, or holds another number than it says, is a mismatch', () => {
    const device = list('qtailq', `${element(1, 'uint8')},`);
    expect(() => decode(device, '0107')).toThrow(/an element or the end of a list.*dev > l/);
    expect(() => decode(device, '0207')).toThrow(/the end of a list, found byte 2/);
    expect(() => decode(list('qlist', ''), '0107')).toThrow(/the end of a list, found byte 1/);
    expect(() => decode(list('gtree', ''), '00000001 00')).toThrow(/1 entries, found 0/);
  });
});

describe('an array of pointers', () => {
  const pointee = {
    vmsd_name: 'e',
    version: 1,
    fields: [{ name: 'v', type: 'uint32', size: 4 }],
  };
  const element: VmdescField = { name: 'p', type: 'struct', struct: pointee, size: 4 };

  it('that QEMU before 10.0 describes by its first element may have holes', () => {
    const device = deviceWith({ ...element, array_len: 3 }, { name: 'z', type: 'uint8', size: 1 });
    expect(decode(device, '00000001 30 00000002 09')).toEqual([
      { p: [{ 0: [{ v: 1 }] }, { 1: bytesOf('30') }, { 2: [{ v: 2 }] }] },
      { z: 9 },
    ]);
  });

  it('with holes that could be elsewhere is a mismatch that says so', () => {
    const device = deviceWith({ ...element, array_len: 3 });
    // The second element is the hole, or the third after an element that begins with its byte.
    expect(() => decode(device, '00000001 30 30000031')).not.toThrow();
    expect(() => decode(device, '00000001 30 30303030')).toThrow(/more than one way/);
  });

  it('whose first is NULL stays bytes, for nothing describes the others', () => {
    const first = { name: 'p', type: 'struct', struct: {}, array_len: 3, size: 1 };
    const device = deviceOf(
      `"vmsd_name": "dev", "version": 1, "fields": [${JSON.stringify(first)}, {"name": "z", "type": "uint8", "size": 1}]`,
    );
    expect(decode(device, '30 30 30 09')).toEqual([
      { p: [{ 0: bytesOf('30') }, { 1: bytesOf('30') }, { 2: bytesOf('30') }] },
      { z: 9 },
    ]);
    expect(decode(device, '30 0000000130 09')).toEqual([{ p: bytesOf('300000000130') }, { z: 9 }]);
  });

  it('that QEMU 10.0 parts at its holes counts them in its first run too', () => {
    const device = deviceWith(
      { ...element, array_len: 5 },
      { name: 'p', type: 'nullptr', array_len: 2, size: 1 },
      { ...element },
    );
    expect(decode(device, '00000001 00000002 3030 00000003')).toEqual([
      {
        p: [
          { 0: [{ v: 1 }] },
          { 1: [{ v: 2 }] },
          { 2: bytesOf('30') },
          { 3: bytesOf('30') },
          { 4: [{ v: 3 }] },
        ],
      },
    ]);
  });
});

describe('a section that differs from its description', () => {
  const device = deviceWith(
    { name: 'a', type: 'uint32', size: 4 },
    {
      name: 's',
      type: 'struct',
      size: 3,
      array_len: 2,
      struct: {
        vmsd_name: 's',
        version: 1,
        fields: [
          { name: 'x', type: 'uint8', size: 1 },
          { name: 'y', type: 'uint16', size: 2 },
        ],
      },
    },
  );

  it('gives what precedes the difference', () => {
    const { nodes, mismatch } = decodeWithVmdescPartially(
      device,
      bytesOf('00000001 020003 04'),
      16,
    );
    expect(valuesOf(nodes)).toEqual([
      { a: 1 },
      { s: [{ 0: [{ x: 2 }, { y: 3 }] }, { 1: [{ x: 4 }] }] },
    ]);
    expect(mismatch).toMatchObject({ offset: 24, path: ['dev', 's', '1', 'y'], found: '0 left' });
  });

  it('gives all of it where bytes are left over', () => {
    const { nodes, mismatch } = decodeWithVmdescPartially(device, new Uint8Array(12), 16);
    expect(nodes.length).toBe(2);
    expect(mismatch).toMatchObject({
      offset: 26,
      path: ['dev'],
      found: '12 bytes before the footer',
    });
  });
});

describe('a hostile description', () => {
  const nothing: VmdescField = { name: 'x', type: 'buffer', size: 0, array_len: 1 << 24 };

  it.each([
    ['elements without bytes', deviceWith(nothing)],
    [
      'arrays in arrays without bytes',
      deviceWith({
        ...nothing,
        type: 'struct',
        struct: { vmsd_name: 's', version: 1, fields: [nothing] },
      }),
    ],
  ])('with %s ends', (_what, device) => {
    expect(() => decodeWithVmdesc(device, new Uint8Array())).toThrow(VmstateError);
  });

  it('that nests too deep is refused', () => {
    const text = `${'{"name":"x","type":"qtailq","size":0,"struct":'.repeat(9999)}0`;
    const all = `{"page_size":1,"devices":[{"name":"d","instance_id":0,"fields":[${text}`;
    expect(() => parseVmdesc(all)).toThrow(/nested/);
  });

  it('of any form decodes, or fails with an error that names the section', () => {
    const type = fc.constantFrom('uint8', 'buffer', 'struct', 'qtailq', 'gtree', 'tmp', 'nullptr');
    const { state } = fc.letrec<{ state: object; field: object }>((tie) => ({
      field: fc.record(
        {
          name: fc.constantFrom('a', 'b'),
          type,
          size: fc.nat(3),
          array_len: fc.nat(3),
          struct: fc.oneof({ maxDepth: 3 }, fc.constant({}), tie('state')),
          elements: fc.array(fc.oneof({ maxDepth: 3 }, fc.constant({}), tie('state')), {
            maxLength: 2,
          }),
        },
        { requiredKeys: ['name', 'type', 'size'] },
      ),
      state: fc.record(
        {
          vmsd_name: fc.constantFrom('d', 'd/s'),
          version: fc.nat(3),
          fields: fc.array(tie('field'), { maxLength: 4 }),
          subsections: fc.array(
            fc.record({
              vmsd_name: fc.constant('d/s'),
              fields: fc.array(tie('field'), { maxLength: 2 }),
            }),
            { maxLength: 1 },
          ),
        },
        { requiredKeys: ['vmsd_name', 'version'] },
      ),
    }));
    fc.assert(
      fc.property(state, fc.uint8Array({ max: 49, maxLength: 40 }), (description, bytes) => {
        const device = deviceOf(JSON.stringify(description).slice(1, -1));
        const { nodes, mismatch } = decodeWithVmdescPartially(device, bytes);
        if (mismatch === undefined) expect(encodeState(nodes)).toEqual(bytes);
        else expect(mismatch.path[0]).toBe('dev');
      }),
      { numRuns: 1000 },
    );
  });
});

describe('the text of a vmdesc', () => {
  it('means the same with a list in it as without', () => {
    const json = fc.json().filter((text) => !text.includes('vmsd_name'));
    fc.assert(
      fc.property(json, (text) => {
        const plain = `{"page_size":1,"devices":[],"x":${text}}`;
        const listed = `{"page_size":1, "devices":[], "x":${text}, "y":{"type":"qlist"}}`;
        const { y, ...members } = parseVmdesc(listed) as unknown as Record<string, unknown>;
        expect(y).toEqual({ type: 'qlist' });
        expect(members).toEqual(parseVmdesc(plain));
      }),
    );
  });

  it.each(['{', '{"a"', '{"a":', '{"a":1', '{"a":1,', '[1', '"', '"\\"', '-', 'tru', '1 2', ''])(
    'that is no JSON is refused, with a list or without: %s',
    (text) => {
      expect(() => parseVmdesc(text)).toThrow(VmstateError);
      expect(() => parseVmdesc(`{"x": {"type": "qlist"}, "y": ${text}`)).toThrow(VmstateError);
    },
  );
});
