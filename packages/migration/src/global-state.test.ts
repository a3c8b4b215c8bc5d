import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { expect, it } from 'vitest';
import { GlobalState } from './global-state.ts';

/** What QEMU 10.0 writes for a running guest: size, run state, two flags, unused bytes. */
const RUNNING = new ByteWriter().u32(8).text('running').zeros(25).u8(1).u8(0).zeros(66).finish();

it('writes the run state as QEMU does', () => {
  const writer = new ByteWriter();
  new GlobalState().device.save(writer);
  expect(writer.finish()).toEqual(RUNNING);
});

it('reads it, also from the one buffer of QEMU before 8.1', () => {
  const state = new GlobalState();
  const old = new ByteWriter().u32(7).text('paused').zeros(94).finish();
  const reader = ByteReader.over(old);
  runParser(state.device.load(reader, 1), reader);
  expect(state.runState).toBe('paused');
});

it('refuses a run state that does not exist', () => {
  const wire = new ByteWriter().u32(6).text('dozing').zeros(94).finish();
  const reader = ByteReader.over(wire);
  expect(() => runParser(new GlobalState().device.load(reader, 1), reader)).toThrow(
    /post_load of 'globalstate' refused the state: found invalid parameter value: dozing/,
  );
});
