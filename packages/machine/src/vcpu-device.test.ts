import { ByteReader, ByteWriter, runParser, WherryError } from '@wherry/bytes';
import { GuestRam } from '@wherry/page-engine';
import type { Device } from '@wherry/vmstate';
import { decodeWithVmdesc } from '@wherry/vmstate';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { CHANGED_LINES, CURSOR, KICKS, PAGES_WRITTEN, RNG, WRITES } from './control-layout.ts';
import { shareOfPages } from './page-ownership.ts';
import { controlRegionBytes, VcpuControl } from './vcpu-control.ts';
import { vcpuDevice } from './vcpu-device.ts';
import { workloadOptions } from './vcpu-spec.ts';

const blocks = [
  { name: 'pc.ram', lengthBytes: 2 ** 20, hostPageBytes: 4096 },
  { name: 'extra', lengthBytes: 2 ** 16, hostPageBytes: 4096 },
];

/** Two vCPUs without threads, on `names` of the blocks. */
async function guest(names = ['pc.ram', 'extra']) {
  const specs = names.map((name) => blocks.find((block) => block.name === name)!);
  const ramBytes = specs.reduce((total, { lengthBytes }) => total + lengthBytes, 0);
  const reservedBytes = controlRegionBytes(2, ramBytes);
  const ram = await GuestRam.create(specs, { vcpus: 2, reservedBytes });
  const controls = [new VcpuControl(ram, 0), new VcpuControl(ram, 1)];
  const devices = controls.map((control) =>
    vcpuDevice(ram, control, () => controls.filter((other) => other !== control)),
  );
  return { ram, controls, devices };
}

async function running(): Promise<Awaited<ReturnType<typeof guest>>> {
  const source = await guest();
  const options = workloadOptions({ workload: 'hotset', pagesPerSecond: Infinity }, 0);
  for (const control of source.controls) {
    control.setWorkload(options, 11n, BigInt(control.vcpu));
    control.setRanges(shareOfPages(source.ram, control.vcpu, 2, options.hotPages));
    control.setU64(WRITES, 2n ** 40n);
    control.setU32(CURSOR, 5);
    for (const range of control.ranges) control.generations(range)[1] = 0xfedc_ba98;
  }
  source.controls[0]!.setDrivers(true);
  source.controls[0]!.setU32(KICKS, 77);
  return source;
}

function save(device: Device): Uint8Array {
  const writer = new ByteWriter();
  device.save(writer);
  return writer.finish();
}

function load(device: Device, bytes: Uint8Array): void {
  const reader = ByteReader.over(bytes);
  runParser(device.load(reader, 1), reader);
  expect(reader.available).toBe(0);
}

test('a vCPU that does nothing needs no section', async () => {
  const { devices } = await guest();
  expect(devices.map((device) => device.isNeeded())).toEqual([false, false]);
  const { devices: active } = await running();
  expect(active.map((device) => device.isNeeded())).toEqual([true, true]);
});

test('what a vCPU owns and wrote travels, whatever the blocks’ order', async () => {
  const source = await running();
  const destination = await guest(['extra', 'pc.ram']);
  source.devices.forEach((device, i) => {
    load(destination.devices[i]!, save(device));
  });
  expect(destination.devices.map(save)).toEqual(
    // Drivers need the low memory of the first block, which is another one here.
    source.devices.map((device, i) => {
      const bytes = save(device);
      if (i === 0) bytes[29] = 0;
      return bytes;
    }),
  );
  const [first, second] = destination.controls as [VcpuControl, VcpuControl];
  expect(first.u32(PAGES_WRITTEN)).toBe(2);
  expect(second.u64(RNG)).toBe(1n);
  const owned = second.ranges.map(({ block, firstPage, pages }) => [block.name, firstPage, pages]);
  expect(owned).toEqual([
    ['pc.ram', 144, 112],
    ['extra', 8, 8],
  ]);
  expect(second.generations(second.ranges[1]!)[1]).toBe(0xfedc_ba98);
});

test('the section describes itself', async () => {
  const { devices } = await running();
  const writer = new ByteWriter();
  const vmdesc = devices[0]!.save(writer);
  const nodes = decodeWithVmdesc(vmdesc, writer.bytes);
  const names = nodes.map(({ name }) => name);
  expect(names.slice(0, 4)).toEqual(['workload', 'pages_per_second', 'hot_writes', 'seed']);
  expect(nodes.find(({ name }) => name === 'kicks')?.value).toBe(77);
});

// Offsets in the section
const WORKLOAD = 0;
const RATE = 1;
const FIRST_RANGE = 1 + 4 + 4 + 8 + 8 + 4 + 1 + 4 + 8 + 8 + 8 + 4;
const BLOCK_NAME = FIRST_RANGE + 4;
const FIRST_PAGE = BLOCK_NAME + 'pc.ram'.length;
const PAGES = FIRST_PAGE + 4;
const HOT_PAGES = PAGES + 4;
const GENERATION_BYTES = HOT_PAGES + 4;

test.each([
  ['no such workload', WORKLOAD, [9], 'workload', 'at most 3'],
  ['no rate', RATE, [0, 0, 0, 0], 'pages_per_second', '1 to 4294967295'],
  ['no such block', BLOCK_NAME, [0x71], 'ranges[0].block', 'pc.ram, extra'],
  ['pages beyond the block', FIRST_PAGE, [1], 'ranges[0].pages', 'at most 256 pages in pc.ram'],
  ['more hot pages than pages', HOT_PAGES, [1], 'ranges[0].hot_pages', 'at most 112'],
  ['another number of generations', PAGES + 3, [111], 'ranges[0].generation_bytes', '444'],
  ['pages of another vCPU', FIRST_PAGE + 3, [33], 'ranges[0]', 'pages of no other vCPU'],
] as const)('%s', async (_what, at, bytes, field, expected) => {
  const source = await running();
  const section = save(source.devices[0]!);
  section.set(bytes, at);
  const destination = await guest();
  load(destination.devices[1]!, save(source.devices[1]!));
  expect(() => load(destination.devices[0]!, section)).toThrow(
    expect.objectContaining({ code: 'VALUE_INVALID', path: ['wherry-vcpu', field], expected }),
  );
  expect(destination.controls[0]!.ranges).toEqual([]);
});

test('how much of a page writes change travels where it is not all', async () => {
  const source = await running();
  const destination = await guest();
  load(destination.devices[0]!, save(source.devices[0]!));
  expect(destination.controls[0]!.u32(CHANGED_LINES)).toBe(64);
  source.controls[0]!.setU32(CHANGED_LINES, 3);
  const section = save(source.devices[0]!);
  load(destination.devices[0]!, section);
  expect(destination.controls[0]!.u32(CHANGED_LINES)).toBe(3);
  section[section.length - 1] = 65;
  expect(() => load(destination.devices[0]!, section)).toThrow(
    expect.objectContaining({ path: ['wherry-vcpu', 'changed_lines'], expected: '1 to 64' }),
  );
});

test('a length that cannot be is refused before it is believed', async () => {
  const source = await running();
  const section = save(source.devices[0]!);
  section.fill(0xff, GENERATION_BYTES, GENERATION_BYTES + 4);
  const { devices } = await guest();
  expect(() => load(devices[0]!, section)).toThrow(
    expect.objectContaining({ code: 'COUNT_INVALID', offset: GENERATION_BYTES + 4 }),
  );
});

test('noise is refused or taken, with no bare exception', async () => {
  const source = await running();
  const wire = save(source.devices[0]!);
  const { devices } = await guest();
  const noise = fc.array(fc.tuple(fc.nat(wire.length - 1), fc.nat(255)), { maxLength: 6 });
  const property = fc.property(noise, fc.nat(wire.length), (changes, cut) => {
    const section = wire.slice(0, wire.length - (cut % 3 === 0 ? cut : 0));
    for (const [at, byte] of changes) if (at < section.length) section[at] = byte;
    try {
      const reader = ByteReader.over(section);
      runParser(devices[0]!.load(reader, 1), reader);
    } catch (error) {
      expect(error).toBeInstanceOf(WherryError);
    }
  });
  fc.assert(property, { numRuns: 300 });
});
