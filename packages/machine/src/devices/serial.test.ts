import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { expect, test } from 'vitest';
import { serialAtReset, serialDescription, type UartState } from './serial.ts';

function roundTrip(changes: Partial<UartState>): { bytes: Uint8Array; loaded: UartState } {
  const writer = new ByteWriter();
  serialDescription.save(writer, { state: { ...serialAtReset().state, ...changes } });
  const bytes = writer.finish();
  const reader = ByteReader.over(bytes);
  return {
    bytes,
    loaded: runParser(serialDescription.load(reader, serialAtReset()), reader).state,
  };
}

test('a port after reset has no subsections', () => {
  const { bytes, loaded } = roundTrip({});
  expect([...bytes]).toEqual([0, 12, 0, 0, 1, 0, 8, 0x60, 0xb0, 0, 0]);
  expect(loaded).toEqual(serialAtReset().state);
});

test('what is pending travels in subsections of its own', () => {
  const fifo = { data: Uint8Array.from({ length: 16 }, (_, i) => i), head: 3, num: 2 };
  const changes: Partial<UartState> = {
    ier: 0x02,
    thr_ipending: 1,
    lsr: 0,
    tsr_retry: 4,
    thr: 1,
    tsr: 2,
    recv_fifo: fifo,
    xmit_fifo: { ...fifo, head: 5 },
    fifo_timeout_timer: 123n,
    timeout_ipending: 1,
    poll_msl: 1,
    modem_status_poll: 456n,
  };
  const { bytes, loaded } = roundTrip(changes);
  expect(loaded).toMatchObject(changes);
  const text = String.fromCharCode(...bytes);
  const names = [...text.matchAll(/serial\/([a-z_]+)/g)].map(([, name]) => name);
  expect(names).toEqual([
    'thr_ipending',
    'tsr',
    'recv_fifo',
    'xmit_fifo',
    'fifo_timeout_timer',
    'timeout_ipending',
    'poll',
  ]);
});

test('an absent thr_ipending follows from the interrupt register', () => {
  expect(roundTrip({ ier: 0x02, iir: 0x02, thr_ipending: 1 }).loaded.thr_ipending).toBe(1);
  expect(roundTrip({ ier: 0x02, iir: 0x01, thr_ipending: 0 }).loaded.thr_ipending).toBe(0);
});

test('a transmitter that is both empty and busy is refused', () => {
  expect(() => roundTrip({ lsr: 0x60, tsr_retry: 1 })).toThrow(
    /transmitter is empty, with 1 retries/,
  );
  expect(() => roundTrip({ lsr: 0x20, tsr_retry: 0 })).toThrow(
    /transmitter is busy, with 0 retries/,
  );
});
