import { type DecodedDevice, decodeDevices } from '@wherry/snapshot';
import type { StateNode } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import {
  formatDescription,
  formatState,
} from '../../apps/wherry/src/inspect/analyze/analyze-migration.ts';
import { listFixtures, loadAnalysis, loadFixture } from '../fixtures.ts';
import { walkStream } from '../walk-stream.ts';

type Json = string | number | boolean | Json[] | { readonly [key: string]: Json };

/** What QEMU's analyser cannot read, and why it stops. */
const unreadable: Readonly<Record<string, string>> = {
  block: "KeyError: ('block', 0)",
  compress: 'Exception: Unknown RAM flags: 120',
  'dirty-bitmaps': 'Exception: Unknown QEMU_VM_COMMAND: 3',
  xbzrle: 'Exception: XBZRLE RAM compression is not supported yet',
  'mapped-ram-offset': 'Exception: Invalid file magic',
  'machine-2.2': 'OSError: [Errno 22] Invalid argument',
  'no-vmdesc': 'OSError: [Errno 22] Invalid argument',
  postcopy: 'OSError: [Errno 22] Invalid argument',
  'postcopy-bitmaps': 'OSError: [Errno 22] Invalid argument',
  recovery: 'OSError: [Errno 22] Invalid argument',
  'postcopy-zoo': 'OSError: [Errno 22] Invalid argument',
  // A configuration with subsections, and before 10.0 the vmdesc does not tell of them.
  '5.2/ignore-shared': 'Exception: Unknown section type: 5',
  '7.2/ignore-shared': 'Exception: Unknown section type: 5',
  '5.2/uuid': 'Exception: Unknown section type: 5',
  '7.2/uuid': 'Exception: Unknown section type: 5',
  '7.2/aarch64': 'Exception: Unknown section type: 5',
  // An array of pointers that the vmdesc describes by a hole.
  '7.2/s390x': "OrderedDict([('name', 'css'), ('type', 'struct'), ('struct', OrderedDict())",
};

describe.each(listFixtures())('the stream $release/$case', ({ release, case: name }) => {
  const { stream, meta } = loadFixture(release, name);
  const { state, desc, streamSha256 } = loadAnalysis(release, name);

  test('was analysed as it is', () => {
    expect(streamSha256).toBe(meta.stream.sha256);
    const reason = unreadable[name] ?? unreadable[`${release}/${name}`];
    if ('text' in state) expect(reason).toBeUndefined();
    else expect(state.refused.slice(0, reason?.length)).toBe(reason);
  });

  if (!('text' in state) || !('text' in desc)) return;
  test('is printed byte for byte as QEMU’s analyser prints it', () => {
    const model = walkStream(stream);
    const refuse = ({ message }: { message: string }): void => {
      throw new Error(message);
    };
    expect(firstDifference([...formatState(model, refuse)].join(''), state.text)).toBe('');
    expect(firstDifference([...formatDescription(model)].join(''), desc.text)).toBe('');
  });

  test('has the values that QEMU’s analyser finds', () => {
    const expected = JSON.parse(state.text) as { [key: string]: Json };
    const model = walkStream(stream);
    const found = new Map<string, DecodedDevice>();
    for (const decoded of decodeDevices(model)) {
      found.set(`${decoded.device.idstr} (${decoded.device.sectionId})`, decoded);
    }
    const live = model.items.flatMap((item) =>
      item.type === 'section' && item.kind === 'start' ? [`${item.idstr} (${item.sectionId})`] : [],
    );
    expect(Object.keys(expected).sort()).toEqual([...live, ...found.keys()].sort());
    for (const [key, value] of Object.entries(expected)) {
      const decoded = found.get(key);
      if (decoded !== undefined) compareDevice(key, decoded, value);
      else if (key.startsWith('ram ')) {
        const sizes = model.ram?.blocks.map(({ name: block, usedBytes }) => [
          block,
          `0x${usedBytes.toString(16).padStart(16, '0')}`,
        ]);
        expect(value).toEqual({ 'section sizes': Object.fromEntries(sizes ?? []) });
      } else expect(value).toBe(''); // it reads over the others
    }
  });
});

function compareDevice(key: string, { device, state, by }: DecodedDevice, expected: Json): void {
  const body = device.body!;
  if (by === 'layout') {
    expect(expected).toEqual({ data: hex(body) });
    return;
  }
  const bytesOf = (node: StateNode): Uint8Array => {
    const start = node.offset - device.bodyOffset;
    return body.subarray(start, start + node.lengthBytes);
  };
  compareFields([key], state!, expected, bytesOf);
}

type BytesOf = (node: StateNode) => Uint8Array;

/** Compares the fields of one description; the analyser gathers those of one name in a list. */
function compareFields(
  path: readonly string[],
  nodes: readonly StateNode[],
  expected: Json,
  bytesOf: BytesOf,
): void {
  const fields = new Map<string, StateNode[]>();
  for (const node of nodes) {
    const elements = node.type === 'array' ? (node.children ?? []) : [node];
    const name =
      node.index === undefined ? node.name : node.name.slice(0, -`[${node.index}]`.length);
    fields.set(name, [...(fields.get(name) ?? []), ...elements]);
  }
  const dictionary = expected as { [key: string]: Json };
  // One comparison for each description, not for each field: a machine has 100,000 of them.
  if (`${[...fields.keys()]}` !== `${Object.keys(dictionary)}`) {
    expect([...fields.keys()], path.join('.')).toEqual(Object.keys(dictionary));
  }
  for (const [name, elements] of fields) {
    const value = dictionary[name]!;
    const values = elements.length === 1 ? [value] : (value as Json[]);
    if (values.length !== elements.length) fail([...path, name], elements.length, values.length);
    for (const [i, node] of elements.entries()) {
      compareNode([...path, name], node, values[i]!, bytesOf);
    }
  }
}

function compareNode(
  path: readonly string[],
  node: StateNode,
  expected: Json,
  bytesOf: BytesOf,
): void {
  const { type, value, children } = node;
  if (type === 'struct' || type === 'subsection') {
    compareFields(path, children ?? [], expected, bytesOf);
  } else if (typeof expected === 'boolean') {
    if (value !== expected) fail(path, value, expected);
  } else if (expected === 'nullptr') {
    if (type !== 'nullptr') fail(path, type, expected);
  } else if (typeof expected === 'string' && expected.startsWith('0x')) {
    compareInteger(path, node, expected);
  } else {
    // Everything else is bytes for it: lists, timers, and what has no reader of its own.
    if (hex(bytesOf(node)) !== expected) fail(path, hex(bytesOf(node)), expected);
    if (value instanceof Uint8Array && hex(value) !== expected) fail(path, hex(value), expected);
    if (
      typeof value === 'bigint' &&
      BigInt.asUintN(64, value) !== BigInt(`0x${expected.replaceAll(' ', '')}`)
    ) {
      fail(path, value, expected);
    }
  }
}

/** Compares with `0xffff (-1)`, in which the analyser takes also some unsigned types for signed. */
function compareInteger(
  path: readonly string[],
  { type, value }: StateNode,
  expected: string,
): void {
  const [digits, signed] = expected.split(' ');
  if (typeof value !== 'number' && typeof value !== 'bigint') fail(path, value, expected);
  const bits = (digits!.length - 2) * 4;
  if (BigInt.asUintN(bits, BigInt(value)) !== BigInt(digits!)) fail(path, value, expected);
  if (signed !== undefined && type.startsWith('int') && `(${value})` !== signed) {
    fail(path, value, expected);
  }
}

function fail(path: readonly string[], found: unknown, expected: unknown): never {
  throw new Error(`${path.join('.')}: found ${found}, the analyser ${expected}`);
}

/** Says where two texts differ; they are too long to be shown. */
function firstDifference(found: string, expected: string): string {
  if (found === expected) return '';
  let at = 0;
  while (found[at] === expected[at]) at++;
  const excerpt = (text: string): string =>
    JSON.stringify(text.slice(Math.max(0, at - 80), at + 80));
  return `at character ${at}: found ${excerpt(found)}, expected ${excerpt(expected)}`;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/..(?=.)/g, '$& ');
}
