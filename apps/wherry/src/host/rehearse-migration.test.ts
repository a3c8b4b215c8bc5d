import type { Parser } from '@wherry/bytes';
import type { Device } from '@wherry/vmstate';
import { expect, test } from 'vitest';
import { rehearseMigration } from './rehearse-migration.ts';

const MACHINE = 'pc-q35-10.0';

/** A device of one byte, which keeps what it loads. */
function device(changes: Partial<Device> = {}): Device & { loaded: number[] } {
  return {
    ...{ idstr: 'byte', instanceId: 0, olderNames: [], version: 1, priority: 'default' },
    ...{ earlySetup: false, unmigratable: false, loaded: [] },
    isNeeded: () => true,
    save: (writer) => {
      writer.u8(7);
      return { name: 'byte', instance_id: 0, vmsd_name: 'byte', version: 1, fields: [] };
    },
    *load(reader): Parser<void> {
      if (reader.available < 1) yield 1;
      this.loaded.push(reader.u8());
    },
    ...changes,
  } as Device & { loaded: number[] };
}

test('each device is saved, and loads what it saved', async () => {
  const rehearsed = device();
  await rehearseMigration(MACHINE, [rehearsed]);
  expect(rehearsed.loaded.length).toBeGreaterThan(0);
  expect(new Set(rehearsed.loaded)).toEqual(new Set([7]));
});

test('a device that cannot be saved is named', async () => {
  const broken = device({
    save: () => {
      throw new Error('no state');
    },
  });
  await expect(rehearseMigration(MACHINE, [broken])).rejects.toMatchObject({
    code: 'DEVICE_STATE',
    message: expect.stringContaining("saving state for instance 0x0 of device 'byte': no state"),
  });
});

test('a device that cannot load what it saves is named', async () => {
  const broken = device({
    // biome-ignore lint/correctness/useYield: it ends before it reads
    *load(): Parser<void> {
      throw new Error('no such state');
    },
  });
  await expect(rehearseMigration(MACHINE, [broken])).rejects.toMatchObject({
    code: 'DEVICE_STATE',
    message: expect.stringContaining("loading state for instance 0x0 of device 'byte'"),
  });
});
