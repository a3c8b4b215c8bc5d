import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { expect, test } from 'vitest';
import {
  virtioBalloonAtPowerOn,
  virtioBalloonDescription,
  virtioBlkAtPowerOn,
  virtioBlkDescription,
  virtioNetAtPowerOn,
  virtioNetDescription,
} from './virtio-devices.ts';
import { drivenVirtio, virtioAfter } from './virtio-driver.ts';

const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const net = (): { virtio: ReturnType<typeof virtioNetAtPowerOn> } => ({
  virtio: virtioNetAtPowerOn(mac),
});

function encode(state: ReturnType<typeof net>): Uint8Array {
  const writer = new ByteWriter();
  virtioNetDescription.save(writer, state);
  return writer.finish();
}

function load(bytes: Uint8Array): ReturnType<typeof net> {
  const reader = ByteReader.over(bytes, 1000);
  return runParser(virtioNetDescription.load(reader, net(), 11, ['net']), reader);
}

// Offsets in a network device's section
const PCI_CONFIG = 4;
const IRQ_STATE = PCI_CONFIG + 256;
const CONFIG_VECTOR = IRQ_STATE + 16 + 3 * 16 + 1;
const QUEUE_SEL = CONFIG_VECTOR + 4;
const CONFIG_LENGTH = QUEUE_SEL + 6;
const QUEUE_COUNT = CONFIG_LENGTH + 4 + 8;
const FIRST_QUEUE = QUEUE_COUNT + 4;

test.each([
  ['another vendor', PCI_CONFIG, 'VALUE_MISMATCH', '0xf4 at 0x0', 1000 + PCI_CONFIG],
  ['another class', PCI_CONFIG + 0x0b, 'VALUE_MISMATCH', '0x2 at 0xb', 1000 + PCI_CONFIG + 0x0b],
  ['other MSI-X tables', PCI_CONFIG + 0x9d, 'VALUE_MISMATCH', '0x0 at 0x9d', 1000 + 4 + 0x9d],
  ['a pin at level 128', IRQ_STATE + 3, 'VALUE_INVALID', '0 or 1', 1000 + IRQ_STATE],
  ['a vector beyond the table', CONFIG_VECTOR, 'VALUE_INVALID', 'at most 2', 1000 + CONFIG_VECTOR],
  ['a queue that cannot be selected', QUEUE_SEL, 'VALUE_INVALID', 'at most 1023', 1000 + QUEUE_SEL],
  ['a huge config', CONFIG_LENGTH, 'VALUE_INVALID', 'at most 4096', 1000 + CONFIG_LENGTH],
  ['too many queues', QUEUE_COUNT, 'VALUE_INVALID', 'at most 1024', 1000 + QUEUE_COUNT],
  ['a used queue nowhere', FIRST_QUEUE + 13, 'VALUE_INVALID', '0', 1000 + FIRST_QUEUE + 12],
] as const)('%s is refused where it is', (_what, at, code, expected, offset) => {
  const bytes = encode(net());
  bytes[at]! ^= 0x80;
  expect(() => load(bytes)).toThrow(expect.objectContaining({ code, expected, offset }));
});

test('the guest may change what is its own of the configuration space', () => {
  const bytes = encode(net());
  for (const at of [0x04, 0x13, 0x22, 0x3c, 0x84 + 4, 0x9b]) bytes[PCI_CONFIG + at]! ^= 0x80;
  expect(encode(load(bytes))).toEqual(bytes);
});

test('a table of more MAC addresses than a filter has is refused', () => {
  const state = net();
  state.virtio.device = {
    ...state.virtio.device,
    'mac_table.in_use': 65,
    'mac_table.macs': new Uint8Array(65 * 6),
  };
  expect(() => load(encode(state))).toThrow(/at most 64 entries, found 65/);
});

test('negotiated features add fields and subsections', () => {
  const state = net();
  const plain = encode(state).length;
  state.virtio.guest_features = 4n;
  state.virtio.device = { ...state.virtio.device, curr_guest_offloads: 7n };
  const bytes = encode(state);
  expect(bytes.length).toBe(plain + 8);
  expect(load(bytes).virtio.device.curr_guest_offloads).toBe(7n);

  const balloon = virtioBalloonAtPowerOn();
  balloon.guest_features = 0x18n;
  balloon.device = { ...balloon.device, poison_val: 5, free_page_hint_cmd_id: 6 };
  const writer = new ByteWriter();
  virtioBalloonDescription.save(writer, { virtio: balloon });
  const reader = ByteReader.over(writer.finish());
  const base = { virtio: virtioBalloonAtPowerOn() };
  const loaded = runParser(virtioBalloonDescription.load(reader, base), reader);
  expect(loaded.virtio.device).toEqual(balloon.device);
});

test('requests in flight travel as they are, up to a limit', () => {
  const virtio = virtioBlkAtPowerOn();
  const request = Uint8Array.from({ length: 49_168 }, (_, i) => i);
  const save = (count: number): ByteReader => {
    virtio.device = { requests: Array(count).fill(request) };
    const writer = new ByteWriter();
    virtioBlkDescription.save(writer, { virtio });
    return ByteReader.over(writer.finish());
  };
  const base = { virtio: virtioBlkAtPowerOn() };
  const two = save(2);
  const loaded = runParser(virtioBlkDescription.load(two, base), two);
  expect(loaded.virtio.device.requests).toEqual([request, request]);
  const many = save(1025);
  expect(() => runParser(virtioBlkDescription.load(many, base), many)).toThrow(
    expect.objectContaining({ code: 'COUNT_INVALID' }),
  );
});

test('a driver’s requests count in the queues that it set up', () => {
  const driven = drivenVirtio(virtioNetAtPowerOn(mac), 2, [0, 1]);
  const after = virtioAfter(driven, 0x1_0005);
  expect(after.queues.map(({ desc, last_avail_idx: index }) => [desc, index])).toEqual([
    [0x1_0000n, 5],
    [0x1_3000n, 5],
    [0n, 0],
  ]);
  expect(after.vq.slice(0, 3)).toEqual([
    { avail: 0x1_1000n, used: 0x1_2000n },
    { avail: 0x1_4000n, used: 0x1_5000n },
    { avail: 0n, used: 0n },
  ]);
  expect(virtioAfter(driven, undefined)).toBe(driven);
});
