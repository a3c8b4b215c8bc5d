import { type Device, DeviceRegistry, describe, field, u32, vbuffer } from '@wherry/vmstate';
import { CliError } from '../cli-error.ts';
import { parseSize } from '../sizes.ts';

/** What a test device may have of state; all of it is held in memory several times over. */
const MAX_STATE_BYTES = 64 * 2 ** 20;

/** Hooks of a device's state, by QEMU's names. */
const HOOKS = {
  pre_save: 'preSave',
  post_save: 'postSave',
  pre_load: 'preLoad',
  post_load: 'postLoad',
} as const;

/** A device that a host's guest gets besides its own. */
export interface AddedDevice {
  readonly driver: string;
  /** PCI slot; default the first that is free. */
  readonly slot?: number;
  /** Which hook of the test device fails. */
  readonly fail?: keyof typeof HOOKS;
  /** Bytes of state that the test device has more. */
  readonly stateBytes?: number;
}

/** `sysbus-pci`: its section has no bus path, though a PCI function belongs to it. */
type Bus = 'none' | 'pci' | 'sysbus-pci';

type Driver =
  /** A device whose state cannot be sent: `state` names it, `type` is what `--only-migratable` names. */
  | {
      readonly kind: 'unmigratable';
      readonly type: string;
      readonly state: string;
      readonly bus: Bus;
    }
  /** A device that adds a blocker of its own. */
  | { readonly kind: 'blocker'; readonly reason: string; readonly bus: Bus }
  | { readonly kind: 'test'; readonly state: string; readonly bus: Bus };

const unmigratable = (type: string, state: string = type, bus: Bus = 'pci'): Driver => ({
  ...{ kind: 'unmigratable', type, state, bus },
});

/** Drivers that block migration in QEMU 10.0 and need nothing else to be there, and the test device. */
const DRIVERS: ReadonlyMap<string, Driver> = new Map<string, Driver>([
  ['nvme', unmigratable('nvme')],
  ['ufs', unmigratable('ufs')],
  ['rocker', unmigratable('rocker')],
  ['virtio-crypto-pci', unmigratable('virtio-crypto-device', 'virtio-crypto')],
  ['virtio-sound-pci', unmigratable('virtio-sound-device')],
  ['amd-iommu', unmigratable('amd-iommu', 'amd-iommu', 'sysbus-pci')],
  [
    'ivshmem-plain',
    {
      kind: 'blocker',
      reason: "Migration is disabled when using feature 'peer mode' in device 'ivshmem'",
      bus: 'pci',
    },
  ],
  ['wherry-testdev', { kind: 'test', state: 'wherry-testdev', bus: 'none' }],
]);

/** Names of the drivers, for help and refusals. */
export const DRIVER_NAMES: readonly string[] = [...DRIVERS.keys()];

/**
 * Reads `DRIVER[,addr=SLOT][,fail=HOOK][,state=SIZE]`, with SLOT in hex as QEMU has it.
 *
 * @throws RangeError with QEMU's words where it has some
 */
export function parseAddedDevice(text: string): AddedDevice {
  const [driver = '', ...properties] = text.split(',');
  const known = DRIVERS.get(driver);
  if (known === undefined) {
    throw new RangeError(
      `'${driver}' is not a valid device model name here: use ${DRIVER_NAMES.join(', ')}.`,
    );
  }
  const device: { -readonly [K in keyof AddedDevice]: AddedDevice[K] } = { driver };
  for (const property of properties) {
    const [key = '', value = ''] = property.split('=', 2);
    const wrong = new RangeError(`Property '${driver}.${key}' doesn't take value '${value}'.`);
    if (key === 'addr' && known.bus === 'pci') {
      const slot = /^([01]?[0-9a-f])(\.0)?$/i.exec(value)?.[1];
      if (slot === undefined) throw wrong;
      device.slot = Number.parseInt(slot, 16);
    } else if (key === 'fail' && known.kind === 'test') {
      if (!Object.hasOwn(HOOKS, value)) throw wrong;
      device.fail = value as keyof typeof HOOKS;
    } else if (key === 'state' && known.kind === 'test') {
      device.stateBytes = parseSize(value);
      if (device.stateBytes > MAX_STATE_BYTES) throw wrong;
    } else throw new RangeError(`Property '${driver}.${key}' not found.`);
  }
  return device;
}

/**
 * Refuses devices that cannot be migrated, all at once.
 *
 * @throws CliError
 * @see check_only_migratable in QEMU's hw/core/qdev.c, is_only_migratable in its migration/migration.c
 */
export function checkOnlyMigratable(added: readonly AddedDevice[]): void {
  const refusals = new Set<string>();
  for (const { driver: name } of added) {
    const driver = DRIVERS.get(name)!;
    if (driver.kind === 'unmigratable') {
      refusals.add(`Device ${driver.type} is not migratable, but --only-migratable was specified`);
    } else if (driver.kind === 'blocker') {
      refusals.add(`disallowing migration blocker (--only-migratable) for: ${driver.reason}`);
    }
  }
  if (refusals.size > 0) throw new CliError([...refusals].join('; '), 2);
}

/**
 * Adds devices to those of a machine, on free PCI slots.
 *
 * @returns all devices, and the blockers that the added ones bring
 * @throws CliError when a slot is taken, or none is free
 */
export function addDevices(
  own: readonly Device[],
  added: readonly AddedDevice[],
): { readonly devices: readonly Device[]; readonly blockers: readonly string[] } {
  const registry = new DeviceRegistry(own);
  const slots = new Slots(own);
  const blockers: string[] = [];
  for (const { driver: name, slot: wanted, fail, stateBytes = 0 } of added) {
    const driver = DRIVERS.get(name)!;
    if (name === 'amd-iommu' && registry.find(name, 0) !== undefined) {
      throw new CliError('QEMU does not support multiple vIOMMUs for x86 yet.', 2);
    }
    const slot = driver.bus === 'none' ? 0 : slots.take(name, wanted);
    if (driver.kind === 'blocker') {
      blockers.push(driver.reason);
      continue;
    }
    let state = { value: 0, state_bytes: stateBytes, state: new Uint8Array(stateBytes).fill(0x57) };
    registry.register({
      ...(driver.bus === 'pci' ? { busPath: `0000:00:${hexSlot(slot)}.0` } : {}),
      description: describe({
        name: driver.state,
        version: 1,
        unmigratable: driver.kind === 'unmigratable',
        fields:
          driver.kind === 'test'
            ? [
                field('value', u32),
                field('state_bytes', u32),
                field('state', vbuffer('state_bytes')),
              ]
            : [],
        ...(fail === undefined ? {} : { [HOOKS[fail]]: refuse }),
      }),
      get: () => state,
      set: (loaded) => {
        state = loaded as typeof state;
      },
    });
  }
  return { devices: registry.devices, blockers };
}

function refuse(): never {
  throw new Error('this device was made to fail');
}

/** The slots of the root bus. */
class Slots {
  readonly #taken = new Map([
    [0x00, 'mch'],
    [0x1f, 'ICH9-LPC'],
  ]);

  constructor(devices: readonly Device[]) {
    for (const { idstr } of devices) {
      const [, slot, name] = /^0000:00:([0-9a-f]{2})\.0\/(.*)$/.exec(idstr) ?? [];
      if (slot !== undefined) this.#taken.set(Number.parseInt(slot, 16), `${name}-pci`);
    }
  }

  /** @see do_pci_register_device in QEMU's hw/pci/pci.c for the words */
  take(driver: string, wanted: number | undefined): number {
    const holder = wanted === undefined ? undefined : this.#taken.get(wanted);
    if (holder !== undefined) {
      throw new CliError(
        `PCI: slot ${wanted} function 0 not available for ${driver}, in use by ${holder}`,
        2,
      );
    }
    let slot = wanted ?? 0;
    while (this.#taken.has(slot)) slot++;
    if (slot > 0x1f) {
      throw new CliError(
        `PCI: no slot/function available for ${driver}, all in use or reserved`,
        2,
      );
    }
    this.#taken.set(slot, driver);
    return slot;
  }
}

function hexSlot(slot: number): string {
  return slot.toString(16).padStart(2, '0');
}
