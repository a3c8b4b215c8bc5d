import { describe, expect, test } from 'vitest';
import { parseCorrupt, parseCut } from './fault.ts';
import { FaultPlan } from './fault-line.ts';

describe('places', () => {
  test.each([
    ['4096', { channel: 'main', place: undefined, bytes: 4096 }],
    ['0x10', { channel: 'main', place: undefined, bytes: 16 }],
    ['3M', { channel: 'main', place: undefined, bytes: 3 * 2 ** 20 }],
    ['devices', { channel: 'main', place: 'devices', bytes: 0 }],
    ['main:ram+1k', { channel: 'main', place: 'ram', bytes: 1024 }],
    ['0000:00:02.0/virtio-net+7', { channel: 'main', place: '0000:00:02.0/virtio-net', bytes: 7 }],
    ['return-path', { channel: 'return-path', place: undefined, bytes: 0 }],
    ['return-path:shut', { channel: 'return-path', place: 'shut', bytes: 0 }],
    ['multifd:1M', { channel: 'multifd', place: undefined, bytes: 2 ** 20 }],
    ['preempt:12', { channel: 'preempt', place: undefined, bytes: 12 }],
  ])('%s', (text, place) => {
    expect(parseCut(text)).toEqual([{ kind: 'cut', text, mask: 0, ...place }]);
    expect(parseCorrupt(text)).toEqual([{ kind: 'corrupt', text, mask: 0xff, ...place }]);
    expect(parseCorrupt(`${text}^01`)).toMatchObject([{ mask: 1, ...place }]);
  });

  test.each(['', '+4', 'ram+', 'ram+x', 'multifd:ram', 'preempt:shut+1'])('refuses %j', (text) => {
    expect(() => parseCut(text)).toThrow(/is no place|are offsets/);
  });

  test.each(['ram^00', 'ram^100', 'ram^x', '^'])('refuses the mask of %j', (text) => {
    expect(() => parseCorrupt(text)).toThrow(/mask/);
  });
});

describe('a line of faults', () => {
  const chunk = Uint8Array.of(1, 2, 3, 4);

  test('strikes the byte at an offset, in a copy, once over all lines', () => {
    const plan = new FaultPlan(parseCorrupt('6^80'));
    const first = plan.line('main', 'main');
    const second = plan.line('main', 'main 2');
    expect(first.strike(chunk, 0)).toEqual({ bytes: chunk, isCut: false });
    expect(first.strike(chunk, 4).bytes).toEqual(Uint8Array.of(1, 2, 0x83, 4));
    expect(chunk[2]).toBe(3);
    expect(second.strike(chunk, 4).bytes).toBe(chunk);
    expect(plan.injected).toMatchObject([{ channel: 'main', offset: 6 }]);
    expect(plan.waiting).toEqual([]);
  });

  test('cuts where a named place passed, at the last byte of a chunk too', () => {
    const plan = new FaultPlan(parseCut('devices+2'));
    const line = plan.line('main', 'main');
    expect(line.strike(chunk, 0).isCut).toBe(false);
    line.pass('devices', 6);
    line.pass('devices', 7); // the first one counts
    expect(line.strike(chunk, 4)).toEqual({ bytes: chunk, isCut: true });
    expect(plan.injected).toMatchObject([{ offset: 8 }]);
  });

  test('cuts at once where the place was known late', () => {
    const plan = new FaultPlan(parseCut('devices'));
    const line = plan.line('main', 'main');
    line.pass('devices', 2);
    expect(line.strike(chunk, 4)).toEqual({ bytes: new Uint8Array(0), isCut: true });
  });

  test('leaves other channels alone', () => {
    const plan = new FaultPlan(parseCut('return-path:0'));
    expect(plan.line('main', 'main').strike(chunk, 0).isCut).toBe(false);
    expect(plan.line(undefined, 'tls').strike(chunk, 0).isCut).toBe(false);
    expect(plan.line('return-path', 'main').strike(chunk, 0).isCut).toBe(true);
  });
});
