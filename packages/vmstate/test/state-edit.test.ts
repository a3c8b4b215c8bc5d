import { ByteWriter } from '@wherry/bytes';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  addSubsection,
  decodeWithVmdesc,
  describeState,
  dropSubsection,
  encodeState,
  findState,
  parseVmdesc,
  type StateNode,
  setState,
  type VmdescDevice,
} from '../src/index.ts';

const device: VmdescDevice = parseVmdesc(`{"page_size": 4096, "devices": [{
  "name": "dev", "instance_id": 0, "vmsd_name": "dev", "version": 2, "fields": [
    {"name": "count", "type": "uint8", "size": 1},
    {"name": "mac_reg[CTRL]", "type": "uint32", "size": 4},
    {"name": "queues", "array_len": 2, "type": "struct", "size": 10, "struct":
      {"vmsd_name": "queue", "version": 1, "fields": [
        {"name": "last", "type": "int16", "size": 2},
        {"name": "ring", "type": "uint64", "size": 8}]}},
    {"name": "x", "type": "bool", "size": 1},
    {"name": "x", "type": "bool", "size": 1},
    {"name": "list", "type": "qtailq", "vmsd_name": "e", "version": 1, "fields": [
      {"name": "v", "type": "buffer", "size": 2}], "size": 4}
  ], "subsections": [
    {"vmsd_name": "dev/time.out", "version": 1, "fields": [
      {"name": "expire", "type": "timer", "size": 8}], "subsections": [
      {"vmsd_name": "dev/time.out/more", "version": 3, "fields": [
        {"name": "a", "type": "uint8", "size": 1}]}]},
    {"vmsd_name": "dev/last", "version": 1, "fields": [{"name": "b", "type": "uint8", "size": 1}]}
  ]}]}`).devices[0]!;

const bytes = new ByteWriter()
  .raw(Uint8Array.of(2, 0xaa, 0xbb, 0xcc, 0xdd))
  .u16(-2)
  .u64(1n)
  .u16(-3)
  .u64(2n)
  .raw(Uint8Array.of(1, 0, 1, 10, 11, 0))
  .u8(5)
  .counted('dev/time.out')
  .u32(1)
  .u64(-1n)
  .u8(5)
  .counted('dev/time.out/more')
  .u32(3)
  .u8(7)
  .u8(5)
  .counted('dev/last')
  .u32(1)
  .u8(8)
  .finish();
const nodes = decodeWithVmdesc(device, bytes, 1000);

/** Checks that edited nodes are those that their own bytes give by their own description. */
function expectWhole(edited: readonly StateNode[]): void {
  const again = decodeWithVmdesc(describeState(device, edited), encodeState(edited), 1000);
  expect(edited).toEqual(again);
}

describe('a path', () => {
  it.each([
    ['count', 2],
    ['mac_reg[CTRL]', 0xaabbccdd],
    ['queues[1].last', -3],
    ['queues[0].ring', 1n],
    ['x[0]', true],
    ['x[1]', false],
    ['list[0].v', Uint8Array.of(10, 11)],
    ['dev/time.out.expire', -1n],
    ['dev/time.out.dev/time.out/more.a', 7],
    ['dev/last.b', 8],
  ])('%s leads to its value', (path, value) => {
    expect(findState(nodes, path).value).toEqual(value);
  });

  it('leads to groups', () => {
    expect(findState(nodes, 'queues[1]')).toMatchObject({ type: 'struct', offset: 1015 });
    expect(findState(nodes, 'queues').children?.length).toBe(2);
  });

  it.each([
    ['', /expected count, mac_reg\[CTRL\], queues, x\[0\], x\[1\], list/],
    ['cound', /found cound/],
    ['x', /x\[0\], x\[1\]/],
    ['queues[2]', /expected \[0\], \[1\], found \[2\], in queues/],
    ['queues.last', /found queues.last/],
    ['queues[0].lost', /expected last, ring, found lost, in queues\[0\]\./],
    ['count.x', /found count.x/],
    ['dev/time.out.dev/last', /expected expire, dev\/time.out\/more, found dev\/last/],
  ])("'%s' that leads nowhere names what is there", (path, message) => {
    expect(() => findState(nodes, path)).toThrow(message);
  });
});

describe('a value', () => {
  it.each([
    ['count', 255],
    ['mac_reg[CTRL]', 0],
    ['queues[1].last', -32768],
    ['queues[0].ring', 2n ** 64n - 1n],
    ['x[1]', true],
    ['list[0].v', Uint8Array.of(1, 2)],
    ['dev/time.out.expire', 5n],
    ['count', Uint8Array.of(9)],
  ])('%s is set to %s', (path, value) => {
    const edited = setState(nodes, path, value);
    expect(findState(edited, path).value).toEqual(value);
    expect(nodes).toEqual(decodeWithVmdesc(device, bytes, 1000));
    const differing = encodeState(edited).filter((byte, i) => byte !== bytes[i]).length;
    expect(differing).toBeGreaterThan(0);
    expect(differing).toBeLessThanOrEqual(findState(edited, path).lengthBytes);
  });

  it('of 64 bits may be given as a number', () => {
    expect(findState(setState(nodes, 'queues[0].ring', 7), 'queues[0].ring').value).toBe(7n);
  });

  it.each([
    ['count', 256, /an integer from 0 to 255, or 1 bytes of type uint8, found 256, in count/],
    ['count', 1.5, /found 1.5/],
    ['count', 1n, /found 1/],
    ['queues[0].last', 32768, /-32768 to 32767/],
    ['queues[0].ring', -1n, /from 0 to 18446744073709551615/],
    ['x[0]', 1, /true or false/],
    ['list[0].v', Uint8Array.of(1), /2 bytes of type buffer, found 1 bytes/],
    ['queues', 1, /one value inside the array/],
    ['dev/last', Uint8Array.of(1), /one value inside the subsection/],
  ])('%s is not set to %s', (path, value, message) => {
    expect(() => setState(nodes, path, value)).toThrow(message);
  });

  it('that is set back leaves the bytes as they were', () => {
    const last = fc.integer({ min: -32768, max: 32767 });
    fc.assert(
      fc.property(last, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (int, big) => {
        const once = setState(setState(nodes, 'queues[1].last', int), 'queues[1].ring', big);
        const view = new DataView(encodeState(once).buffer);
        expect([view.getInt16(15), view.getBigUint64(17)]).toEqual([int, big]);
        const back = setState(setState(once, 'queues[1].last', -3), 'queues[1].ring', 2n);
        expect(encodeState(back)).toEqual(bytes);
      }),
    );
  });
});

describe('a subsection', () => {
  it('is dropped, and what follows moves up', () => {
    const edited = dropSubsection(nodes, 'dev/time.out');
    expect(edited.map(({ name }) => name)).not.toContain('dev/time.out');
    expect(findState(edited, 'dev/last').offset).toBe(findState(nodes, 'dev/time.out').offset);
    expectWhole(edited);
  });

  it('inside another is dropped, and the other becomes shorter', () => {
    const edited = dropSubsection(nodes, 'dev/time.out.dev/time.out/more');
    expect(findState(edited, 'dev/time.out').lengthBytes).toBe(26);
    expectWhole(edited);
  });

  it('is added again', () => {
    const dropped = dropSubsection(nodes, 'dev/last');
    const edited = addSubsection(dropped, '', findState(nodes, 'dev/last'));
    expect(edited).toEqual(nodes);
    const inside = findState(nodes, 'dev/time.out.dev/time.out/more');
    const without = dropSubsection(nodes, 'dev/time.out.dev/time.out/more');
    expect(addSubsection(without, 'dev/time.out', inside)).toEqual(nodes);
  });

  it('is added to one element of an array, which then are described one by one', () => {
    const made: StateNode = {
      name: 'queue/new',
      type: 'subsection',
      offset: 0,
      lengthBytes: 0,
      description: { name: 'queue/new', version: 4 },
      children: [{ name: 'c', type: 'uint8', offset: 0, lengthBytes: 1, value: 3 }],
    };
    const edited = addSubsection(nodes, 'queues[0]', made);
    expect(encodeState(edited).length).toBe(bytes.length + 16);
    const described = describeState(device, edited);
    expect(described.fields?.map(({ name, index }) => [name, index])).toContainEqual(['queues', 1]);
    const again = decodeWithVmdesc(described, encodeState(edited), 1000);
    expect(encodeState(again)).toEqual(encodeState(edited));
    expect(findState(again, 'queues[0].queue/new.c').value).toBe(3);
  });

  it.each([
    ['dev/last', '', /other than dev\/time.out, dev\/last, found dev\/last/],
    ['count', '', /found count of type uint8/],
    ['dev/last', 'count', /a group of fields/],
    ['dev/last', 'queues', /a group of fields/],
  ])('%s is not added to %s', (path, parent, message) => {
    expect(() => addSubsection(nodes, parent, findState(nodes, path))).toThrow(message);
  });

  it('is what a dropped one must be', () => {
    expect(() => dropSubsection(nodes, 'count')).toThrow(/no subsection.*dev\/time.out, dev\/last/);
  });
});

describe('edited state', () => {
  it('is described with its holes as QEMU 10.0 does', () => {
    const element = {
      vmsd_name: 'e',
      version: 1,
      fields: [{ name: 'v', type: 'uint16', size: 2 }],
    };
    const fields = [{ name: 'p', array_len: 3, type: 'struct', struct: element, size: 2 }];
    const entry = { name: 'd', instance_id: 0, vmsd_name: 'd', version: 1, fields };
    const withHoles = decodeWithVmdesc(entry, Uint8Array.of(0, 1, 0x30, 0, 2));
    const described = describeState(entry, withHoles);
    expect(described.fields).toEqual([
      { name: 'p', type: 'struct', struct: element, size: 2 },
      { name: 'p', type: 'nullptr', size: 1 },
      { name: 'p', type: 'struct', struct: element, size: 2 },
    ]);
    expect(encodeState(decodeWithVmdesc(described, encodeState(withHoles)))).toEqual(
      Uint8Array.of(0, 1, 0x30, 0, 2),
    );
  });
});
