import { ByteReader, ByteWriter, runParser, WherryError } from '@wherry/bytes';
import type { Description } from '@wherry/vmstate';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { rtcAtPowerOn, rtcDescription } from '../src/devices/rtc.ts';
import { serialAtReset, serialDescription } from '../src/devices/serial.ts';
import { QUEUE_LIMIT, type VirtioState } from '../src/devices/virtio.ts';
import {
  virtioBalloonAtPowerOn,
  virtioBalloonDescription,
  virtioBlkAtPowerOn,
  virtioBlkDescription,
  virtioNetAtPowerOn,
  virtioNetDescription,
} from '../src/devices/virtio-devices.ts';
import { virtualClockAtPowerOn, virtualClockDescription } from '../src/devices/virtual-clock.ts';

const u8 = fc.integer({ min: 0, max: 0xff });
const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const i32 = fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const i64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const bytes = (length: number): fc.Arbitrary<Uint8Array> =>
  fc.uint8Array({ minLength: length, maxLength: length });

const clock = fc.record({ cpu_ticks_offset: i64, cpu_clock_offset: i64 });

const rtc = fc.record({
  cmos_data: bytes(128),
  cmos_index: u8,

  periodic_timer: i64,
  next_periodic_time: i64,
  irq_coalesced: u32,
  period: u32,
  base_rtc: u64,
  last_update: u64,
  offset: i64,
  update_timer: i64,
  next_alarm_time: u64,
  irq_reinject_on_ack_count: u16,
});

const emptyFifo = serialAtReset().state.recv_fifo;
// What is empty has nothing else to say.
const fifo = fc.oneof(
  fc.constant(emptyFifo),
  fc.record({ data: bytes(16), head: u32, num: fc.integer({ min: 1, max: 16 }) }),
);

const serial = fc
  .record({
    divider: u16,
    rbr: u8,
    ier: u8,
    iir: u8,
    lcr: u8,
    mcr: u8,
    lsr: u8,
    msr: u8,
    scr: u8,
    fcr_vmstate: u8,
    thr_ipending: fc.integer({ min: 0, max: 1 }),
    tsr_retry: fc.integer({ min: 0, max: 4 }),
    thr: u8,
    tsr: u8,
    recv_fifo: fifo,
    xmit_fifo: fifo,
    fifo_timeout_timer: i64,
    timeout_ipending: i32,
    poll_msl: fc.integer({ min: -1, max: 1 }),
    modem_status_poll: i64,
  })
  .map((state) => {
    const pending = (state.iir & 6) === 2 ? 1 : 0;
    const busy = state.tsr_retry > 0;
    return {
      state: {
        ...state,
        lsr: busy ? state.lsr & ~0x40 : state.lsr | 0x40,
        // Not on the wire unless it can matter.
        thr_ipending: (state.ier & 2) !== 0 ? state.thr_ipending : pending,
        ...(busy ? {} : { thr: 0, tsr: 0 }),
        ...(state.poll_msl < 0 ? { modem_status_poll: -1n } : {}),
      },
    };
  });

/** Any state of a virtio device of the same shape as `base`. */
function virtio<D>(
  base: VirtioState<D>,
  device: fc.Arbitrary<D>,
): fc.Arbitrary<{ virtio: VirtioState<D> }> {
  const vectors = base.msix_table.length / 16;
  const vector = vectors > 0 ? fc.constantFrom(0xffff, 0, vectors - 1) : fc.constant(0xffff);
  const queue = fc
    .record({ num: u32, desc: u64, last_avail_idx: u16, vector })
    .map((q) => (q.desc === 0n ? { ...q, last_avail_idx: 0 } : q));
  const words = fc.tuple(u32, u32).map((pair): number[] => [...pair]);
  // A few of the many, anywhere.
  const some = <T>(value: fc.Arbitrary<T>, rest: readonly T[]): fc.Arbitrary<T[]> =>
    fc.array(fc.tuple(fc.nat(QUEUE_LIMIT - 1), value), { maxLength: 4 }).map((changes) => {
      const all = [...rest];
      for (const [i, change] of changes) all[i] = change;
      return all;
    });
  return fc
    .record({
      writable: bytes(2),
      irq_state: fc.array(fc.nat(1), { minLength: 4, maxLength: 4 }),
      msix_table: bytes(base.msix_table.length),
      msix_pending: bytes(base.msix_pending.length),
      config_vector: vectors > 0 ? vector : fc.constant(base.config_vector),
      status: u8,
      isr: u8,
      queue_sel: fc.nat(QUEUE_LIMIT - 1),
      config: fc.uint8Array({ maxLength: 80 }),
      queues: fc.array(queue, { maxLength: 5 }),
      device,
      device_endian: fc.constantFrom(1, 2),
      guest_features: u64.map((features) => features & ~0x1cn),
      vq: some(fc.record({ avail: u64, used: u64 }), base.vq),
      ringsize: fc.oneof(
        fc.constant<{ num_default: number }[]>([]),
        u32.map((size) => Array.from({ length: QUEUE_LIMIT }, () => ({ num_default: size }))),
      ),
      broken: fc.boolean(),
      extra_state: fc.record({
        dfselect: u32,
        gfselect: u32,
        guest_features: words,
        vqs: some(
          fc.record({
            num: u16,

            enabled: fc.boolean(),
            desc: words,
            avail: words,
            used: words,
          }),
          base.extra_state.vqs,
        ),
      }),
      started: fc.boolean(),
      disabled: fc.boolean(),
    })
    .map(({ writable, irq_state: pins, ...state }) => {
      const config = base.pci.config.slice();
      config.set(writable, 0x04);
      return { virtio: { ...state, pci: { version_id: 2, config, irq_state: pins } } };
    });
}

const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const netDevice = fc
  .record({
    mac: bytes(6),
    vqs: fc.record({ tx_waiting: u32 }),
    mergeable_rx_bufs: u32,
    status: u16,
    promisc: u8,
    allmulti: u8,
    macs: fc.nat(64).chain((entries) => bytes(entries * 6)),
    vlans: bytes(512),
    has_vnet_hdr: u32,
    'mac_table.multi_overflow': u8,
    'mac_table.uni_overflow': u8,
    alluni: u8,
    nomulti: u8,
    nouni: u8,
    nobcast: u8,
    has_ufo: u8,
    curr_guest_offloads: fc.constant(0n),
  })
  .map(({ macs, ...device }) => ({
    ...device,
    'mac_table.in_use': macs.length / 6,
    'mac_table.macs': macs,
  }));
const blkDevice = fc.record({ requests: fc.array(bytes(49_168), { maxLength: 1 }) });
const balloonDevice = fc.record({
  num_pages: u32,
  actual: u32,
  free_page_hint_cmd_id: fc.constant(0),
  free_page_hint_status: fc.constant(0),
  poison_val: fc.constant(0),
});

const net = virtioNetAtPowerOn(mac);
const blk = virtioBlkAtPowerOn();
const balloon = virtioBalloonAtPowerOn();
const devices: readonly (readonly [string, unknown, unknown, fc.Arbitrary<unknown>])[] = [
  ['timer', virtualClockDescription, virtualClockAtPowerOn(), clock],
  ['mc146818rtc', rtcDescription, rtcAtPowerOn(0n, 2 ** 23), rtc],
  ['serial', serialDescription, serialAtReset(), serial],
  ['virtio-net', virtioNetDescription, { virtio: net }, virtio(net, netDevice)],
  ['virtio-blk', virtioBlkDescription, { virtio: blk }, virtio(blk, blkDevice)],
  ['virtio-balloon', virtioBalloonDescription, { virtio: balloon }, virtio(balloon, balloonDevice)],
];

/** Runs a load that may refuse its input, but in no other way than with an error of ours. */
function attempt(load: () => unknown): unknown {
  try {
    return load();
  } catch (error) {
    if (error instanceof WherryError) return undefined;
    throw error;
  }
}

const runs = (name: string): { numRuns: number } => ({
  numRuns: name.startsWith('virtio') ? 25 : 100,
});

test.each(devices)('any state of %s is the same after save and load', (name, d, base, states) => {
  const description = d as Description<unknown>;
  const property = fc.property(states, fc.nat(), (state, cut) => {
    const writer = new ByteWriter();
    description.save(writer, state);
    const wire = writer.finish();
    const reader = ByteReader.over(wire);
    const loaded = runParser(description.load(reader, base), reader);
    expect(reader.available).toBe(0);
    expect(loaded).toEqual(state);

    // Cut short anywhere, it is either refused or, between subsections, a smaller state.
    const short = wire.subarray(0, cut % wire.length);
    const shortReader = ByteReader.over(short);
    const smaller = attempt(() => runParser(description.load(shortReader, base), shortReader));
    if (smaller === undefined) return;
    description.save(writer, smaller);
    expect(writer.bytes.length).toBeGreaterThanOrEqual(short.length - shortReader.available);
  });
  fc.assert(property, runs(name));
});

test.each(devices)(
  'noise in %s is refused or taken, with no bare exception',
  (name, d, base, states) => {
    const description = d as Description<unknown>;
    const noise = fc.array(fc.tuple(fc.nat(), u8), { minLength: 1, maxLength: 8 });
    const property = fc.property(states, noise, (state, changes) => {
      const writer = new ByteWriter();
      description.save(writer, state);
      const wire = writer.finish();
      for (const [at, byte] of changes) wire[at % Math.min(wire.length, 700)] = byte;
      const reader = ByteReader.over(wire);
      attempt(() => runParser(description.load(reader, base), reader));
    });
    fc.assert(property, runs(name));
  },
);
