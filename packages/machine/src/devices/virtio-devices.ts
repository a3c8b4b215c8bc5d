import { type ByteReader, collect, need, type Parser } from '@wherry/bytes';
import {
  buffer,
  type Description,
  describe,
  field,
  struct,
  u8,
  u16,
  u32,
  u64,
  type VariableKind,
  VmstateError,
} from '@wherry/vmstate';
import { describeVirtio, type VirtioState, virtioAtPowerOn } from './virtio.ts';
import { virtioPciAtPowerOn } from './virtio-pci-config.ts';

const MAC_BYTES = 6;
const MAC_TABLE_ENTRIES = 64;
const FEATURE_CTRL_GUEST_OFFLOADS = 1n << 2n;

/** Addresses of the receive filter, `mac_table.in_use` of them. */
const macTable: VariableKind<Uint8Array> = {
  type: 'buffer',
  fixedBytes: undefined,
  save(writer, value) {
    writer.raw(value);
    return undefined;
  },
  *load(reader, _current, context) {
    const entries = Number(context.owner['mac_table.in_use']);
    if (entries > MAC_TABLE_ENTRIES) {
      throw new VmstateError('COUNT_INVALID', 'The table of MAC addresses is too long', {
        expected: `at most ${MAC_TABLE_ENTRIES} entries`,
        found: `${entries}`,
        offset: reader.offset,
        path: context.path,
        likely: 'The stream is corrupt, or an earlier field has another size on the other side',
      });
    }
    return yield* collect(reader, entries * MAC_BYTES);
  },
};

/** State that the driver's choice of features adds fields to. */
interface Negotiated {
  readonly guest_features: bigint;
}

const txWaiting = describe({
  name: 'virtio-net-queue-tx_waiting',
  version: 0,
  fields: [field('tx_waiting', u32)],
});

/** What a network device adds: its receive filter, its link and its offloads. */
export interface VirtioNetState {
  mac: Uint8Array;
  vqs: { tx_waiting: number };
  mergeable_rx_bufs: number;
  /** Bit 0: the link is up. */
  status: number;
  promisc: number;
  allmulti: number;
  /** Addresses in the table, of 6 bytes each. */
  'mac_table.in_use': number;
  'mac_table.macs': Uint8Array;
  /** A bit for each VLAN. */
  vlans: Uint8Array;
  has_vnet_hdr: number;
  'mac_table.multi_overflow': number;
  'mac_table.uni_overflow': number;
  alluni: number;
  nomulti: number;
  nouni: number;
  nobcast: number;
  has_ufo: number;
  /** On the wire where the driver can choose offloads. */
  curr_guest_offloads?: bigint;
}

/** @see vmstate_virtio_net_device in QEMU's hw/net/virtio-net.c */
const netDevice: Description<VirtioNetState> = describe({
  name: 'virtio-net-device',
  version: 11,
  fields: [
    field('mac', buffer(MAC_BYTES)),
    field('vqs', struct(txWaiting)),
    field('mergeable_rx_bufs', u32),
    field('status', u16),
    field('promisc', u8),
    field('allmulti', u8),
    field('mac_table.in_use', u32),
    field('mac_table.macs', macTable),
    field('vlans', buffer(4096 / 8)),
    field('has_vnet_hdr', u32),
    field('mac_table.multi_overflow', u8),
    field('mac_table.uni_overflow', u8),
    field('alluni', u8),
    field('nomulti', u8),
    field('nouni', u8),
    field('nobcast', u8),
    field('has_ufo', u8),
    field('curr_guest_offloads', u64, {
      present: ({ guest_features: features }: Negotiated) =>
        (features & FEATURE_CTRL_GUEST_OFFLOADS) !== 0n,
    }),
  ],
});

/** What a balloon adds: its target and its size, in 4 KiB pages. */
export interface VirtioBalloonState {
  num_pages: number;
  actual: number;
  free_page_hint_cmd_id: number;
  free_page_hint_status: number;
  poison_val: number;
}

/** @see vmstate_virtio_balloon_device in QEMU's hw/virtio/virtio-balloon.c */
const balloonDevice: Description<VirtioBalloonState> = describe({
  name: 'virtio-balloon-device',
  version: 1,
  fields: [field('num_pages', u32), field('actual', u32)],
  subsections: [
    describe({
      name: 'virtio-balloon-device/free-page-report',
      version: 1,
      needed: (s: Negotiated) => (s.guest_features & (1n << 3n)) !== 0n,
      fields: [field('free_page_hint_cmd_id', u32), field('free_page_hint_status', u32)],
    }),
    describe({
      name: 'virtio-balloon-device/page-poison',
      version: 1,
      needed: (s: Negotiated) => (s.guest_features & (1n << 4n)) !== 0n,
      fields: [field('poison_val', u32)],
    }),
  ],
});

/** What a block device adds: requests that were taken from the queue and are not done. */
export interface VirtioBlkState {
  /** Each {@link BLK_REQUEST_BYTES} bytes of the host's own layout. */
  requests: Uint8Array[];
}

/** Bytes of a queue element in a stream: 16 of numbers, then addresses and lengths for 1024 buffers each way. */
const BLK_REQUEST_BYTES = 16 + 2 * 1024 * 8 + 2 * 1024 * 16;
const REQUEST_LIMIT = 1024;

function describedPart<D>(description: Description<D>): {
  save: Parameters<typeof describeVirtio<D>>[2]['save'];
  load: Parameters<typeof describeVirtio<D>>[2]['load'];
} {
  return {
    save(writer, device, guestFeatures) {
      description.save(writer, { ...device, guest_features: guestFeatures });
    },
    *load(reader, current, guestFeatures, path) {
      const base = { ...current, guest_features: guestFeatures };
      const { guest_features: _negotiated, ...device } = yield* description.load(
        reader,
        base,
        description.version,
        path,
      ) as Parser<typeof base>;
      return device as D;
    },
  };
}

/** Describes the section `virtio-net`. */
export const virtioNetDescription: Description<{ virtio: VirtioState<VirtioNetState> }> =
  describeVirtio('virtio-net', 11, describedPart<VirtioNetState>(netDevice));

/** Describes the section `virtio-balloon`. */
export const virtioBalloonDescription: Description<{ virtio: VirtioState<VirtioBalloonState> }> =
  describeVirtio('virtio-balloon', 1, describedPart<VirtioBalloonState>(balloonDevice));

/** Describes the section `virtio-blk`. @see virtio_blk_save_device in QEMU's hw/block/virtio-blk.c */
export const virtioBlkDescription: Description<{ virtio: VirtioState<VirtioBlkState> }> =
  describeVirtio<VirtioBlkState>('virtio-blk', 2, {
    save(writer, device) {
      for (const request of device.requests) writer.u8(1).raw(request);
      writer.u8(0);
    },
    load: loadRequests,
  });

function* loadRequests(
  reader: ByteReader,
  _current: VirtioBlkState,
  _guestFeatures: bigint,
  path: readonly string[],
): Parser<VirtioBlkState> {
  const requests: Uint8Array[] = [];
  for (;;) {
    yield* need(reader, 1);
    if (reader.u8() === 0) return { requests };
    if (requests.length === REQUEST_LIMIT) {
      throw new VmstateError('COUNT_INVALID', 'A block device has too many requests in flight', {
        expected: `at most ${REQUEST_LIMIT}`,
        found: 'more',
        offset: reader.offset - 1,
        path,
        likely: 'The stream is corrupt, or an earlier field has another size on the other side',
      });
    }
    requests.push(yield* collect(reader, BLK_REQUEST_BYTES));
  }
}

/** Makes the state of a network device at power-on. @param mac six bytes */
export function virtioNetAtPowerOn(mac: Uint8Array): VirtioState<VirtioNetState> {
  const msixVectors = 3;
  return virtioAtPowerOn<VirtioNetState>({
    pci: virtioPciAtPowerOn({ deviceId: 0x1000, virtioId: 1, classCode: 0x0200, msixVectors }),
    msixVectors,
    configBytes: 8,
    queues: [256, 256, 64], // receive, transmit, control
    device: {
      mac,
      vqs: { tx_waiting: 0 },
      mergeable_rx_bufs: 0,
      status: 1, // link up
      promisc: 1,
      allmulti: 0,
      'mac_table.in_use': 0,
      'mac_table.macs': new Uint8Array(),
      vlans: new Uint8Array(4096 / 8).fill(0xff), // no filter
      has_vnet_hdr: 0,
      'mac_table.multi_overflow': 0,
      'mac_table.uni_overflow': 0,
      alluni: 0,
      nomulti: 0,
      nouni: 0,
      nobcast: 0,
      has_ufo: 0,
      curr_guest_offloads: 0n,
    },
  });
}

/** Makes the state of a block device at power-on. */
export function virtioBlkAtPowerOn(): VirtioState<VirtioBlkState> {
  const msixVectors = 2;
  return virtioAtPowerOn<VirtioBlkState>({
    pci: virtioPciAtPowerOn({ deviceId: 0x1001, virtioId: 2, classCode: 0x0100, msixVectors }),
    msixVectors,
    configBytes: 57,
    queues: [256],
    device: { requests: [] },
  });
}

/** Makes the state of a balloon at power-on. */
export function virtioBalloonAtPowerOn(): VirtioState<VirtioBalloonState> {
  return virtioAtPowerOn<VirtioBalloonState>({
    pci: virtioPciAtPowerOn({ deviceId: 0x1002, virtioId: 5, classCode: 0x00ff, msixVectors: 0 }),
    msixVectors: 0,
    configBytes: 16,
    queues: [128, 128, 128],
    device: {
      num_pages: 0,
      actual: 0,
      free_page_hint_cmd_id: 0,
      free_page_hint_status: 0,
      poison_val: 0,
    },
  });
}
