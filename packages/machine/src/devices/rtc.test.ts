import { expect, test } from 'vitest';
import { rtcAt, rtcAtPowerOn } from './rtc.ts';

const MiB = 2 ** 20;
const SECOND = 1_000_000_000n;
// 2026-11-20 13:49:20.5 UTC, a Friday
const POWER_ON = BigInt(Date.UTC(2026, 10, 20, 13, 49, 20, 500)) * 1_000_000n;

test('the date is in the registers, in BCD', () => {
  const { cmos_data: cmos } = rtcAtPowerOn(POWER_ON, 8 * MiB);
  expect([...cmos.subarray(0, 14)]).toEqual([
    0x20, 0, 0x49, 0, 0x13, 0, 0x06, 0x20, 0x11, 0x26, 0x26, 0x02, 0, 0x80,
  ]);
  expect(cmos[0x32]).toBe(0x20);
});

test('the firmware reads the size of memory', () => {
  const { cmos_data: small } = rtcAtPowerOn(POWER_ON, 8 * MiB);
  expect(small[0x17]! | (small[0x18]! << 8)).toBe(7 * 1024);
  expect(small[0x34]! | (small[0x35]! << 8)).toBe(0);
  const { cmos_data: large } = rtcAtPowerOn(POWER_ON, 512 * MiB);
  expect(large[0x30]! | (large[0x31]! << 8)).toBe(65_535);
  expect(large[0x34]! | (large[0x35]! << 8)).toBe((496 * MiB) / 65_536);
});

test('the clock goes on with the host’s, and the update comes due once', () => {
  const state = rtcAtPowerOn(POWER_ON, 8 * MiB);
  expect(state.update_timer).toBe(POWER_ON + SECOND);
  const before = rtcAt(state, POWER_ON + SECOND - 1n);
  expect(before).toMatchObject({ update_timer: POWER_ON + SECOND });
  expect(before.cmos_data[0x0c]).toBe(0);

  const after = rtcAt(state, POWER_ON + 45n * SECOND);
  expect([...after.cmos_data.subarray(0, 5)]).toEqual([0x05, 0, 0x50, 0, 0x13]);
  expect(after.cmos_data[0x0c]).toBe(0x10);
  expect(after.update_timer).toBe(state.next_alarm_time);

  const midnight = rtcAt(state, state.next_alarm_time);
  expect(midnight.cmos_data[0x04]).toBe(0);
  expect(midnight.cmos_data[0x07]).toBe(0x21);
  expect(midnight.cmos_data[0x0c]).toBe(0x30);
  expect(midnight.update_timer).toBe(-1n);
  // What was given is not changed.
  expect(state.cmos_data[0x0c]).toBe(0);
});

test('the guest chooses binary numbers, twelve hours, and to set the date itself', () => {
  const state = rtcAtPowerOn(POWER_ON, 8 * MiB);
  const withStatusB = (value: number): typeof state => {
    const cmos = state.cmos_data.slice();
    cmos[0x0b] = value;
    return { ...state, cmos_data: cmos };
  };
  const binary = rtcAt(withStatusB(0x06), POWER_ON).cmos_data;
  expect([binary[0], binary[2], binary[4], binary[9]]).toEqual([20, 49, 13, 26]);
  const afternoon = rtcAt(withStatusB(0x00), POWER_ON).cmos_data;
  expect(afternoon[4]).toBe(0x81); // 1 p.m.
  const midnight = rtcAt(withStatusB(0x00), state.next_alarm_time).cmos_data;
  expect(midnight[4]).toBe(0x12); // 12 a.m.
  const set = rtcAt(withStatusB(0x82), POWER_ON + 10n * SECOND).cmos_data;
  expect(set[0]).toBe(0x20);
});
