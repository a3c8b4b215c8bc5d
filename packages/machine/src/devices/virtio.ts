import { type ByteReader, type ByteWriter, collect, need, type Parser } from '@wherry/bytes';
import {
  array,
  bool,
  type Description,
  describe,
  field,
  struct,
  u8,
  u16,
  u32,
  u64,
  unused,
  type VariableKind,
  VmstateError,
} from '@wherry/vmstate';
import { type PciState, pciDescription } from './pci.ts';

/** Queues that a device can have; the state of unused ones is on the wire too. */
export const QUEUE_LIMIT = 1024;
/** What stands for "no MSI-X vector". */
const NO_VECTOR = 0xffff;

const LITTLE_ENDIAN = 1;
const CONFIG_LIMIT = 4096;
const MSIX_ENTRY_BYTES = 16;

/** A queue as the transport knows it. */
export interface VirtioQueue {
  /** Entries of its rings. */
  num: number;
  /** Guest-physical address of its descriptors, 0 while it is not set up. */
  desc: bigint;
  last_avail_idx: number;
  /** MSI-X vector; only on the wire where the device has MSI-X. */
  vector: number;
}

const ringAddresses = describe({
  name: 'virtqueue_state',
  version: 1,
  fields: [field('avail', u64), field('used', u64)],
});

const ringSize = describe({
  name: 'ringsize_state',
  version: 1,
  fields: [field('num_default', u32)],
});

const modernQueue = describe({
  name: 'virtio_pci/modern_queue_state',
  version: 1,
  fields: [
    field('num', u16),
    field('unused', unused(1)),
    field('enabled', bool),
    field('desc', array(u32, 2)), // low word first
    field('avail', array(u32, 2)),
    field('used', array(u32, 2)),
  ],
});

/** A queue in the modern transport; addresses are two words, the low one first. */
export interface ModernQueue {
  num: number;
  enabled: boolean;
  desc: number[];
  avail: number[];
  used: number[];
}

/** State of the modern transport: what the driver selected and set up. */
export interface VirtioModernState {
  dfselect: number;
  gfselect: number;
  guest_features: number[];
  /** {@link QUEUE_LIMIT} of them. */
  vqs: ModernQueue[];
}

const modernState: Description<VirtioModernState> = describe({
  name: 'virtio_pci',
  version: 1,
  fields: [],
  subsections: [
    describe({
      name: 'virtio_pci/modern_state',
      version: 1,
      fields: [
        field('dfselect', u32),
        field('gfselect', u32),
        field('guest_features', array(u32, 2)),
        field('vqs', array(struct(modernQueue), QUEUE_LIMIT)),
      ],
    }),
  ],
});

/** The transport's state in a field without a size of its own. @see vmstate_info_extra_state in QEMU's hw/virtio/virtio.c */
const extraState: VariableKind<VirtioModernState> = {
  type: 'virtqueue_extra_state',
  fixedBytes: undefined,
  save(writer, value) {
    modernState.save(writer, value);
    return undefined;
  },
  load: (reader, current, context) =>
    modernState.load(
      reader,
      current ?? ({} as VirtioModernState),
      modernState.version,
      context.path,
    ),
};

/** What the subsections that every device ends with hold. */
interface VirtioTail {
  /** 1 little, 2 big. */
  device_endian: number;
  guest_features: bigint;
  /** Guest-physical addresses of the rings, {@link QUEUE_LIMIT} of them. */
  vq: { avail: bigint; used: bigint }[];
  /** Default sizes of all queues where one differs from its own, else empty. */
  ringsize: { num_default: number }[];
  broken: boolean;
  extra_state: VirtioModernState;
  started: boolean;
  disabled: boolean;
}

/** Describes {@link VirtioTail}. @see vmstate_virtio in QEMU's hw/virtio/virtio.c */
const tail: Description<VirtioTail> = describe({
  name: 'virtio',
  version: 1,
  fields: [],
  subsections: [
    describe({
      name: 'virtio/device_endian',
      version: 1,
      needed: (s: { device_endian: number }) => s.device_endian !== LITTLE_ENDIAN,
      fields: [field('device_endian', u8)],
    }),
    describe({
      name: 'virtio/64bit_features',
      version: 1,
      fields: [field('guest_features', u64)],
    }),
    describe({
      name: 'virtio/virtqueues',
      version: 1,
      fields: [field('vq', array(struct(ringAddresses), QUEUE_LIMIT))],
    }),
    describe({
      name: 'virtio/ringsize',
      version: 1,
      needed: (s: { ringsize: readonly unknown[] }) => s.ringsize.length > 0,
      fields: [field('ringsize', array(struct(ringSize), QUEUE_LIMIT))],
    }),
    describe({
      name: 'virtio/broken',
      version: 1,
      needed: (s: { broken: boolean }) => s.broken,
      fields: [field('broken', bool)],
    }),
    describe({
      name: 'virtio/extra_state',
      version: 1,
      fields: [field('extra_state', extraState)],
    }),
    describe({
      name: 'virtio/started',
      version: 1,
      needed: (s: { started: boolean }) => s.started,
      fields: [field('started', bool)],
    }),
    describe({
      name: 'virtio/disabled',
      version: 1,
      needed: (s: { disabled: boolean }) => s.disabled,
      fields: [field('disabled', bool)],
    }),
  ],
  preLoad: (state) =>
    Object.assign(state, {
      device_endian: LITTLE_ENDIAN,
      ringsize: [],
      broken: false,
      started: false,
      disabled: false,
    }),
});

/** State of a virtio PCI device; `device` is what its type adds. */
export interface VirtioState<D> extends VirtioTail {
  pci: PciState;
  /** MSI-X table, 16 bytes a vector, and one pending bit a vector; empty without MSI-X. */
  msix_table: Uint8Array;
  msix_pending: Uint8Array;
  config_vector: number;
  status: number;
  isr: number;
  queue_sel: number;
  config: Uint8Array;
  queues: VirtioQueue[];
  device: D;
}

/** How the part of a device's type is written and read. */
export interface VirtioDevicePart<D> {
  save(writer: ByteWriter, device: D, guestFeatures: bigint): void;
  load(reader: ByteReader, current: D, guestFeatures: bigint, path: readonly string[]): Parser<D>;
}

/** Describes the section of a virtio PCI device: one field, of a layout that is its own. */
export function describeVirtio<D>(
  name: string,
  version: number,
  part: VirtioDevicePart<D>,
): Description<{ virtio: VirtioState<D> }> {
  return describe({ name, version, fields: [field('virtio', virtioKind(part))] });
}

/**
 * Makes the kind of a virtio PCI device's whole state.
 *
 * @see virtio_save and virtio_load in QEMU's hw/virtio/virtio.c; virtio_pci_save_config in virtio-pci.c
 */
function virtioKind<D>(part: VirtioDevicePart<D>): VariableKind<VirtioState<D>> {
  return {
    type: 'virtio',
    fixedBytes: undefined,
    save(writer, state) {
      const hasMsix = state.msix_table.length > 0;
      pciDescription.save(writer, state.pci);
      if (hasMsix) {
        writer.raw(state.msix_table).raw(state.msix_pending).u16(state.config_vector);
      }
      writer.u8(state.status).u8(state.isr).u16(state.queue_sel);
      writer.u32(Number(BigInt.asUintN(32, state.guest_features)));
      writer.u32(state.config.length).raw(state.config);
      writer.u32(state.queues.length);
      for (const queue of state.queues) {
        writer.u32(queue.num).u64(queue.desc).u16(queue.last_avail_idx);
        if (hasMsix) writer.u16(queue.vector);
      }
      part.save(writer, state.device, state.guest_features);
      tail.save(writer, state);
      return undefined;
    },
    *load(reader, current, context) {
      if (current === undefined) throw new TypeError('a virtio device loads over its own state');
      const state = { ...current };
      const at = (name: string): readonly string[] => [...context.path, name];
      state.pci = yield* pciDescription.load(reader, current.pci, 2, at('pci'));
      const vectors = current.msix_table.length / MSIX_ENTRY_BYTES;
      if (vectors > 0) {
        const pendingBytes = current.msix_pending.length;
        yield* need(reader, current.msix_table.length + pendingBytes + 2);
        state.msix_table = reader.copy(current.msix_table.length);
        state.msix_pending = reader.copy(pendingBytes);
        state.config_vector = checkVector(reader.u16(), vectors, reader, at('config_vector'));
      }
      yield* need(reader, 12);
      state.status = reader.u8();
      state.isr = reader.u8();
      state.queue_sel = atMost(reader.u16(), QUEUE_LIMIT - 1, reader, at('queue_sel'));
      const features = BigInt(reader.u32());
      const configBytes = atMost(reader.u32(), CONFIG_LIMIT, reader, at('config_len'));
      state.config = yield* collect(reader, configBytes);
      yield* need(reader, 4);
      const queues = atMost(reader.u32(), QUEUE_LIMIT, reader, at('queues'));
      state.queues = [];
      for (let i = 0; i < queues; i++) {
        state.queues.push(yield* loadQueue(reader, vectors, at(`queue ${i}`)));
      }
      state.device = yield* part.load(reader, current.device, features, at('device'));
      const loaded = yield* tail.load(
        reader,
        { ...state, guest_features: features },
        tail.version,
        context.path,
      );
      return loaded as VirtioState<D>;
    },
  };
}

function* loadQueue(
  reader: ByteReader,
  vectors: number,
  path: readonly string[],
): Parser<VirtioQueue> {
  yield* need(reader, vectors > 0 ? 16 : 14);
  const num = reader.u32();
  const desc = reader.u64();
  const { offset } = reader;
  const lastAvailable = reader.u16();
  if (desc === 0n && lastAvailable !== 0) {
    throw new VmstateError('VALUE_INVALID', 'A queue without an address has been used', {
      expected: '0',
      found: `${lastAvailable}`,
      offset,
      path,
      likely: 'The stream is corrupt, or an earlier field has another size on the other side',
    });
  }
  const vector = vectors > 0 ? checkVector(reader.u16(), vectors, reader, path) : NO_VECTOR;
  return { num, desc, last_avail_idx: lastAvailable, vector };
}

function checkVector(
  vector: number,
  vectors: number,
  reader: ByteReader,
  path: readonly string[],
): number {
  return vector === NO_VECTOR ? vector : atMost(vector, vectors - 1, reader, path);
}

function atMost(value: number, limit: number, reader: ByteReader, path: readonly string[]): number {
  if (value <= limit) return value;
  throw new VmstateError('VALUE_INVALID', 'A value of a virtio device is too large', {
    expected: `at most ${limit}`,
    found: `${value}`,
    offset: reader.offset - (limit === CONFIG_LIMIT || limit === QUEUE_LIMIT ? 4 : 2),
    path,
    likely: 'The device is configured differently here: give both sides the same options',
  });
}

/** What {@link virtioAtPowerOn} takes. */
export interface VirtioPowerOn<D> {
  readonly pci: PciState;
  readonly msixVectors: number;
  readonly configBytes: number;
  /** Entries of each queue. */
  readonly queues: readonly number[];
  readonly device: D;
}

/** Makes the state of a virtio PCI device that no driver has touched. */
export function virtioAtPowerOn<D>(options: VirtioPowerOn<D>): VirtioState<D> {
  const { msixVectors } = options;
  const table = new Uint8Array(msixVectors * MSIX_ENTRY_BYTES);
  for (let vector = 0; vector < msixVectors; vector++) {
    table[vector * MSIX_ENTRY_BYTES + 12] = 1; // masked
  }
  return {
    pci: options.pci,
    msix_table: table,
    msix_pending: new Uint8Array(Math.ceil(msixVectors / 8)),
    config_vector: msixVectors > 0 ? NO_VECTOR : 0,
    status: 0,
    isr: 0,
    queue_sel: 0,
    config: new Uint8Array(options.configBytes),
    queues: options.queues.map((num) => ({
      num,
      desc: 0n,
      last_avail_idx: 0,
      vector: NO_VECTOR,
    })),
    device: options.device,
    device_endian: LITTLE_ENDIAN,
    guest_features: 0n,
    vq: Array.from({ length: QUEUE_LIMIT }, () => ({ avail: 0n, used: 0n })),
    ringsize: [],
    broken: false,
    extra_state: {
      dfselect: 0,
      gfselect: 0,
      guest_features: [0, 0],
      vqs: Array.from({ length: QUEUE_LIMIT }, () => ({
        num: 0,
        enabled: false,
        desc: [0, 0],
        avail: [0, 0],
        used: [0, 0],
      })),
    },
    started: false,
    disabled: false,
  };
}
