import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import { type Device, DeviceRegistry } from '@wherry/vmstate';
import { expect, test } from 'vitest';
import { GuestDevices } from './guest-devices.ts';

function save(device: Device): Uint8Array {
  const writer = new ByteWriter();
  device.save(writer);
  return writer.finish();
}

function load(device: Device, wire: Uint8Array): void {
  const reader = ByteReader.over(wire);
  runParser(device.load(reader, device.version), reader);
}

function devicesOf(guest: GuestDevices): readonly Device[] {
  const registry = new DeviceRegistry();
  guest.registerClock(registry);
  guest.registerOthers(registry);
  return registry.devices;
}

test('a loaded device is saved as it came until the guest runs, however late that is', () => {
  let nowMs = Date.UTC(2026, 0, 1, 12);
  const make = (): GuestDevices =>
    new GuestDevices({ now: () => nowMs, ramBytes: 1 << 24, rounds: () => undefined });
  const [source, destination] = [make(), make()];
  source.started();
  nowMs += 1234;
  source.stopped();
  const sent = devicesOf(source).map(save);
  const received = devicesOf(destination);
  for (const [i, device] of received.entries()) load(device, sent[i]!);
  nowMs += 5000;
  expect(received.map(save)).toEqual(sent);

  destination.started();
  nowMs += 5000;
  const rtc = received.findIndex(({ idstr }) => idstr === 'mc146818rtc');
  expect(save(received[rtc]!)).not.toEqual(sent[rtc]);
});
