import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import type { Description } from '@wherry/vmstate';
import { describe, expect, test } from 'vitest';
import { loadFixture } from '../../../conformance/fixtures.ts';
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

describe.each(['5.2', '7.2', '10.0', '11.1'])('a stream of QEMU %s', (release) => {
  const { stream } = loadFixture(release, 'host-devices');

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
      const saved = { name: idstr, instance_id: 0, ...description.save(writer, state) };
      expect(Buffer.from(writer.bytes).equals(body)).toBe(true);
      expect(saved).toEqual(vmdesc);
    },
  );
});
