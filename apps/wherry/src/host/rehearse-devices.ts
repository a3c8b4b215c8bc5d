import { ByteReader, ByteWriter, runParser } from '@wherry/bytes';
import type { Device } from '@wherry/vmstate';

/**
 * Saves every device and loads it again, while the guest has not started.
 *
 * A device that cannot load what it saves is found before it matters; and the code of a hand-over, which
 * takes ten times as long when it runs for the first time, has run before the guest stands still for it.
 *
 * @throws VmstateError of the device
 */
export function rehearseDevices(devices: readonly Device[]): void {
  for (let round = 0; round < 2; round++) {
    for (const device of devices) {
      if (!device.isNeeded()) continue;
      const writer = new ByteWriter();
      device.save(writer);
      const reader = ByteReader.over(writer.finish());
      runParser(device.load(reader, device.version), reader);
    }
  }
}
