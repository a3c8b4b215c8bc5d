import { type Description, describe, field, i64, unused } from '@wherry/vmstate';

/** State of the clock that runs while the guest does. */
export interface VirtualClockState {
  cpu_ticks_offset: bigint;
  /** In ns. */
  cpu_clock_offset: bigint;
}

/** Describes the section `timer`. @see vmstate_timers in QEMU's system/cpu-timers.c */
export const virtualClockDescription: Description<VirtualClockState> = describe({
  name: 'timer',
  version: 2,
  minimumVersion: 1,
  fields: [
    field('cpu_ticks_offset', i64),
    field('unused', unused(8)),
    field('cpu_clock_offset', i64, { since: 2 }),
  ],
});

/** Makes the state of the clock of a guest that never ran. */
export function virtualClockAtPowerOn(): VirtualClockState {
  return { cpu_ticks_offset: 0n, cpu_clock_offset: 0n };
}

/** Returns the clock's state after the guest ran for another `ns`, at a tick a nanosecond. */
export function virtualClockAfter(state: VirtualClockState, ns: bigint): VirtualClockState {
  return {
    ...state,
    cpu_ticks_offset: BigInt.asIntN(64, state.cpu_ticks_offset + ns),
    cpu_clock_offset: BigInt.asIntN(64, state.cpu_clock_offset + ns),
  };
}
