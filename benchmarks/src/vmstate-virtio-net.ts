import { ByteWriter } from '@wherry/bytes';
import {
  array,
  bool,
  buffer,
  type Description,
  describe,
  field,
  i32AtMost,
  type StateOf,
  struct,
  u8,
  u16,
  u32,
  u64,
  unused,
  varray,
} from '@wherry/vmstate';

/** 64 pairs of receive and transmit, and the control queue. */
const QUEUES = 129;
const PAIRS = 64;
const QUEUE_LIMIT = 1024;
const VECTORS = 131;
const TABLE_BYTES = VECTORS * 16;
const PENDING_BYTES = Math.ceil(VECTORS / 8);
const CONFIG_BYTES = 12;

const queue = describe({
  name: 'queue',
  version: 1,
  fields: [field('num', u32), field('desc', u64), field('last', u16), field('vector', u16)],
});
const waiting = describe({ name: 'virtio-net-queue', version: 1, fields: [field('tx', u32)] });
const rings = describe({
  name: 'virtqueue_state',
  version: 1,
  fields: [field('avail', u64), field('used', u64)],
});
const modern = describe({
  name: 'virtio_pci/modern_queue_state',
  version: 1,
  fields: [
    field('num', u16),
    field('unused', unused(1)),
    field('enabled', bool),
    field('desc', array(u32, 2)),
    field('avail', array(u32, 2)),
    field('used', array(u32, 2)),
  ],
});

/** A virtio-net section in QEMU's layout, with MSI-X and the modern transport. */
const description = describe({
  name: 'virtio',
  version: 11,
  fields: [
    field('version_id', i32AtMost),
    field('pci_config', buffer(256)),
    field('irq_state', array(u32, 4)),
    field('msix_table', buffer(TABLE_BYTES)),
    field('msix_pending', buffer(PENDING_BYTES)),
    field('config_vector', u16),
    field('status', u8),
    field('isr', u8),
    field('queue_sel', u16),
    field('features', u32),
    field('config_len', u32),
    field('config', buffer(CONFIG_BYTES)),
    field('queue_count', u32),
    field('queues', varray(struct(queue), 'queue_count')),
    field('mac', buffer(6)),
    field('waiting', array(struct(waiting), PAIRS)),
    field('flags', array(u8, 8)),
    field('vlans', buffer(512)),
    field('offloads', u64),
  ],
  subsections: [
    describe({ name: 'virtio/64bit_features', version: 1, fields: [field('guest_features', u64)] }),
    describe({
      name: 'virtio/virtqueues',
      version: 1,
      fields: [field('vq', array(struct(rings), QUEUE_LIMIT))],
    }),
    describe({
      name: 'virtio/modern_state',
      version: 1,
      fields: [
        field('dfselect', u32),
        field('gfselect', u32),
        field('modern_features', array(u32, 2)),
        field('vqs', array(struct(modern), QUEUE_LIMIT)),
      ],
    }),
  ],
});

/** The state of a network device. */
export type NetState = StateOf<typeof description>;
/** Describes {@link NetState}. */
export const virtioNet: Description<NetState> = description;

const SUBSECTIONS = description.subsections.map(({ name }) => name);

/** Makes the section of a device whose queues are all in use. */
export function netBytes(): Uint8Array {
  const pairOf = (i: number): number[] => [i * 0x1000, i & 3];
  return virtioNet.encode({
    version_id: 2,
    pci_config: new Uint8Array(256).fill(7),
    irq_state: [0, 0, 0, 1],
    msix_table: new Uint8Array(TABLE_BYTES).fill(3),
    msix_pending: new Uint8Array(PENDING_BYTES),
    config_vector: 0,
    status: 15,
    isr: 1,
    queue_sel: 128,
    features: 0x30bf8024,
    config_len: CONFIG_BYTES,
    config: new Uint8Array(CONFIG_BYTES).fill(9),
    queue_count: QUEUES,
    queues: Array.from({ length: QUEUES }, (_, i) => ({
      num: 256,
      desc: BigInt(i) << 32n,
      last: i,
      vector: i,
    })),
    mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56),
    waiting: Array.from({ length: PAIRS }, (_, i) => ({ tx: i & 1 })),
    flags: [1, 0, 1, 0, 0, 0, 1, 0],
    vlans: new Uint8Array(512).fill(0xff),
    offloads: 0x3fn,
    guest_features: 0x130bf8024n,
    vq: Array.from({ length: QUEUE_LIMIT }, (_, i) => ({
      avail: BigInt(i) * 0x1234567n,
      used: BigInt(i) * 0x7654321n,
    })),
    dfselect: 1,
    gfselect: 1,
    modern_features: [0x30bf8024, 1],
    vqs: Array.from({ length: QUEUE_LIMIT }, (_, i) => ({
      num: 256,
      enabled: i < QUEUES,
      desc: pairOf(i),
      avail: pairOf(i + 1),
      used: pairOf(i + 2),
    })),
  });
}

/** Loads the section as a program would that knows it by heart. */
export function handLoadNet(bytes: Uint8Array): NetState {
  const v = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const u8 = (): number => v.getUint8(at++);
  const u16 = (): number => v.getUint16((at += 2) - 2);
  const u32 = (): number => v.getUint32((at += 4) - 4);
  const u64 = (): bigint => v.getBigUint64((at += 8) - 8);
  const raw = (length: number): Uint8Array => bytes.slice(at, (at += length));
  const words = (length: number): number[] => {
    const values = [];
    for (let i = 0; i < length; i++) values.push(u32());
    return values;
  };
  const skipHead = (name: string): void => {
    at += 2 + name.length + 4;
  };
  const version_id = v.getInt32(at);
  at += 4;
  const pci_config = raw(256);
  const irq_state = words(4);
  const msix_table = raw(TABLE_BYTES);
  const msix_pending = raw(PENDING_BYTES);
  const config_vector = u16();
  const status = u8();
  const isr = u8();
  const queue_sel = u16();
  const features = u32();
  const config_len = u32();
  const config = raw(config_len);
  const queue_count = u32();
  const queues = [];
  for (let i = 0; i < queue_count; i++) {
    queues.push({
      num: v.getUint32(at),
      desc: v.getBigUint64(at + 4),
      last: v.getUint16(at + 12),
      vector: v.getUint16(at + 14),
    });
    at += 16;
  }
  const mac = raw(6);
  const waiting = [];
  for (let i = 0; i < PAIRS; i++) waiting.push({ tx: u32() });
  const flags = [];
  for (let i = 0; i < 8; i++) flags.push(u8());
  const vlans = raw(512);
  const offloads = u64();
  skipHead(SUBSECTIONS[0]!);
  const guest_features = u64();
  skipHead(SUBSECTIONS[1]!);
  const vq = [];
  for (let i = 0; i < QUEUE_LIMIT; i++) {
    vq.push({ avail: v.getBigUint64(at), used: v.getBigUint64(at + 8) });
    at += 16;
  }
  skipHead(SUBSECTIONS[2]!);
  const dfselect = u32();
  const gfselect = u32();
  const modern_features = words(2);
  const vqs = [];
  for (let i = 0; i < QUEUE_LIMIT; i++) {
    vqs.push({
      num: v.getUint16(at),
      enabled: v.getUint8(at + 3) !== 0,
      desc: [v.getUint32(at + 4), v.getUint32(at + 8)],
      avail: [v.getUint32(at + 12), v.getUint32(at + 16)],
      used: [v.getUint32(at + 20), v.getUint32(at + 24)],
    });
    at += 28;
  }
  return {
    ...{ version_id, pci_config, irq_state, msix_table, msix_pending, config_vector, status, isr },
    ...{ queue_sel, features, config_len, config, queue_count, queues, mac, waiting, flags },
    ...{ vlans, offloads, guest_features, vq, dfselect, gfselect, modern_features, vqs },
  };
}

const heads = SUBSECTIONS.map((name) => new ByteWriter().u8(5).counted(name).u32(1).finish());

/** Saves the section likewise. @returns how many bytes it took */
export function handSaveNet(s: NetState, v: DataView): number {
  const bytes = new Uint8Array(v.buffer);
  let at = 0;
  const u32 = (value: number): void => {
    v.setUint32(at, value);
    at += 4;
  };
  const u64 = (value: bigint): void => {
    v.setBigUint64(at, value);
    at += 8;
  };
  const raw = (value: Uint8Array): void => {
    bytes.set(value, at);
    at += value.length;
  };
  u32(s.version_id);
  raw(s.pci_config);
  for (const level of s.irq_state) u32(level);
  raw(s.msix_table);
  raw(s.msix_pending);
  v.setUint16(at, s.config_vector);
  v.setUint8(at + 2, s.status);
  v.setUint8(at + 3, s.isr);
  v.setUint16(at + 4, s.queue_sel);
  at += 6;
  u32(s.features);
  u32(s.config_len);
  raw(s.config);
  u32(s.queue_count);
  for (const q of s.queues) {
    v.setUint32(at, q.num);
    v.setBigUint64(at + 4, q.desc);
    v.setUint16(at + 12, q.last);
    v.setUint16(at + 14, q.vector);
    at += 16;
  }
  raw(s.mac);
  for (const q of s.waiting) u32(q.tx);
  for (const flag of s.flags) v.setUint8(at++, flag);
  raw(s.vlans);
  u64(s.offloads);
  raw(heads[0]!);
  u64(s.guest_features);
  raw(heads[1]!);
  for (const q of s.vq) {
    v.setBigUint64(at, q.avail);
    v.setBigUint64(at + 8, q.used);
    at += 16;
  }
  raw(heads[2]!);
  u32(s.dfselect);
  u32(s.gfselect);
  for (const word of s.modern_features) u32(word);
  for (const q of s.vqs) {
    v.setUint16(at, q.num);
    v.setUint8(at + 2, 0);
    v.setUint8(at + 3, q.enabled ? 1 : 0);
    v.setUint32(at + 4, q.desc[0]!);
    v.setUint32(at + 8, q.desc[1]!);
    v.setUint32(at + 12, q.avail[0]!);
    v.setUint32(at + 16, q.avail[1]!);
    v.setUint32(at + 20, q.used[0]!);
    v.setUint32(at + 24, q.used[1]!);
    at += 28;
  }
  return at;
}
