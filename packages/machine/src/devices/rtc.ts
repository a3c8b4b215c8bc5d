import {
  buffer,
  type Description,
  describe,
  field,
  i64,
  timer,
  u8,
  u16,
  u32,
  u64,
  unused,
} from '@wherry/vmstate';

/** State of the CMOS clock. */
export interface RtcState {
  cmos_data: Uint8Array;
  cmos_index: number;
  /** Timers are in ns of the host's clock, -1 while not armed. */
  periodic_timer: bigint;
  next_periodic_time: bigint;
  irq_coalesced: number;
  period: number;
  /** The guest's time at `last_update`, in s since the epoch. */
  base_rtc: bigint;
  /** In ns of the host's clock. */
  last_update: bigint;
  offset: bigint;
  update_timer: bigint;
  next_alarm_time: bigint;
  irq_reinject_on_ack_count: number;
}

/** Describes the section `mc146818rtc`: the CMOS clock. @see vmstate_rtc in QEMU's hw/rtc/mc146818rtc.c */
export const rtcDescription: Description<RtcState> = describe({
  name: 'mc146818rtc',
  version: 3,
  fields: [
    field('cmos_data', buffer(128)),
    field('cmos_index', u8),
    field('unused', unused(7 * 4)),
    field('periodic_timer', timer),
    field('next_periodic_time', i64),
    field('unused', unused(3 * 8)),
    field('irq_coalesced', u32),
    field('period', u32),
    field('base_rtc', u64),
    field('last_update', u64),
    field('offset', i64),
    field('update_timer', timer),
    field('next_alarm_time', u64),
  ],
  subsections: [
    describe({
      name: 'mc146818rtc/irq_reinject_on_ack_count',
      version: 1,
      needed: (s: { irq_reinject_on_ack_count: number }) => s.irq_reinject_on_ack_count !== 0,
      fields: [field('irq_reinject_on_ack_count', u16)],
    }),
  ],
  preLoad: (state) => Object.assign(state, { irq_reinject_on_ack_count: 0 }),
});

const SECOND = 1_000_000_000n;
const NOT_ARMED = -1n;

// CMOS registers
const SECONDS = 0x00;
const MINUTES = 0x02;
const HOURS = 0x04;
const DAY_OF_WEEK = 0x06;
const DAY_OF_MONTH = 0x07;
const MONTH = 0x08;
const YEAR = 0x09;
const STATUS_A = 0x0a;
const STATUS_B = 0x0b;
const STATUS_C = 0x0c;
const STATUS_D = 0x0d;
const CENTURY = 0x32;

const B_24_HOURS = 0x02;
const B_BINARY = 0x04;
const B_SET = 0x80;
const C_UPDATE_ENDED = 0x10;
const C_ALARM = 0x20;

/**
 * Makes the state of the clock at power-on, set to `nowNs`.
 *
 * @param nowNs ns since the epoch
 * @param ramBytes guest RAM, of which the firmware reads the size here
 */
export function rtcAtPowerOn(nowNs: bigint, ramBytes: number): RtcState {
  const cmos = new Uint8Array(128);
  cmos[STATUS_A] = 0x26; // 32768 Hz, 1024 periodic interrupts a second
  cmos[STATUS_B] = B_24_HOURS;
  cmos[STATUS_D] = 0x80; // battery is fine
  cmos[0x14] = 0x06; // equipment: mathematics processor, mouse
  setU16(cmos, 0x15, 640); // KiB of base memory
  const extendedKiB = Math.min(Math.max(ramBytes / 1024 - 1024, 0), 65535);
  setU16(cmos, 0x17, extendedKiB); // KiB above 1 MiB
  setU16(cmos, 0x30, extendedKiB);
  const above16MiB = Math.max(ramBytes - 16 * 1024 * 1024, 0);
  setU16(cmos, 0x34, Math.min(above16MiB / 65536, 65535)); // 64 KiB units above 16 MiB
  cmos[0x38] = 0x30; // third boot device
  cmos[0x3d] = 0x12; // first and second boot device
  const state: RtcState = {
    cmos_data: cmos,
    cmos_index: 0,
    periodic_timer: NOT_ARMED,
    next_periodic_time: 0n,
    irq_coalesced: 0,
    period: 0,
    base_rtc: nowNs / SECOND,
    last_update: nowNs,
    offset: 0n,
    update_timer: nowNs + SECOND,
    next_alarm_time: 0n,
    irq_reinject_on_ack_count: 0,
  };
  // The alarm registers hold 00:00:00.
  const midnight = (state.base_rtc / 86_400n + 1n) * 86_400n;
  state.next_alarm_time = nowNs + (midnight - state.base_rtc) * SECOND;
  return rtcAt(state, nowNs);
}

/**
 * Returns the clock's state at `nowNs`: the time in its registers and the update that came due.
 *
 * @see rtc_update_time, rtc_update_timer in QEMU's hw/rtc/mc146818rtc.c
 */
export function rtcAt(state: RtcState, nowNs: bigint): RtcState {
  const cmos = state.cmos_data.slice();
  if ((cmos[STATUS_B]! & B_SET) === 0) {
    setDate(cmos, state.base_rtc + (nowNs - state.last_update + state.offset) / SECOND);
  }
  let { update_timer: updateTimer } = state;
  if (updateTimer !== NOT_ARMED && nowNs >= updateTimer) {
    cmos[STATUS_C]! |= C_UPDATE_ENDED;
    // With the flag set nothing happens until the alarm; with both set, nothing at all.
    const alarm = nowNs >= state.next_alarm_time;
    if (alarm) cmos[STATUS_C]! |= C_ALARM;
    updateTimer = alarm ? NOT_ARMED : state.next_alarm_time;
  }
  return { ...state, cmos_data: cmos, update_timer: updateTimer };
}

function setDate(cmos: Uint8Array, seconds: bigint): void {
  const date = new Date(Number(seconds) * 1000);
  const statusB = cmos[STATUS_B]!;
  const encode = (value: number): number =>
    (statusB & B_BINARY) !== 0 ? value : (Math.floor(value / 10) << 4) | (value % 10);
  const hours = date.getUTCHours();
  cmos[SECONDS] = encode(date.getUTCSeconds());
  cmos[MINUTES] = encode(date.getUTCMinutes());
  cmos[HOURS] =
    (statusB & B_24_HOURS) !== 0
      ? encode(hours)
      : encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? 0x80 : 0);
  cmos[DAY_OF_WEEK] = encode(date.getUTCDay() + 1);
  cmos[DAY_OF_MONTH] = encode(date.getUTCDate());
  cmos[MONTH] = encode(date.getUTCMonth() + 1);
  cmos[YEAR] = encode(date.getUTCFullYear() % 100);
  cmos[CENTURY] = encode(Math.floor(date.getUTCFullYear() / 100));
}

function setU16(cmos: Uint8Array, register: number, value: number): void {
  cmos[register] = value;
  cmos[register + 1] = value >>> 8;
}
