import { createHash } from 'node:crypto';
import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { type Description, formatVmdesc, type VmdescStyle } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { listFixtures, loadFixture } from '../../../conformance/fixtures.ts';
import { walkStream } from '../../../conformance/walk-stream.ts';
import { rtcAtPowerOn, rtcDescription } from '../src/devices/rtc.ts';
import { serialAtReset, serialDescription } from '../src/devices/serial.ts';
import {
  virtioBalloonAtPowerOn,
  virtioBalloonDescription,
  virtioBlkAtPowerOn,
  virtioBlkDescription,
  virtioNetAtPowerOn,
  virtioNetDescription,
} from '../src/devices/virtio-devices.ts';
import { drivenVirtio } from '../src/devices/virtio-driver.ts';
import { virtualClockAtPowerOn, virtualClockDescription } from '../src/devices/virtual-clock.ts';
import { recordedSection } from './sections.ts';

const mac = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const cases: readonly (readonly [string, unknown, unknown])[] = [
  ['timer', virtualClockDescription, virtualClockAtPowerOn()],
  ['mc146818rtc', rtcDescription, rtcAtPowerOn(0n, 8 << 20)],
  ['serial', serialDescription, serialAtReset()],
  ['0000:00:02.0/virtio-net', virtioNetDescription, { virtio: virtioNetAtPowerOn(mac) }],
  ['0000:00:03.0/virtio-blk', virtioBlkDescription, { virtio: virtioBlkAtPowerOn() }],
  ['0000:00:04.0/virtio-balloon', virtioBalloonDescription, { virtio: virtioBalloonAtPowerOn() }],
];

describe.each<VmdescStyle>(['5.2', '7.2', '10.0', '11.1'])('a stream of QEMU %s', (release) => {
  const { stream } = loadFixture(release, 'host-devices');
  const wholeText = Buffer.from(stream).toString('latin1');

  test.each(cases)(
    '%s loads, and saves to the same bytes and the same vmdesc',
    (idstr, d, base) => {
      const description = d as Description<unknown>;
      const { body, version, vmdesc } = recordedSection(stream, idstr);
      expect(version).toBe(description.version);

      const reader = ByteReader.over(body);
      const state = runParser(description.load(reader, base, version, [idstr]), reader);
      expect(reader.available).toBe(0);

      const writer = new ByteWriter();
      const entry = description.save(writer, state, { style: release });
      const saved = { name: idstr, instance_id: 0, ...entry };
      expect(Buffer.from(writer.bytes).equals(body)).toBe(true);
      expect(saved).toEqual(vmdesc);
      const text = formatVmdesc({ page_size: 4096, devices: [saved] }, release);
      expect(wholeText).toContain(text.slice(text.indexOf('[') + 1, text.lastIndexOf(']')).trim());
    },
  );
});

test('every recorded section of these devices loads, and saves to the same bytes', () => {
  const byName = new Map(cases.map(([idstr, d, base]) => [idstr.split('/').at(-1), [d, base]]));
  const seen = new Map<string, number>();
  for (const { release, case: name } of listFixtures()) {
    if (name === 'machine-2.2') continue; // nothing says where its sections end
    for (const { idstr, version, body } of walkStream(loadFixture(release, name).stream).devices) {
      const [path, deviceName] = idstr.includes('/') ? idstr.split('/') : ['', idstr];
      const known = byName.get(deviceName);
      // Ours sit on PCI.
      if (known === undefined || path?.startsWith('virtio-mmio')) continue;
      const [d, base] = known;
      const description = d as Description<unknown>;
      const reader = ByteReader.over(body!);
      const state = runParser(description.load(reader, base, version, [idstr]), reader);
      const writer = new ByteWriter();
      description.save(writer, state);
      expect(Buffer.compare(writer.bytes, body!), `${release}/${name} ${idstr}`).toBe(0);
      seen.set(deviceName!, (seen.get(deviceName!) ?? 0) + 1);
    }
  }
  expect([...seen.keys()].sort()).toEqual([...byName.keys()].sort());
  expect(Math.min(...seen.values())).toBeGreaterThan(10);
});

// SHA-256 of the sections that QEMU 7.2 and 11.1 send for a guest that never ran.
const powerOn: Readonly<Record<string, string>> = {
  serial: 'ab92d2df8e8feb33b026633c30274cd51124c8f256daea30045f93b4fba5499d',
  '0000:00:02.0/virtio-net': '2d75e593531ae3cfb826b2feae03101404df6ee50c599dd12a1e036daa207f38',
  '0000:00:03.0/virtio-blk': '6a7d161d365a00793f009c5fe4cb905c2be146501f889f726a8b68b319ee40bb',
  '0000:00:04.0/virtio-balloon': 'f79a9f0d704abf041f8af4a6a06681bf59b68a5268d17ac4c46a931a9420f6c9',
};

test.each(cases.filter(([idstr]) => idstr in powerOn))(
  '%s at power-on is byte for byte what QEMU sends',
  (idstr, d, base) => {
    const writer = new ByteWriter();
    (d as Description<unknown>).save(writer, base);
    expect(createHash('sha256').update(writer.bytes).digest('hex')).toBe(powerOn[idstr]);
  },
);

test('what firmware and a legacy driver leave is what was recorded, but for addresses', () => {
  const { stream } = loadFixture('7.2', 'host-devices');
  const { body } = recordedSection(stream, '0000:00:02.0/virtio-net');
  const reader = ByteReader.over(body);
  const base = { virtio: virtioNetAtPowerOn(mac) };
  const { virtio: recorded } = runParser(virtioNetDescription.load(reader, base), reader);
  const ours = drivenVirtio(virtioNetAtPowerOn(mac), 2, [0, 1]);
  expect({ ...ours, vq: [], queues: [] }).toEqual({ ...recorded, vq: [], queues: [] });
  expect(ours.queues.map(({ num }) => num)).toEqual(recorded.queues.map(({ num }) => num));
  // The same distances from descriptors to rings.
  const distances = ({ queues, vq }: typeof ours): unknown =>
    [0, 1].map((i) => [vq[i]!.avail - queues[i]!.desc, vq[i]!.used - queues[i]!.desc]);
  expect(distances(ours)).toEqual(distances(recorded));
});
