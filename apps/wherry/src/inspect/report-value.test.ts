import type { StateNode } from '@wherry/vmstate';
import { expect, test } from 'vitest';
import { formatTree } from './report-tree.ts';
import { formatValue } from './report-value.ts';

function leaf(name: string, type: string, value: StateNode['value']): StateNode {
  return { name, type, offset: 0, lengthBytes: 4, ...(value === undefined ? {} : { value }) };
}

test.each<[string, string, StateNode['value'], string]>([
  ['on', 'bool', true, 'true'],
  ['status', 'uint8', 0x81, '0x81'],
  ['guest_features', 'uint64', 0x130000002n, '0x130000002'],
  ['config_len', 'uint32', 64, '64'],
  ['tally', 'uint32', 64, '64 (0x40)'],
  ['tally', 'uint32', 7, '7'],
  ['tally', 'int32', -1, '-1'],
  ['tally', 'int32', -64, '-64 (-0x40)'],
  ['irq_timer', 'timer', -1n, 'not armed'],
  ['irq_timer', 'timer', 1234567890123n, '1234.567890123 s'],
  ['irq_timer', 'timer', 5n, '0.000000005 s'],
  ['runstate', 'buffer', new Uint8Array([...Buffer.from('running'), 0, 0]), '"running"'],
  ['data', 'buffer', Uint8Array.of(1, 2, 255), '01 02 ff'],
  ['data', 'buffer', new Uint8Array(9), 'zero × 9'],
  ['data', 'buffer', new Uint8Array(0), 'no bytes'],
  ['data', 'buffer', new Uint8Array(17).fill(1), `${'01 '.repeat(16)}… (17 bytes)`],
])('shows %s of type %s %o as it suits it', (name, type, value, text) => {
  expect(formatValue(leaf(name, type, value))).toBe(text);
});

test('shows what is set first, then the names of what is zero', () => {
  const group = (name: string, children: StateNode[]): StateNode => ({
    ...{ name, type: 'struct', offset: 0, lengthBytes: 8, children },
  });
  const queues = [0, 1, 2].map((i) => group(`${i}`, [leaf('head', 'uint32', i === 1 ? 5 : 0)]));
  const nodes = [
    leaf('a', 'uint8', 0),
    leaf('b', 'uint8', 1),
    group('c', [leaf('d', 'uint8', 0)]),
    { name: 'queues', type: 'array', offset: 0, lengthBytes: 12, children: queues },
  ];
  expect([...formatTree(nodes, '')]).toEqual([
    'b = 1',
    'queues[3]',
    '  [1]',
    '    head = 5',
    '  zero: 2 elements',
    'zero: a, c',
  ]);
});
